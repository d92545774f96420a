/* bf16 on the CPU: the whole model against the float64 reference, and training: losses near those in fp32,
 * the same bits again, for any number of threads and behind a resume, masters that are floats, and the
 * warning where the CPU has no instructions for it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/device_model.h"
#include "tests/support/device_training.h"
#include "tests/support/temp_dir.h"
#include "tests/support/unit.h"

static const int grids[][2] = {{1, 1}, {2, 1}, {2, 2}, {4, 1}};

static void test_models(void **state) {
  (void)state;
  device_model_check_gpt2(TEST_CPU_BF16, grids, 4);
  device_model_check_llama(TEST_CPU_BF16, grids, 4);
}

static void test_training(void **state) {
  device_training_check_bf16(state, "cpu");
}

static void test_masters_are_floats(void **state) {
  device_training_check_masters(state, "cpu");
}

static void test_resume(void **state) {
  device_training_check_resume(state, "cpu", "bf16");
}

static void test_threads(void **state) {
  Config configs[2];
  for (int i = 0; i < 2; i++) {
    char name[32];
    (void)snprintf(name, sizeof name, "threads-%d", i + 1);
    configs[i] = device_training_config(state, &(DeviceRun){name, "cpu", "bf16", 2, 1, DEVICE_HALF, i + 1});
    (void)training_metrics(&configs[i]);
  }
  training_same_state(&configs[0], &configs[1], DEVICE_HALF);
}

/* Trains on an instruction set and returns the log; free(). */
static char *log_of(void **state, const char *isa, const char *precision) {
  char name[32];
  (void)snprintf(name, sizeof name, "%s-%s", isa, precision);
  const Config config =
      device_training_config(state, &(DeviceRun){name, "cpu", precision, 1, 1, DEVICE_HALF, 0});
  assert_int_equal(setenv("RINGGPT_ISA", isa, 1), 0);
  (void)training_metrics(&config);
  assert_int_equal(unsetenv("RINGGPT_ISA"), 0);
  char *path = training_path(config.run.dir, "log.txt");
  char *text = temp_file_read_text(path);
  free(path);
  return text;
}

static void test_warning(void **state) {
  char *slow = log_of(state, "reference", "bf16");
  char *exact = log_of(state, "reference", "fp32");
  assert_non_null(strstr(slow, "warning: train.precision: bf16: no products by avx512_bf16"));
  assert_non_null(strstr(slow, "cpu bf16, reference"));
  assert_null(strstr(exact, "warning"));
  free(slow);
  free(exact);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_models),
      cmocka_unit_test(test_training),
      cmocka_unit_test(test_masters_are_floats),
      cmocka_unit_test(test_resume),
      cmocka_unit_test(test_threads),
      cmocka_unit_test(test_warning),
  };
  return cmocka_run_group_tests(tests, training_set_up, temp_dir_tear_down);
}
