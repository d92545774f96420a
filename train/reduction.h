/* The sum of gradients over all ranks, started for each group of parameters as soon as the backward pass has
 * completed it: a transport that works in the background sums while the layers still to come are computed.
 * The local transport sums in the call of the rank that comes last, and the others go on. */
#ifndef RINGGPT_TRAIN_REDUCTION_H
#define RINGGPT_TRAIN_REDUCTION_H

#include <stdint.h>

#include "kernels/base/status.h"
#include "kernels/base/tensor_table.h"
#include "kernels/comm/comm.h"
#include "model/model.h"

typedef struct Reduction {
  Comm *world;
  float *gradients;      /* (elements of the table) */
  int64_t groups;        /* groups of the table */
  int64_t *begins;       /* (groups + 1) first element of each group; the last entry is the end */
  CommRequest *requests; /* (groups) */
} Reduction;

/* Prepares the reduction of `gradients` (table->total) over `world`; both stay the caller's. */
Status reduction_create(Comm *world, const TensorTable *table, float *gradients, Reduction *reduction,
                        Error *error);

/* Releases it; the struct may be zero. No request may be under way, unless the group was aborted. */
void reduction_destroy(Reduction *reduction);

/* The listener that starts a group's reduction; for the last micro-batch of a step. Every rank completes the
 * groups in the same order, from the last to the first: that is the one order of the collective calls. */
ModelListener reduction_listener(Reduction *reduction);

/* Waits until all groups started are summed. */
Status reduction_finish(Reduction *reduction, Error *error);

#endif
