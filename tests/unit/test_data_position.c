/* What a run reads: checked before the first step, and in order across the stages of the sequence schedule.
 */
#include <stdlib.h>
#include <unistd.h>

#include "tests/support/expect.h"
#include "tests/support/temp_dir.h"
#include "tests/support/training.h"
#include "tests/support/unit.h"

/* Without shuffling, a long stage goes on at the token where the short one ended: the position is a number of
 * tokens. Counted in sequences, the 960 short ones of the first stage would lie beyond the end of the set. */
static void test_position_is_in_tokens(void **state) {
  const char *const overrides[] = {"data.shuffle=false", "train.sequence_schedule={0: 8, 15: 128}", NULL};
  const Config config = training_config(training_directory(state), "tokens", overrides);
  const Metrics metrics = training_metrics(&config);
  assert_int_equal(metrics.count, 20);
  assert_int_equal(metrics.sequence_length[19], 128);
}

/* The second stage of one run reads what a run of long sequences alone reads at the same position: with a
 * learning rate of almost nothing the losses say so. */
static void test_stages_read_the_same_tokens(void **state) {
  const char *const staged[] = {"data.shuffle=false", "optimizer.learning_rate=1e-12",
                                "train.sequence_schedule={0: 32, 10: 128}", "data.document_mask=false", NULL};
  const char *const plain[] = {"data.shuffle=false", "optimizer.learning_rate=1e-12",
                               "data.document_mask=false", NULL};
  const Config a = training_config(training_directory(state), "staged", staged);
  const Config b = training_config(training_directory(state), "plain", plain);
  const Metrics first = training_metrics(&a);
  const Metrics second = training_metrics(&b);
  for (int i = 10; i < 20; i++) assert_float_equal(first.loss[i], second.loss[i], 1e-6);
  assert_true(first.loss[0] != second.loss[0]);
}

static void check_refused(void **state, const char *name, const char *const overrides[], const char *text) {
  const Config config = training_config(training_directory(state), name, overrides);
  Error error = {0};
  expect_error(training_run(&config, &error), &error, STATUS_DATA, text);
  char *metrics = training_path(config.run.dir, "metrics.jsonl");
  assert_int_not_equal(access(metrics, R_OK), 0);
  free(metrics);
}

/* What would fail in the middle of a run fails before its first step. */
static void test_checked_at_start(void **state) {
  const char *const contexts[] = {"eval.every=20", "eval.contexts=[64, 5000000]", NULL};
  check_refused(state, "contexts", contexts, "5000000");
  const char *const stages[] = {"train.sequence_length=4194304", "train.micro_batch_size=1",
                                "train.global_batch_size=1", "train.sequence_schedule={0: 128, 18: 4194304}",
                                NULL};
  check_refused(state, "stages", stages, "4194304");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_position_is_in_tokens),
      cmocka_unit_test(test_stages_read_the_same_tokens),
      cmocka_unit_test(test_checked_at_start),
  };
  return cmocka_run_group_tests(tests, training_set_up, temp_dir_tear_down);
}
