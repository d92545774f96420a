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
 * not start MPI. In a build without MPI a process that is the only one counts as not launched. */
bool comm_mpi_launched(void);

/* For a program that ends in failure before MPI has started, in all processes alike: true on the one that
 * should print its message, by what a launcher leaves in the environment, and where no launcher is. Another
 * one waits a moment first, so that its end does not make the launcher end the one that speaks. */
bool comm_mpi_launch_speaks(void);

/* Starts MPI, once in a process, and gives the group of all its processes; the caller ends with comm_mpi_end.
 * STATUS_CONFIG in a build without MPI, STATUS_SYSTEM when MPI does not start. */
Status comm_mpi_start(Comm **world, Error *error);

/* A rank that has waited for an operation for `seconds` in silence ends the communication of the program with
 * STATUS_SYSTEM, naming the operation and the ranks that have not joined it; 0: it waits for ever. Silence:
 * no message moves, and no rank that has not joined computes (calls comm_poll or starts operations) or waits
 * for one that does. Time in which this process was suspended does not count. Holds for every group of this
 * process; every process gives the same. */
void comm_mpi_set_timeout(Comm *world, double seconds);

/* Ends MPI in good order and releases `world`; NULL is allowed. Every process calls it. */
void comm_mpi_end(Comm *world);

/* For a program that ends in failure, after comm_abort: returns true when this rank should print its message
 * and end the program by comm_mpi_kill. Rank 0 should at once; another rank first gives each lower one that
 * has answered its comm_abort some seconds to do so, and those that have not as much together. */
bool comm_mpi_speaks(const Comm *world);

/* Ends all processes of the program with `status` as their exit code. Does not return. */
void comm_mpi_kill(Comm *world, Status status);

#endif
