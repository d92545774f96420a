/* AdamW over the flat array of parameters, with clipping by the global norm. */
#include "train/optimizer.h"

#include <math.h>

Status optimizer_create(Device *device, const TensorTable *table, const OptimizerConfig *config,
                        Optimizer *optimizer, Error *error) {
  const size_t bytes = (size_t)table->total * sizeof(float);
  void *memory = NULL;
  *optimizer = (Optimizer){.device = device, .table = table, .config = *config};
  TRY(device_alloc(device, bytes, "optimizer state", &memory, error));
  optimizer->m = memory;
  TRY(device_alloc(device, bytes, "optimizer state", &memory, error));
  optimizer->v = memory;
  return STATUS_OK;
}

void optimizer_destroy(Optimizer *optimizer) {
  if (optimizer->device == NULL) return;
  device_free(optimizer->device, optimizer->v);
  device_free(optimizer->device, optimizer->m);
  *optimizer = (Optimizer){0};
}

double optimizer_grad_norm(const Optimizer *optimizer, const float *gradients, double gradient_scale) {
  double sum = 0.0;
  optimizer->device->ops.sum_of_squares(optimizer->device, optimizer->table->total, gradients, &sum);
  return sqrt(sum) * gradient_scale;
}

/* Entries with the same treatment lie side by side more often than not: one call for each such stretch. */
static int64_t stretch_end(const TensorTable *table, int64_t begin) {
  int64_t end = begin + 1;
  while (end < table->size && table->entries[end].decay == table->entries[begin].decay) end++;
  return end;
}

void optimizer_step(const Optimizer *optimizer, const float *gradients, double gradient_scale,
                    double grad_norm, double learning_rate, int64_t step, float *weights) {
  const TensorTable *table = optimizer->table;
  const OptimizerConfig *config = &optimizer->config;
  const bool clip = config->clip_grad > 0.0 && grad_norm > config->clip_grad;
  AdamwStep numbers = {
      .learning_rate = (float)learning_rate,
      .beta1 = (float)config->beta1,
      .beta2 = (float)config->beta2,
      .eps = (float)config->eps,
      .gradient_scale = (float)(clip ? gradient_scale * (config->clip_grad / grad_norm) : gradient_scale),
      .step = step,
  };
  for (int64_t begin = 0, end = 0; begin < table->size; begin = end) {
    end = stretch_end(table, begin);
    const int64_t first = table->entries[begin].offset;
    const TensorEntry *last = &table->entries[end - 1];
    numbers.weight_decay = table->entries[begin].decay ? (float)config->weight_decay : 0.0F;
    optimizer->device->ops.adamw(optimizer->device, &numbers, last->offset + last->count - first,
                                 gradients + first, weights + first, optimizer->m + first,
                                 optimizer->v + first);
  }
}
