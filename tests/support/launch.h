/* Training runs as processes of their own: the built program, started alone or by mpirun. */
#ifndef RINGGPT_SUPPORT_LAUNCH_H
#define RINGGPT_SUPPORT_LAUNCH_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "train/config.h"

/* What launch_finish returns for a process that a signal ended. */
#define LAUNCH_KILLED (-1)

typedef struct Launch {
  const char *command;          /* NULL: train */
  const Config *config;         /* of training_config: its run.dir and data are used */
  const char *const *overrides; /* (ended by NULL) the others, and flags */
  int processes;                /* started by mpirun; 0: the program alone */
  const char *before; /* commands of the shell for each rank of mpirun before it becomes the program,
                         whose arguments are "$@"; $OMPI_COMM_WORLD_RANK is its number. NULL: none */
  int output;         /* descriptor for standard output; 0: none */
  const char *errors; /* file for standard error; NULL: none */
} Launch;

/* Starts the program, or mpirun with it. Each process that mpirun starts writes its process id to
 * RUN_DIR.pid.RANK. */
pid_t launch_start(const Launch *launch);

/* Sets the environment of an mpirun: Open MPI as root, over its transports `network`, with more ranks than
 * cores, which they share; other MPIs do not read this. */
void launch_prepare_mpirun(const char *network);

/* Waits for the end: the exit status, or LAUNCH_KILLED. */
int launch_finish(pid_t child);

/* The process id of a rank that mpirun started: waits until it is known. */
pid_t launch_rank_pid(const Config *config, int rank);

/* Waits up to ten seconds for a process to end, and returns whether it has: one that nobody has waited for
 * has, too. */
bool launch_gone(pid_t pid);

/* The number of steps that the run has recorded so far, 0 before its first. */
int64_t launch_recorded_steps(const Config *config);

/* Waits until the run has recorded `steps` steps, or has ended by itself. */
void launch_wait_for_steps(const Config *config, pid_t child, int64_t steps);

/* Sleeps. */
void launch_sleep_ms(int64_t ms);

#endif
