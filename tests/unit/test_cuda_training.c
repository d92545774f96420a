/* Training on the CUDA device: the losses of the CPU, the same bits again and behind a resume, in fp32 and
 * bf16, and runs that start on one kind of device and go on on the other. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoints/safetensors.h"
#include "tests/support/compare.h"
#include "tests/support/expect.h"
#include "tests/support/temp_dir.h"
#include "tests/support/test_device.h"
#include "tests/support/training.h"
#include "tests/support/unit.h"

enum { STEPS = 6, HALF = 3 };

/* A run of configs/tiny.yaml made smaller still, for the emulator. */
typedef struct Run {
  const char *name;
  const char *device;
  const char *precision;
  int ring;
  int data;
  int steps;
} Run;

static Config config_of(void **state, const Run *run) {
  char texts[5][64];
  (void)snprintf(texts[0], sizeof texts[0], "device=%s", run->device);
  (void)snprintf(texts[1], sizeof texts[1], "train.precision=%s", run->precision);
  (void)snprintf(texts[2], sizeof texts[2], "parallelism.ring=%d", run->ring);
  (void)snprintf(texts[3], sizeof texts[3], "parallelism.data=%d", run->data);
  (void)snprintf(texts[4], sizeof texts[4], "train.steps=%d", run->steps);
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
                                   NULL};
  return training_config(training_directory(state), run->name, overrides);
}

static Metrics train(void **state, const Run *run) {
  const Config config = config_of(state, run);
  return training_metrics(&config);
}

/* The largest difference of two runs' losses, relative to the loss. */
static double difference(const Metrics *a, const Metrics *b) {
  double largest = 0;
  assert_int_equal(a->count, STEPS);
  assert_int_equal(b->count, STEPS);
  for (int i = 0; i < STEPS; i++) largest = fmax(largest, fabs(a->loss[i] - b->loss[i]) / a->loss[i]);
  return largest;
}

static Metrics on_cpu(void **state) {
  return train(state, &(Run){"cpu", "cpu", "fp32", 1, 1, STEPS});
}

static void test_losses_of_the_cpu(void **state) {
  test_device_need_cuda();
  const Metrics cpu = on_cpu(state);
  const Metrics one = train(state, &(Run){"one", "cuda", "fp32", 1, 1, STEPS});
  const Metrics grid = train(state, &(Run){"grid", "cuda", "fp32", 2, 2, STEPS});
  check_within("CUDA against the CPU", difference(&cpu, &one), 2e-6);
  check_within("CUDA, ring 2 x data 2, against the CPU", difference(&cpu, &grid), 2e-6);
  assert_true(cpu.loss[STEPS - 1] < cpu.loss[0]);
}

static void test_bf16(void **state) {
  test_device_need_cuda();
  const Metrics cpu = on_cpu(state);
  const Metrics rounded = train(state, &(Run){"bf16", "cuda", "bf16", 2, 1, STEPS});
  check_within("bf16 against fp32", difference(&cpu, &rounded), 5e-3);
  assert_true(difference(&cpu, &rounded) > 1e-7);
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
static void test_masters_are_floats(void **state) {
  test_device_need_cuda();
  const Config config = config_of(state, &(Run){"masters", "cuda", "bf16", 2, 1, HALF});
  (void)training_metrics(&config);
  Error error = {0};
  Safetensors tensors = SAFETENSORS_CLOSED;
  char *path = training_checkpoint(&config, HALF, "model.safetensors");
  expect_ok(safetensors_open(path, &tensors, &error), &error);
  assert_true(tensors.count > 0);
  for (int64_t i = 0; i < tensors.count; i++) {
    if (share_beyond_bf16(&tensors, &tensors.entries[i]) > 0.9) continue;
    fail_msg("%s has been rounded", tensors.entries[i].name);
  }
  safetensors_close(&tensors);
  free(path);
}

/* Two halves give the bits of the whole, and the whole gives them again. */
static void check_resume(void **state, const char *precision, const char *const names[3]) {
  const Run whole = {names[0], "cuda", precision, 2, 1, STEPS};
  const Run again = {names[1], "cuda", precision, 2, 1, STEPS};
  const Run half = {names[2], "cuda", precision, 2, 1, HALF};
  const Run rest = {names[2], "cuda", precision, 2, 1, STEPS};
  const Config configs[4] = {config_of(state, &whole), config_of(state, &again), config_of(state, &half),
                             config_of(state, &rest)};
  for (int i = 0; i < 4; i++) (void)training_metrics(&configs[i]);
  training_same_state(&configs[0], &configs[1], STEPS);
  training_same_state(&configs[0], &configs[3], STEPS);
}

static void test_resume(void **state) {
  test_device_need_cuda();
  const char *const names[3] = {"whole", "again", "halves"};
  check_resume(state, "fp32", names);
}

static void test_resume_bf16(void **state) {
  test_device_need_cuda();
  const char *const names[3] = {"whole-bf16", "again-bf16", "halves-bf16"};
  check_resume(state, "bf16", names);
}

/* From one kind of device to the other, and to another grid. */
static void test_changing_devices(void **state) {
  test_device_need_cuda();
  const Metrics cpu = on_cpu(state);
  (void)train(state, &(Run){"cpu-cuda", "cpu", "fp32", 1, 2, HALF});
  const Metrics up = train(state, &(Run){"cpu-cuda", "cuda", "fp32", 2, 1, STEPS});
  (void)train(state, &(Run){"cuda-cpu", "cuda", "fp32", 2, 1, HALF});
  const Metrics down = train(state, &(Run){"cuda-cpu", "cpu", "fp32", 1, 1, STEPS});
  check_within("from the CPU to CUDA", difference(&cpu, &up), 2e-6);
  check_within("from CUDA to the CPU", difference(&cpu, &down), 2e-6);
}

/* Ends the test unless the log of a run on `device: auto` has the words. */
static void check_auto(void **state, const char *name, const char *words) {
  const Run run = {name, "auto", "fp32", 2, 1, HALF};
  const Config config = config_of(state, &run);
  (void)training_metrics(&config);
  char *path = training_path(config.run.dir, "log.txt");
  char *text = temp_file_read_text(path);
  if (strstr(text, words) == NULL) fail_msg("not in the log: %s\n%s", words, text);
  free(text);
  free(path);
}

/* `auto` takes the device where there is one; without, it says why and computes on the CPU. */
static void test_auto(void **state) {
  test_device_need_cuda();
  check_auto(state, "auto-cuda", "over local, cuda 0");
  assert_int_equal(setenv("RINGGPT_CUDA", "/absent/ringgpt-cuda.so", 1), 0);
  check_auto(state, "auto-absent", "no CUDA device: /absent/ringgpt-cuda.so is not there");
  check_auto(state, "auto-cpu", "over local, cpu");
}

/* The CPU moves nothing by NCCL. */
static void test_nccl_needs_cuda(void **state) {
  Error error = {0};
  const Run run = {"no-nccl", "cpu", "fp32", 2, 1, STEPS};
  Config config = config_of(state, &run);
  config.parallelism.transport = TRANSPORT_NCCL;
  assert_int_equal(training_run(&config, &error), STATUS_CONFIG);
  assert_non_null(strstr(error.text, "parallelism.transport: nccl is for CUDA devices, not for the CPU"));
}

/* Ranks with a GPU each, over NCCL (here a fake one): the bits of the local transport. */
static void test_nccl(void **state) {
  test_device_need_cuda();
  const char *object = getenv("RINGGPT_TEST_NCCL");
  if (object == NULL) skip();
  assert_int_equal(setenv("RINGGPT_NCCL", object, 1), 0);
  assert_int_equal(setenv("EMULATED_DEVICES", "4", 1), 0);
  const Run run = {"nccl", "cuda", "bf16", 2, 2, STEPS};
  const Run local = {"nccl-local", "cuda", "bf16", 2, 2, STEPS};
  Config config = config_of(state, &run);
  const Config expected = config_of(state, &local);
  config.parallelism.transport = TRANSPORT_NCCL;
  (void)training_metrics(&config);
  (void)training_metrics(&expected);
  assert_int_equal(unsetenv("EMULATED_DEVICES"), 0);
  training_same_state(&expected, &config, STEPS);
}

static void test_bf16_needs_cuda(void **state) {
  Error error = {0};
  const Run run = {"refused", "cpu", "bf16", 1, 1, STEPS};
  const Config config = config_of(state, &run);
  assert_int_equal(training_run(&config, &error), STATUS_CONFIG);
  assert_string_equal(error.text, "train.precision: bf16: the CPU computes in fp32 alone; set it to fp32");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_losses_of_the_cpu),
      cmocka_unit_test(test_bf16),
      cmocka_unit_test(test_masters_are_floats),
      cmocka_unit_test(test_resume),
      cmocka_unit_test(test_resume_bf16),
      cmocka_unit_test(test_changing_devices),
      cmocka_unit_test(test_bf16_needs_cuda),
      cmocka_unit_test(test_nccl_needs_cuda),
      cmocka_unit_test(test_nccl),
      cmocka_unit_test(test_auto),
  };
  return cmocka_run_group_tests(tests, training_set_up, temp_dir_tear_down);
}
