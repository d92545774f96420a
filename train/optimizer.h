/* AdamW over a rank's share of the flat array of parameters, with clipping by the global norm. */
#ifndef RINGGPT_TRAIN_OPTIMIZER_H
#define RINGGPT_TRAIN_OPTIMIZER_H

#include <stdint.h>

#include "kernels/base/status.h"
#include "kernels/base/tensor_table.h"
#include "kernels/device.h"
#include "train/config.h"
#include "train/sharding.h"

typedef struct Optimizer {
  Device *device;
  const TensorTable *table;
  const Sharding *sharding; /* whose `own` says which elements are this rank's */
  OptimizerConfig config;
  float *m;       /* (sharding->own_elements) first moment of the own parts, one behind the other */
  float *v;       /* likewise the second */
  float *masters; /* (sharding->own_elements) the weights of the own parts as floats; NULL: they are floats */
  double *sum;    /* (1) device memory of optimizer_sum_of_squares */
} Optimizer;

/* One update of the whole model. */
typedef struct OptimizerStep {
  int64_t number; /* 1 is the first: corrects the bias of the moments */
  double learning_rate;
  double gradient_scale; /* factor on the summed gradients: 1 / targets */
  double grad_norm;      /* of all gradients times gradient_scale */
} OptimizerStep;

/* Takes the memory for the moments, which are zero, and for the masters. device, table and sharding stay the
 * caller's. */
Status optimizer_create(Device *device, const TensorTable *table, const Sharding *sharding,
                        const OptimizerConfig *config, Optimizer *optimizer, Error *error);

/* Releases the moments; the struct may be zero. */
void optimizer_destroy(Optimizer *optimizer);

/* The sum of the squares of this rank's share of the summed gradients: over all ranks each parameter counts
 * once. */
double optimizer_sum_of_squares(const Optimizer *optimizer, const float *gradients);

/* Where the model's weights are rounded: takes the masters from weights (table->total), host memory; and
 * collects those of all ranks in it, on rank 0 of the world, where it is NULL on others. Collective. Without
 * masters nothing is done. STATUS_SYSTEM without memory; as comm. */
void optimizer_set_masters(const Optimizer *optimizer, const float *weights);
Status optimizer_collect_masters(const Optimizer *optimizer, float *weights, Error *error);

/* Updates this rank's part of one group in weights (table->total) by gradients (table->total): scaled, and
 * scaled down further to config.clip_grad when the norm is above it; with weight decay where the table says
 * so. */
void optimizer_update_group(const Optimizer *optimizer, const OptimizerStep *step, int64_t group,
                            const float *gradients, elem *weights);

#endif
