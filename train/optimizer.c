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
  if (device->ops.elem_size != sizeof(float)) {
    TRY(device_alloc(device, bytes, "master weights", &memory, error));
    optimizer->masters = memory;
  }
  TRY(device_alloc(device, sizeof(double), "optimizer state", &memory, error));
  optimizer->sum = memory;
  return STATUS_OK;
}

void optimizer_destroy(Optimizer *optimizer) {
  if (optimizer->device == NULL) return;
  device_free(optimizer->device, optimizer->sum);
  device_free(optimizer->device, optimizer->masters);
  device_free(optimizer->device, optimizer->v);
  device_free(optimizer->device, optimizer->m);
  *optimizer = (Optimizer){0};
}

double optimizer_sum_of_squares(const Optimizer *optimizer, const float *gradients) {
  const Sharding *sharding = optimizer->sharding;
  Device *device = optimizer->device;
  double total = 0.0;
  device_zero(device, optimizer->sum, sizeof total);
  for (int64_t group = 0; group < sharding->groups; group++) {
    const CheckpointRange own = sharding->own[group];
    device->ops.sum_of_squares(device, own.end - own.begin, gradients + own.begin, optimizer->sum);
  }
  device_read(device, &total, optimizer->sum, sizeof total);
  return total;
}

/* ---------------------------------------------------------------- masters */

void optimizer_set_masters(const Optimizer *optimizer, const float *weights) {
  const Sharding *sharding = optimizer->sharding;
  float *to = optimizer->masters;
  for (int64_t group = 0; to != NULL && group < sharding->groups; group++) {
    const CheckpointRange own = sharding->own[group];
    device_write(optimizer->device, to, weights + own.begin, (size_t)(own.end - own.begin) * sizeof(float));
    to += own.end - own.begin;
  }
}

/* The largest group's elements. */
static int64_t largest_group(const Sharding *sharding) {
  int64_t largest = 0;
  for (int64_t group = 0; group < sharding->groups; group++) {
    const int64_t elements = sharding->begins[group + 1] - sharding->begins[group];
    if (elements > largest) largest = elements;
  }
  return largest;
}

/* The masters of one group from all ranks, to device memory. */
static Status gather_masters(const Optimizer *optimizer, int64_t group, const float *own_masters, float *all,
                             Error *error) {
  const Sharding *sharding = optimizer->sharding;
  const int64_t begin = sharding->begins[group];
  const CheckpointRange own = sharding->own[group];
  const size_t own_bytes = (size_t)(own.end - own.begin) * sizeof(float);
  CommRequest request = {0};
  device_copy_rows(optimizer->device, all + (own.begin - begin), own_bytes, own_masters, own_bytes, own_bytes,
                   1);
  TRY(comm_gather_parts_start(sharding->world, COMM_WEIGHTS, all, sharding->begins[group + 1] - begin,
                              sizeof(float), &request, error));
  return comm_wait(sharding->world, &request, error);
}

Status optimizer_collect_masters(const Optimizer *optimizer, float *weights, Error *error) {
  const Sharding *sharding = optimizer->sharding;
  const float *own_masters = optimizer->masters;
  Status status = STATUS_OK;
  void *all = NULL;
  if (own_masters == NULL) return STATUS_OK;
  TRY(device_alloc(optimizer->device, (size_t)largest_group(sharding) * sizeof(float),
                   "master weights of a group", &all, error));
  for (int64_t group = 0; group < sharding->groups; group++) {
    const int64_t begin = sharding->begins[group];
    TRY_GOTO(gather_masters(optimizer, group, own_masters, all, error), done);
    if (weights != NULL) {
      device_read(optimizer->device, weights + begin, all,
                  (size_t)(sharding->begins[group + 1] - begin) * sizeof(float));
    }
    own_masters += sharding->own[group].end - sharding->own[group].begin;
  }
  status = device_check(optimizer->device, error);
done:
  device_free(optimizer->device, all);
  return status;
}

/* ---------------------------------------------------------------- updates */

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
                            const float *gradients, elem *weights) {
  const TensorTable *table = optimizer->table;
  const CheckpointRange own = optimizer->sharding->own[group];
  Device *device = optimizer->device;
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
    elem *stored = (char *)weights + (size_t)begin * device->ops.elem_size;
    float *masters = optimizer->masters == NULL ? stored : optimizer->masters + state;
    device->ops.adamw(device, &numbers, end - begin, gradients + begin, masters, optimizer->m + state,
                      optimizer->v + state);
    if (masters != stored) device->ops.from_floats(device, end - begin, masters, stored);
  }
}
