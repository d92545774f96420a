/* What an MPI launcher leaves in the environment of the processes that it starts: known before MPI starts,
 * and without MPI. */
#include <limits.h>
#include <stdlib.h>
#include <time.h>

#include "kernels/comm/mpi.h"

/* How long a process that stays silent leaves the first one to speak: a launcher may end all as soon as one
 * has failed. */
#define SILENT_SECONDS 2

/* The first of the variables that is a count; -1: none. */
static int read_count(const char *const names[]) {
  for (int i = 0; names[i] != NULL; i++) {
    const char *text = getenv(names[i]);
    char *end = NULL;
    if (text == NULL) continue;
    const long value = strtol(text, &end, 10);
    if (end != text && *end == '\0' && value >= 0 && value <= INT_MAX) return (int)value;
  }
  return -1;
}

/* A build without MPI can still be one process. */
static bool can_run_alone(void) {
  static const char *const sizes[] = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE", NULL};
  return RINGGPT_MPI == 0 && read_count(sizes) == 1;
}

bool comm_mpi_launched(void) {
  static const char *const names[] = {
      "OMPI_COMM_WORLD_SIZE", /* Open MPI's mpirun */
      "PMIX_RANK",            /* PMIx: prterun, srun --mpi=pmix */
      "PMI_RANK",
      "PMI_SIZE",
      "PMI_FD",              /* PMI: MPICH's and Intel's mpiexec, srun --mpi=pmi2 */
      "MV2_COMM_WORLD_SIZE", /* MVAPICH's mpirun_rsh */
  };
  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
    if (getenv(names[i]) != NULL) return !can_run_alone();
  }
  return false;
}

bool comm_mpi_launch_speaks(void) {
  static const char *const ranks[] = {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "MV2_COMM_WORLD_RANK",
                                      NULL};
  const struct timespec moment = {.tv_sec = SILENT_SECONDS};
  if (read_count(ranks) <= 0) return true;
  (void)nanosleep(&moment, NULL);
  return false;
}
