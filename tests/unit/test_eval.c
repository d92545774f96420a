/* ringgpt eval as users run it: a checkpoint at several contexts, in both precisions and on a ring. */
#include <jansson.h>
#include <math.h>
#include <stdlib.h>

#include "tests/support/compare.h"
#include "tests/support/device_training.h"
#include "tests/support/launch.h"
#include "tests/support/temp_dir.h"
#include "tests/support/unit.h"

enum { CONTEXTS = 2 };

/* ringgpt eval of the run's last checkpoint at two contexts: their mean losses. */
static void evaluate(const Config *config, const char *precision, const char *ring, double nll[CONTEXTS]) {
  char *checkpoint = training_path(config->run.dir, "checkpoints/step_00000003");
  char *json = training_path(config->run.dir, "eval.json");
  const char *const overrides[] = {"--checkpoint",
                                   checkpoint,
                                   "--context",
                                   "64,200",
                                   "--json",
                                   json,
                                   "device=cpu",
                                   precision,
                                   ring,
                                   "model.hidden_size=32",
                                   "model.num_attention_heads=2",
                                   "model.num_key_value_heads=1",
                                   "model.intermediate_size=48",
                                   NULL};
  const Launch launch = {.command = "eval", .config = config, .overrides = overrides};
  assert_int_equal(launch_finish(launch_start(&launch)), 0);
  json_t *root = json_load_file(json, 0, NULL);
  const json_t *contexts = json_object_get(root, "contexts");
  assert_int_equal(json_array_size(contexts), CONTEXTS);
  for (size_t i = 0; i < CONTEXTS; i++) {
    nll[i] = json_number_value(json_object_get(json_array_get(contexts, i), "nll"));
    assert_true(nll[i] > 0);
  }
  json_decref(root);
  free(json);
  free(checkpoint);
}

/* Other bits than in fp32, near them, and the same text on a ring. */
static void test_precisions(void **state) {
  const Config config =
      device_training_config(state, &(DeviceRun){"evaluated", "cpu", "bf16", 1, 1, DEVICE_HALF, 0});
  double exact[CONTEXTS];
  double rounded[CONTEXTS];
  double ring[CONTEXTS];
  (void)training_metrics(&config);
  evaluate(&config, "train.precision=fp32", "parallelism.ring=1", exact);
  evaluate(&config, "train.precision=bf16", "parallelism.ring=1", rounded);
  evaluate(&config, "train.precision=bf16", "parallelism.ring=2", ring);
  for (int i = 0; i < CONTEXTS; i++) {
    assert_true(rounded[i] != exact[i]);
    check_within("evaluation in bf16", fabs(rounded[i] - exact[i]) / exact[i], 1e-3);
    check_within("evaluation in bf16 on a ring", fabs(ring[i] - rounded[i]) / rounded[i], 2e-4);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_precisions)};
  return cmocka_run_group_tests(tests, training_set_up, temp_dir_tear_down);
}
