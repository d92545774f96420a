/* Training runs that are the same but for device, precision and grid: see the header. */
#include "tests/support/device_training.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoints/safetensors.h"
#include "tests/support/compare.h"
#include "tests/support/expect.h"
#include "tests/support/unit.h"

Config device_training_config(void **state, const DeviceRun *run) {
  char texts[6][64];
  (void)snprintf(texts[0], sizeof texts[0], "device=%s", run->device);
  (void)snprintf(texts[1], sizeof texts[1], "train.precision=%s", run->precision);
  (void)snprintf(texts[2], sizeof texts[2], "parallelism.ring=%d", run->ring);
  (void)snprintf(texts[3], sizeof texts[3], "parallelism.data=%d", run->data);
  (void)snprintf(texts[4], sizeof texts[4], "train.steps=%d", run->steps);
  (void)snprintf(texts[5], sizeof texts[5], "parallelism.threads=%d", run->threads);
  const char *const overrides[] = {texts[0],
                                   texts[1],
                                   texts[2],
                                   texts[3],
                                   texts[4],
                                   "model.hidden_size=32",
                                   "model.num_attention_heads=2",
                                   "model.num_key_value_heads=1",
                                   "model.intermediate_size=48",
                                   "train.sequence_length=40",
                                   "train.micro_batch_size=1",
                                   "train.global_batch_size=2",
                                   "train.dropout=0.1",
                                   "scheduler.name=constant",
                                   "checkpoint.every=3",
                                   run->threads > 0 ? texts[5] : NULL,
                                   NULL};
  return training_config(training_directory(state), run->name, overrides);
}

Metrics device_training_run(void **state, const DeviceRun *run) {
  const Config config = device_training_config(state, run);
  return training_metrics(&config);
}

Metrics device_training_on_cpu(void **state) {
  return device_training_run(state, &(DeviceRun){"cpu", "cpu", "fp32", 1, 1, DEVICE_STEPS, 0});
}

double device_training_difference(const Metrics *a, const Metrics *b) {
  double largest = 0;
  assert_int_equal(a->count, DEVICE_STEPS);
  assert_int_equal(b->count, DEVICE_STEPS);
  for (int i = 0; i < DEVICE_STEPS; i++) largest = fmax(largest, fabs(a->loss[i] - b->loss[i]) / a->loss[i]);
  return largest;
}

void device_training_check_bf16(void **state, const char *device) {
  const Metrics exact = device_training_on_cpu(state);
  for (int ring = 1; ring <= 2; ring++) {
    char name[32];
    (void)snprintf(name, sizeof name, "bf16-%d", ring);
    const Metrics rounded =
        device_training_run(state, &(DeviceRun){name, device, "bf16", ring, 1, DEVICE_STEPS, 0});
    check_within("bf16 against fp32", device_training_difference(&exact, &rounded), 5e-3);
    assert_true(device_training_difference(&exact, &rounded) > 1e-7);
  }
}

/* The share of a tensor's numbers that bf16 does not hold. */
static double share_beyond_bf16(const Safetensors *tensors, const SafetensorsEntry *entry) {
  Error error = {0};
  int64_t beyond = 0;
  float *values = malloc((size_t)entry->count * sizeof *values);
  assert_non_null(values);
  expect_ok(safetensors_read(tensors, entry, 0, entry->count, values, &error), &error);
  for (int64_t i = 0; i < entry->count; i++) {
    uint32_t bits = 0;
    memcpy(&bits, &values[i], sizeof bits);
    beyond += (bits & 0xFFFFU) != 0;
  }
  free(values);
  return (double)beyond / (double)entry->count;
}

/* Weights are bf16, and their updates are added to floats, of which bf16 holds one in 65536. */
void device_training_check_masters(void **state, const char *device) {
  const Config config =
      device_training_config(state, &(DeviceRun){"masters", device, "bf16", 2, 1, DEVICE_HALF, 0});
  (void)training_metrics(&config);
  Error error = {0};
  Safetensors tensors = SAFETENSORS_CLOSED;
  char *path = training_checkpoint(&config, DEVICE_HALF, "model.safetensors");
  expect_ok(safetensors_open(path, &tensors, &error), &error);
  assert_true(tensors.count > 0);
  for (int64_t i = 0; i < tensors.count; i++) {
    if (share_beyond_bf16(&tensors, &tensors.entries[i]) > 0.9) continue;
    fail_msg("%s has been rounded", tensors.entries[i].name);
  }
  safetensors_close(&tensors);
  free(path);
}

void device_training_check_resume(void **state, const char *device, const char *precision) {
  static const int steps[4] = {DEVICE_STEPS, DEVICE_STEPS, DEVICE_HALF, DEVICE_STEPS};
  static const char *const names[4] = {"whole", "again", "halves", "halves"};
  Config configs[4];
  for (int i = 0; i < 4; i++) {
    char name[32];
    (void)snprintf(name, sizeof name, "%s-%s", names[i], precision);
    configs[i] = device_training_config(state, &(DeviceRun){name, device, precision, 2, 1, steps[i], 0});
    (void)training_metrics(&configs[i]);
  }
  training_same_state(&configs[0], &configs[1], DEVICE_STEPS);
  training_same_state(&configs[0], &configs[3], DEVICE_STEPS);
}
