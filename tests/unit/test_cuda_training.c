/* Training on the CUDA device: the losses of the CPU, the same bits again and behind a resume, in fp32 and
 * bf16, and runs that start on one kind of device and go on on the other. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/support/compare.h"
#include "tests/support/device_training.h"
#include "tests/support/expect.h"
#include "tests/support/temp_dir.h"
#include "tests/support/test_device.h"
#include "tests/support/unit.h"
#include "train/memory_plan.h"

static void test_losses_of_the_cpu(void **state) {
  test_device_need_cuda();
  const Metrics cpu = device_training_on_cpu(state);
  const Metrics one = device_training_run(state, &(DeviceRun){"one", "cuda", "fp32", 1, 1, DEVICE_STEPS, 0});
  const Metrics grid =
      device_training_run(state, &(DeviceRun){"grid", "cuda", "fp32", 2, 2, DEVICE_STEPS, 0});
  check_within("CUDA against the CPU", device_training_difference(&cpu, &one), 2e-6);
  check_within("CUDA, ring 2 x data 2, against the CPU", device_training_difference(&cpu, &grid), 2e-6);
  assert_true(cpu.loss[DEVICE_STEPS - 1] < cpu.loss[0]);
}

static void test_bf16(void **state) {
  test_device_need_cuda();
  device_training_check_bf16(state, "cuda");
}

static void test_masters_are_floats(void **state) {
  test_device_need_cuda();
  device_training_check_masters(state, "cuda");
}

static void test_resume(void **state) {
  test_device_need_cuda();
  device_training_check_resume(state, "cuda", "fp32");
  device_training_check_resume(state, "cuda", "bf16");
}

/* From one kind of device to the other, and to another grid. */
static void check_change(void **state, const char *precision, double bound) {
  const Metrics cpu = device_training_on_cpu(state);
  const char *const devices[] = {"cpu", "cuda"};
  for (int to = 0; to < 2; to++) {
    char name[32];
    (void)snprintf(name, sizeof name, "to-%s-%s", devices[to], precision);
    (void)device_training_run(state, &(DeviceRun){name, devices[1 - to], precision, 1, 2, DEVICE_HALF, 0});
    const Metrics changed =
        device_training_run(state, &(DeviceRun){name, devices[to], precision, 2, 1, DEVICE_STEPS, 0});
    check_within(name, device_training_difference(&cpu, &changed), bound);
  }
}

static void test_changing_devices(void **state) {
  test_device_need_cuda();
  check_change(state, "fp32", 2e-6);
  check_change(state, "bf16", 5e-3);
}

/* Ends the test unless the log of a run on `device: auto` has the words. */
static void check_auto(void **state, const char *name, const char *words) {
  const DeviceRun run = {name, "auto", "fp32", 2, 1, DEVICE_HALF, 0};
  const Config config = device_training_config(state, &run);
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
  const DeviceRun run = {"no-nccl", "cpu", "fp32", 2, 1, DEVICE_STEPS, 0};
  Config config = device_training_config(state, &run);
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
  const DeviceRun run = {"nccl", "cuda", "bf16", 2, 2, DEVICE_STEPS, 0};
  const DeviceRun local = {"nccl-local", "cuda", "bf16", 2, 2, DEVICE_STEPS, 0};
  Config config = device_training_config(state, &run);
  const Config expected = device_training_config(state, &local);
  config.parallelism.transport = TRANSPORT_NCCL;
  (void)training_metrics(&config);
  (void)training_metrics(&expected);
  assert_int_equal(unsetenv("EMULATED_DEVICES"), 0);
  training_same_state(&expected, &config, DEVICE_STEPS);
}

/* What a device takes for itself when it is made. */
static size_t made_device_bytes(void) {
  const size_t all = (size_t)1 << 30;
  Device *device = NULL;
  Error error = {0};
  assert_int_equal(setenv("EMULATED_MEMORY", "1073741824", 1), 0);
  expect_ok(test_device_create(TEST_CUDA_F32, 1, &device, &error), &error);
  const size_t left = device_left(device);
  device_destroy(device);
  assert_in_range(left, 1, all);
  return all - left;
}

/* Trains on an emulated GPU of `bytes`. */
static Status train_within(const Config *config, size_t bytes, Error *error) {
  char text[32];
  (void)snprintf(text, sizeof text, "%zu", bytes);
  assert_int_equal(setenv("EMULATED_MEMORY", text, 1), 0);
  const Status status = training_run(config, error);
  assert_int_equal(unsetenv("EMULATED_MEMORY"), 0);
  return status;
}

/* A GPU with the planned memory is enough for the steps of a run and the evaluation behind the last one, with
 * no more than a few small blocks beside it; one with less is refused before the first step. */
static void test_memory_for_all_that_comes(void **state) {
  test_device_need_emulator();
  enum { SMALL_BLOCKS = 4096 };
  Config config = device_training_config(state, &(DeviceRun){"small", "cuda", "fp32", 1, 1, DEVICE_HALF, 0});
  config.eval.every = DEVICE_HALF;
  config.eval.contexts = (IntegerList){.count = 2, .values = {40, 3000}};
  const MemoryRun run = {.purpose = MEMORY_TRAINING,
                         .cuda = true,
                         .ranks_here = 1,
                         .ranks_a_gpu = 1,
                         .threads = 1,
                         .one_process = true};
  MemoryPlan plan;
  Error error = {0};
  expect_ok(memory_plan(&config, &run, &plan, &error), &error);
  const size_t own = made_device_bytes();
  expect_error(train_within(&config, own + plan.gpu - 1, &error), &error, STATUS_SYSTEM,
               "no memory for evaluation at 3000 tokens: a GPU needs ");
  assert_int_equal(access(config.run.dir, F_OK), -1);
  expect_ok(train_within(&config, own + plan.gpu + SMALL_BLOCKS, &error), &error);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_losses_of_the_cpu),
      cmocka_unit_test(test_bf16),
      cmocka_unit_test(test_masters_are_floats),
      cmocka_unit_test(test_resume),
      cmocka_unit_test(test_changing_devices),
      cmocka_unit_test(test_nccl_needs_cuda),
      cmocka_unit_test(test_memory_for_all_that_comes),
      cmocka_unit_test(test_nccl),
      cmocka_unit_test(test_auto),
  };
  return cmocka_run_group_tests(tests, training_set_up, temp_dir_tear_down);
}
