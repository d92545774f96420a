/* Optimizer state sharded over all ranks (S. Rajbhandari et al., "ZeRO", 2020, stage 1): which elements a
 * rank owns, and the traffic that goes with it.
 *
 * Every group of parameters (embeddings, a layer, the head) is cut over all ranks by comm_part; a rank keeps
 * the moments of its parts, sums their gradients, updates their weights and hands these to all others. Both
 * ways run group by group behind the computation: a group's gradients are summed as soon as the backward pass
 * has completed them, and its new weights travel until the next forward pass needs them.
 *
 * Every rank makes these calls in one order: gradients from the last group to the first, then the sums of the
 * step, then weights from the first group to the last. */
#ifndef RINGGPT_TRAIN_SHARDING_H
#define RINGGPT_TRAIN_SHARDING_H

#include <stdint.h>

#include "checkpoints/checkpoint.h"
#include "kernels/base/status.h"
#include "kernels/base/tensor_table.h"
#include "kernels/comm/comm.h"
#include "model/model.h"

typedef struct Sharding {
  Comm *world;
  char *weights; /* (table->total) of `width` bytes */
  size_t width;
  float *gradients;      /* (table->total) */
  int64_t groups;        /* groups of the table */
  int64_t *begins;       /* (groups + 1) first element of each group; the last entry is the end */
  CheckpointRange *own;  /* (groups) this rank's part of each group, in elements of the table */
  int64_t own_elements;  /* of all its parts */
  CommRequest *gradient; /* (groups) gradients of a group that are being summed */
  CommRequest *weight;   /* (groups) weights of a group that are under way */
} Sharding;

/* Cuts the table over `world`. world, weights (elements of `width` bytes) and gradients stay the caller's.
 * STATUS_SYSTEM. */
Status sharding_create(Comm *world, const TensorTable *table, void *weights, size_t width, float *gradients,
                       Sharding *sharding, Error *error);

/* Releases it; the struct may be zero. Nothing may be under way, unless the group was aborted. */
void sharding_destroy(Sharding *sharding);

/* The listener of a micro-batch: waits for the weights of a group before they are read; with `last`, the last
 * micro-batch of a step, starts to sum a group's gradients when they are complete. */
ModelListener sharding_listener(Sharding *sharding, bool last);

/* Waits until all gradients are summed: this rank's parts then hold the sums over all ranks, and what lies
 * outside of them is undefined. */
Status sharding_finish_gradients(Sharding *sharding, Error *error);

/* Starts to hand out this rank's part of the weights of a group and to fetch the others'. */
Status sharding_start_weights(Sharding *sharding, int64_t group, Error *error);

/* Waits until every weight is there: before anything but sharding_listener's forward pass reads them. */
Status sharding_finish_weights(Sharding *sharding, Error *error);

#endif
