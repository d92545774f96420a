/* Optimizer state sharded over all ranks: who owns what, and the traffic of gradients and weights. */
#include "train/sharding.h"

#include <stdlib.h>

#include "kernels/base/memory.h"

static void cut(Sharding *sharding, const TensorTable *table) {
  const Comm *world = sharding->world;
  for (int64_t t = table->size - 1; t >= 0; t--) {
    sharding->begins[table->entries[t].group] = table->entries[t].offset;
  }
  sharding->begins[sharding->groups] = table->total;
  for (int64_t group = 0; group < sharding->groups; group++) {
    const int64_t begin = sharding->begins[group];
    CheckpointRange *own = &sharding->own[group];
    comm_part(sharding->begins[group + 1] - begin, world->rank, world->size, &own->begin, &own->end);
    own->begin += begin;
    own->end += begin;
    sharding->own_elements += own->end - own->begin;
  }
}

Status sharding_create(Comm *world, const TensorTable *table, void *weights, size_t width, float *gradients,
                       Sharding *sharding, Error *error) {
  const size_t groups = (size_t)table->entries[table->size - 1].group + 1;
  void *memory = NULL;
  *sharding = (Sharding){
      .world = world, .weights = weights, .width = width, .gradients = gradients, .groups = (int64_t)groups};
  TRY(memory_alloc(groups + 1, sizeof(int64_t), "sharding", &memory, error));
  sharding->begins = memory;
  TRY(memory_alloc(groups, sizeof(CheckpointRange), "sharding", &memory, error));
  sharding->own = memory;
  TRY(memory_alloc(2 * groups, sizeof(CommRequest), "sharding", &memory, error));
  sharding->gradient = memory;
  sharding->weight = sharding->gradient + groups;
  cut(sharding, table);
  return STATUS_OK;
}

void sharding_destroy(Sharding *sharding) {
  free(sharding->gradient);
  free(sharding->own);
  free(sharding->begins);
  *sharding = (Sharding){0};
}

/* ---------------------------------------------------------------- gradients */

static Status start_gradients(void *context, int group, Error *error) {
  Sharding *sharding = context;
  const int64_t begin = sharding->begins[group];
  return comm_reduce_scatter_start(sharding->world, COMM_GRADIENTS, COMM_F32, COMM_SUM,
                                   sharding->gradients + begin, sharding->begins[group + 1] - begin,
                                   &sharding->gradient[group], error);
}

Status sharding_finish_gradients(Sharding *sharding, Error *error) {
  for (int64_t group = sharding->groups - 1; group >= 0; group--) {
    TRY(comm_wait(sharding->world, &sharding->gradient[group], error));
  }
  return STATUS_OK;
}

/* ---------------------------------------------------------------- weights */

Status sharding_start_weights(Sharding *sharding, int64_t group, Error *error) {
  const int64_t begin = sharding->begins[group];
  return comm_gather_parts_start(
      sharding->world, COMM_WEIGHTS, sharding->weights + (size_t)begin * sharding->width,
      sharding->begins[group + 1] - begin, sharding->width, &sharding->weight[group], error);
}

static Status wait_for_weights(void *context, int group, Error *error) {
  Sharding *sharding = context;
  return comm_wait(sharding->world, &sharding->weight[group], error);
}

Status sharding_finish_weights(Sharding *sharding, Error *error) {
  for (int group = 0; group < sharding->groups; group++) TRY(wait_for_weights(sharding, group, error));
  return STATUS_OK;
}

ModelListener sharding_listener(Sharding *sharding, bool last) {
  return (ModelListener){
      .group_needed = wait_for_weights, .group_done = last ? start_gradients : NULL, .context = sharding};
}
