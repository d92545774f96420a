/* The MPI transport: one rank a process, over any MPI. A build without MPI (RINGGPT_MPI 0) has the same
 * calls; comm_mpi_start then says so.
 *
 * Large messages move only while this process is inside MPI: comm_wait, and comm_poll from the middle of
 * computations. All calls come from the thread that made comm_mpi_start. */
#ifndef RINGGPT_COMM_MPI_H
#define RINGGPT_COMM_MPI_H

#include <stdbool.h>

#include "kernels/base/status.h"
#include "kernels/comm/comm.h"

/* Whether an MPI launcher (mpirun, mpiexec, srun) has started this process as one of several or as one: read
 * from what Open MPI, MPICH, PMI and PMIx leave in the environment, so that a program that runs alone need
 * not start MPI. */
bool comm_mpi_launched(void);

/* Starts MPI, once in a process, and gives the group of all its processes; the caller ends with comm_mpi_end.
 * STATUS_CONFIG in a build without MPI, STATUS_SYSTEM when MPI does not start. */
Status comm_mpi_start(Comm **world, Error *error);

/* A rank that has waited for one operation for `seconds` gives up with STATUS_SYSTEM, naming the operation
 * and the ranks that have not joined it; 0: it waits for ever. Holds for every group of this process. */
void comm_mpi_set_timeout(Comm *world, double seconds);

/* Ends MPI in good order and releases `world`; NULL is allowed. Every process calls it. */
void comm_mpi_end(Comm *world);

/* For a program that ends in failure: returns true on the rank that should print its message. That is rank 0;
 * another rank first gives rank 0, which has heard of the failure by comm_abort, a moment to end the program,
 * and then speaks itself. */
bool comm_mpi_speaks(const Comm *world);

/* Ends all processes of the program with `status` as their exit code. Does not return. */
void comm_mpi_kill(Comm *world, Status status);

#endif
