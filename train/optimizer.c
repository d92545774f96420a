/* AdamW over a rank's share of the flat array of parameters, with clipping by the global norm. */
#include "train/optimizer.h"

Status optimizer_create(Device *device, const TensorTable *table, const Sharding *sharding,
                        const OptimizerConfig *config, Optimizer *optimizer, Error *error) {
  const size_t bytes = (size_t)sharding->own_elements * sizeof(float);
  void *memory = NULL;
  *optimizer = (Optimizer){.device = device, .table = table, .sharding = sharding, .config = *config};
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

double optimizer_sum_of_squares(const Optimizer *optimizer, const float *gradients) {
  const Sharding *sharding = optimizer->sharding;
  double total = 0.0;
  for (int64_t group = 0; group < sharding->groups; group++) {
    const CheckpointRange own = sharding->own[group];
    double sum = 0.0;
    optimizer->device->ops.sum_of_squares(optimizer->device, own.end - own.begin, gradients + own.begin,
                                          &sum);
    total += sum;
  }
  return total;
}

/* The end of the stretch of parameters from entry `first` on that are treated alike. */
static int64_t stretch_end(const TensorTable *table, int64_t first) {
  int64_t end = first + 1;
  while (end < table->size && table->entries[end].decay == table->entries[first].decay) end++;
  return end;
}

static int64_t larger(int64_t a, int64_t b) {
  return a > b ? a : b;
}

static int64_t smaller(int64_t a, int64_t b) {
  return a < b ? a : b;
}

static AdamwStep numbers_of(const OptimizerConfig *config, const OptimizerStep *step) {
  const bool clip = config->clip_grad > 0.0 && step->grad_norm > config->clip_grad;
  const double factor = clip ? config->clip_grad / step->grad_norm : 1.0;
  return (AdamwStep){
      .learning_rate = (float)step->learning_rate,
      .beta1 = (float)config->beta1,
      .beta2 = (float)config->beta2,
      .eps = (float)config->eps,
      .gradient_scale = (float)(step->gradient_scale * factor),
      .step = step->number,
  };
}

void optimizer_update_group(const Optimizer *optimizer, const OptimizerStep *step, int64_t group,
                            const float *gradients, float *weights) {
  const TensorTable *table = optimizer->table;
  const CheckpointRange own = optimizer->sharding->own[group];
  AdamwStep numbers = numbers_of(&optimizer->config, step);
  int64_t before = 0; /* elements of this rank's parts of earlier groups */
  for (int64_t g = 0; g < group; g++) {
    before += optimizer->sharding->own[g].end - optimizer->sharding->own[g].begin;
  }
  for (int64_t first = 0, next = 0; first < table->size; first = next) {
    next = stretch_end(table, first);
    const TensorEntry *last = &table->entries[next - 1];
    const int64_t begin = larger(own.begin, table->entries[first].offset);
    const int64_t end = smaller(own.end, last->offset + last->count);
    if (begin >= end) continue;
    const int64_t state = before + begin - own.begin;
    numbers.weight_decay = table->entries[first].decay ? (float)optimizer->config.weight_decay : 0.0F;
    optimizer->device->ops.adamw(optimizer->device, &numbers, end - begin, gradients + begin, weights + begin,
                                 optimizer->m + state, optimizer->v + state);
  }
}
