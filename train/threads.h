/* Compute threads of a rank: how many, from the configuration, the environment or the cores that the ranks of
 * a host share; and how they wait where there are more threads than cores. */
#ifndef RINGGPT_TRAIN_THREADS_H
#define RINGGPT_TRAIN_THREADS_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/base/status.h"
#include "kernels/comm/comm.h"
#include "train/config.h"

#define THREADS_MOST_CORES 1024

/* Where a rank may run: sent between ranks as it is. */
typedef struct ThreadsPlace {
  uint64_t host;                           /* equal where ranks share cores */
  uint64_t cores[THREADS_MOST_CORES / 64]; /* bit c % 64 of word c / 64: core c */
} ThreadsPlace;

/* The number of cores of a place. */
int threads_cores(const ThreadsPlace *place);

/* The share of rank `rank` of places (count) in the cores: the sum over its cores of 1 / (ranks that may run
 * on the core), rounded down, at least 1. */
int threads_share(const ThreadsPlace *places, int count, int rank);

/* Whether more than one thread will run on some core of rank `rank`, the threads (count) of every rank spread
 * evenly over its cores. */
bool threads_crowded(const ThreadsPlace *places, const int64_t *threads, int count, int rank);

/* The compute threads of this rank: parallelism.threads, or else the first number of OMP_NUM_THREADS, or else
 * its share of the cores. *shared: whether it shares a core with a further thread of the program. Collective
 * over `world`; a rank on which it fails must end the others by comm_abort. STATUS_CONFIG for a bad
 * OMP_NUM_THREADS, and for more threads than the process may use cores: OpenMP would end it where they cannot
 * be started. In a build without OpenMP a rank has one thread. */
Status threads_of_rank(const Config *config, Comm *world, int *threads, bool *shared, Error *error);

/* *local: how many ranks of the world with a lower number are on this host; *here, unless NULL: how many are
 * on it in all. Collective. */
Status threads_local_rank(Comm *world, int *local, int *here, Error *error);

/* Starts the program anew with OMP_WAIT_POLICY=passive where a launcher (Open MPI, MPICH or Slurm, by their
 * environment) has put more ranks x threads on this host than there are cores: threads that spin for work
 * would take the cores from those that have some, and libgomp reads the policy before main. `configured` is
 * parallelism.threads. Returns where that is not so, where the environment states a policy already, or where
 * it cannot be done. To be called before MPI starts. */
void threads_wait_passively(int64_t configured, char *const argv[]);

#endif
