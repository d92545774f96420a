/* The sum of gradients over all ranks, group by group. */
#include "train/reduction.h"

#include <stdlib.h>

#include "kernels/base/memory.h"

Status reduction_create(Comm *world, const TensorTable *table, float *gradients, Reduction *reduction,
                        Error *error) {
  void *memory = NULL;
  const int64_t groups = (int64_t)table->entries[table->size - 1].group + 1;
  *reduction = (Reduction){.world = world, .gradients = gradients, .groups = groups};
  TRY(memory_alloc((size_t)groups + 1, sizeof(int64_t), "gradient reduction", &memory, error));
  reduction->begins = memory;
  TRY(memory_alloc((size_t)groups, sizeof(CommRequest), "gradient reduction", &memory, error));
  reduction->requests = memory;
  for (int64_t t = table->size - 1; t >= 0; t--) {
    reduction->begins[table->entries[t].group] = table->entries[t].offset;
  }
  reduction->begins[groups] = table->total;
  return STATUS_OK;
}

void reduction_destroy(Reduction *reduction) {
  free(reduction->requests);
  free(reduction->begins);
  *reduction = (Reduction){0};
}

static Status start_group(void *context, int group, Error *error) {
  Reduction *reduction = context;
  const int64_t begin = reduction->begins[group];
  return comm_all_reduce_start(reduction->world, COMM_GRADIENTS, COMM_F32, COMM_SUM,
                               reduction->gradients + begin, reduction->begins[group + 1] - begin,
                               &reduction->requests[group], error);
}

ModelListener reduction_listener(Reduction *reduction) {
  return (ModelListener){.group_done = start_group, .context = reduction};
}

Status reduction_finish(Reduction *reduction, Error *error) {
  for (int64_t group = reduction->groups - 1; group >= 0; group--) {
    TRY(comm_wait(reduction->world, &reduction->requests[group], error));
  }
  return STATUS_OK;
}
