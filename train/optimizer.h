/* AdamW over the flat array of parameters, with clipping by the global norm. */
#ifndef RINGGPT_TRAIN_OPTIMIZER_H
#define RINGGPT_TRAIN_OPTIMIZER_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/base/status.h"
#include "kernels/base/tensor_table.h"
#include "kernels/device.h"
#include "train/config.h"

typedef struct Optimizer {
  Device *device;
  const TensorTable *table;
  OptimizerConfig config;
  float *m; /* (table->total) first moment */
  float *v; /* (table->total) second moment */
} Optimizer;

/* Takes the memory for the moments, zero. device and table stay the caller's. */
Status optimizer_create(Device *device, const TensorTable *table, const OptimizerConfig *config,
                        Optimizer *optimizer, Error *error);

/* Releases the moments; the struct may be zero. */
void optimizer_destroy(Optimizer *optimizer);

/* The norm of all gradients times gradient_scale: of the reduced gradients, each parameter once. */
double optimizer_grad_norm(const Optimizer *optimizer, const float *gradients, double gradient_scale);

/* Applies update number `step` (1 is the first) to weights (table->total): gradients times gradient_scale,
 * scaled down to config.clip_grad when grad_norm is above it; weight decay where the table says so. */
void optimizer_step(const Optimizer *optimizer, const float *gradients, double gradient_scale,
                    double grad_norm, double learning_rate, int64_t step, float *weights);

#endif
