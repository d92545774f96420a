/* Stopping a run by a signal: SIGTERM, SIGINT and SIGUSR1 (which mpirun hands on to its ranks, and Slurm can
 * send ahead of the end of a job's time) ask for a stop at the end of the step. Those that come within one
 * second of the first are the same request, which a launcher and a scheduler hand on each; a later one ends
 * the program at once. SIGUSR2, which ends the watch, is ignored when it comes from outside. */
#ifndef RINGGPT_TRAIN_STOP_H
#define RINGGPT_TRAIN_STOP_H

#include <stdbool.h>

#include "kernels/base/status.h"

typedef struct StopWatch StopWatch;

/* Starts watching: the signals are blocked in the calling thread and those it makes from now on, and one
 * thread waits for them. Call it before any other thread is made. Fails with STATUS_SYSTEM. */
Status stop_watch_start(StopWatch **out, Error *error);

/* True once a signal came. Any thread may ask. */
bool stop_requested(StopWatch *watch);

/* Ends the watch and lets the signals through again; NULL is allowed. */
void stop_watch_end(StopWatch *watch);

#endif
