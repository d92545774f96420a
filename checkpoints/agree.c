/* Agreement of all ranks on success or failure. */
#include "checkpoints/agree.h"

#include <stdint.h>

Status agree(Comm *world, Status local, Error *error) {
  /* The first rank that failed is the one with the largest distance to the end. */
  int64_t distance = local == STATUS_OK ? 0 : world->size - world->rank;
  TRY(comm_all_reduce(world, COMM_I64, COMM_MAX, &distance, 1, error));
  if (distance == 0) return STATUS_OK;
  const int first = world->size - (int)distance;
  Error failure = world->rank == first ? *error : (Error){0};
  TRY(comm_broadcast(world, first, &failure, sizeof failure, error));
  *error = (Error){0};
  /* What rank 0 does it does for all; elsewhere the rank tells on which machine to look. */
  if (first == 0) return fail(error, failure.status, "%s", failure.text);
  return fail(error, failure.status, "rank %d: %s", first, failure.text);
}
