/* Training as a whole: the same losses on every grid, the same bits on the same grid, the schedule of
 * sequence lengths, evaluation, and steps without a finite loss. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoints/checkpoint.h"
#include "model/params.h"
#include "tests/support/compare.h"
#include "tests/support/expect.h"
#include "tests/support/grids.h"
#include "tests/support/poison.h"
#include "tests/support/temp_dir.h"
#include "tests/support/training.h"
#include "tests/support/unit.h"
#include "train/batches.h"
#include "train/grid.h"
#include "train/perplexity.h"

/* ---------------------------------------------------------------- grids */

/* A covering choice: every ring and every number of rings once, with and without documents, divided evenly
 * and not; tests/long has the full product. */
static void test_grids(void **state) {
  const GridCase cases[] = {{.ring = 2, .data = 1}, {.ring = 3, .data = 1}, {.ring = 4, .data = 1},
                            {.ring = 8, .data = 1}, {.ring = 1, .data = 2}, {.ring = 4, .data = 2}};
  const char *const documents[] = {NULL};
  const char *const odd[] = {"data.document_mask=false", "train.sequence_length=101", NULL};
  grids_compare(training_directory(state), "documents", documents, cases, 6);
  const char *const longer[] = {"train.sequence_length=1000", "train.steps=4", NULL};
  grids_compare(training_directory(state), "odd", odd, cases, 3);
  grids_compare(training_directory(state), "longer", longer, cases, 4);
}

/* GPT-2's kind of model, on one grid more. */
static void test_grids_gpt2(void **state) {
  const GridCase cases[] = {{.ring = 3, .data = 2}};
  grids_compare(training_directory(state), "gpt2", grids_gpt2_overrides(), cases, 1);
}

/* How a step is cut into micro-batches must not matter. */
static void test_accumulation(void **state) {
  const char *const whole[] = {"train.micro_batch_size=4", NULL};
  const char *const cut[] = {"train.micro_batch_size=1", NULL};
  const Config a = training_config(training_directory(state), "whole", whole);
  const Config b = training_config(training_directory(state), "cut", cut);
  const Metrics first = training_metrics(&a);
  const Metrics second = training_metrics(&b);
  grids_check_metrics("micro-batches of 1 against 4", &first, &second);
}

/* ---------------------------------------------------------------- bits */

static void test_repeatable(void **state) {
  const char *const overrides[] = {"parallelism.ring=4", "train.recompute=true", "eval.every=10",
                                   "eval.contexts=[64, 200]", NULL};
  const Config a = training_config(training_directory(state), "first", overrides);
  const Config b = training_config(training_directory(state), "second", overrides);
  const Metrics first = training_metrics(&a);
  const Metrics second = training_metrics(&b);
  assert_int_equal(first.count, 20);
  assert_memory_equal(first.loss, second.loss, sizeof first.loss);
  assert_memory_equal(first.grad_norm, second.grad_norm, sizeof first.grad_norm);
  training_same_state(&a, &b, 20);
  assert_true(first.loss[19] < first.loss[0] - 1.0);
}

/* ---------------------------------------------------------------- the schedule of lengths */

static void test_sequence_schedule(void **state) {
  const char *const overrides[] = {"train.sequence_schedule={0: 32, 6: 64, 12: 128}", "parallelism.ring=2",
                                   NULL};
  const char *const other[] = {"train.sequence_schedule={0: 32, 6: 64, 12: 128}", "parallelism.ring=4", NULL};
  const Config a = training_config(training_directory(state), "stages", overrides);
  const Config b = training_config(training_directory(state), "stages4", other);
  const Metrics first = training_metrics(&a);
  const Metrics second = training_metrics(&b);
  for (int i = 0; i < 20; i++) assert_int_equal(first.sequence_length[i], i < 6 ? 32 : i < 12 ? 64 : 128);
  grids_check_metrics("stages on two grids", &first, &second);
}

/* ---------------------------------------------------------------- evaluation */

typedef struct EvalTask {
  const Config *config;
  int64_t context;
  Perplexity result; /* written by world rank 0 */
} EvalTask;

static Status evaluate_rank(Rank *rank, void *context, Error *error) {
  EvalTask *test = context;
  const ModelOptions options = {.config = test->config->model, .loss_chunk = 64};
  PerplexityTask task = {.pattern = test->config->data.val};
  Model *model = NULL;
  Perplexity result;
  TRY(batches_end_of_document(test->config, task.pattern, &task.end_of_document, error));
  TRY(perplexity_plan(test->config, task.pattern, test->context, &task.windows, error));
  TRY(model_create(rank->device, rank->ring, &options, &model, error));
  params_init(model_table(model), 3, model_weights(model));
  const Status status = perplexity_run(test->config, rank, model, &task, &result, error);
  if (status != STATUS_OK) comm_abort(rank->world, error);
  if (status == STATUS_OK && rank->world->rank == 0) test->result = result;
  model_destroy(model);
  return status;
}

static Perplexity evaluate(const char *directory, const char *ring, const char *data, int64_t context,
                           int64_t tokens) {
  const char *const overrides[] = {ring, data, NULL};
  Config config = training_config(directory, "eval", overrides);
  EvalTask task = {.config = &config, .context = context};
  config.eval.tokens = tokens;
  Error error = {0};
  expect_ok(grid_run(&config, NULL, evaluate_rank, &task, &error), &error);
  return task.result;
}

/* A position's bucket must not depend on the rank that scores it. */
static void check_buckets(const char *ring, const Perplexity *got, const Perplexity *expected) {
  for (int i = 0; i < PERPLEXITY_BUCKETS; i++) {
    const PerplexityBucket *a = &got->buckets[i];
    const PerplexityBucket *b = &expected->buckets[i];
    char name[96];
    assert_int_equal(a->tokens, b->tokens);
    if (b->tokens == 0) continue;
    (void)snprintf(name, sizeof name, "%s: nll of bucket %d", ring, i);
    check_within(name, fabs(a->nll - b->nll) / b->nll, 1e-6);
    (void)snprintf(name, sizeof name, "%s: squares of bucket %d", ring, i);
    check_within(name, fabs(a->squares - b->squares) / b->squares, 1e-6);
  }
}

static void test_perplexity(void **state) {
  const Perplexity one =
      evaluate(training_directory(state), "parallelism.ring=1", "parallelism.data=1", 300, 1650);
  assert_int_equal(one.windows.count, 5);
  assert_int_equal(one.total.tokens, 1500);
  PerplexityBucket sum = {0};
  for (int i = 0; i < PERPLEXITY_BUCKETS; i++) {
    int64_t first = 0;
    int64_t last = 0;
    perplexity_range(i, &first, &last);
    const int64_t in_window = first >= 300 ? 0 : (last < 300 ? last : 299) - first + 1;
    assert_int_equal(one.buckets[i].tokens, 5 * in_window);
    sum.tokens += one.buckets[i].tokens;
    sum.nll += one.buckets[i].nll;
  }
  check_within("sum of the buckets", fabs(sum.nll - one.total.nll) / one.total.nll, 1e-12);
  const char *const rings[] = {"parallelism.ring=2", "parallelism.ring=3", "parallelism.ring=4"};
  for (int i = 0; i < 3; i++) {
    const Perplexity other = evaluate(training_directory(state), rings[i],
                                      i == 1 ? "parallelism.data=2" : "parallelism.data=1", 300, 1650);
    assert_int_equal(other.total.tokens, one.total.tokens);
    check_within(rings[i], fabs(perplexity_mean(&other.total) - perplexity_mean(&one.total)), 1e-6);
    check_buckets(rings[i], &other, &one);
  }
}

/* The standard error of the mean of n values: the root of the sum of their squared distances from the mean
 * over n (n - 1). Of four and of two values, and of one, where there is none. */
static void test_standard_error(void **state) {
  (void)state;
  const double values[] = {1.0, 2.0, 4.0, 9.0};
  PerplexityBucket bucket = {0};
  for (int i = 0; i < 4; i++) {
    bucket.tokens += 1;
    bucket.nll += values[i];
    bucket.squares += values[i] * values[i];
    if (bucket.tokens == 1) assert_true(isnan(perplexity_standard_error(&bucket)));
    if (bucket.tokens == 2) check_within("of 1, 2", fabs(perplexity_standard_error(&bucket) - 0.5), 1e-15);
  }
  /* The mean is 4, the squared distances are 9 + 4 + 0 + 25 = 38. */
  check_within("mean", fabs(perplexity_mean(&bucket) - 4.0), 0.0);
  check_within("of four", fabs(perplexity_standard_error(&bucket) - sqrt(38.0 / 12.0)), 1e-15);
}

/* A context longer than the held-out text is an error that says so, not a shorter context. */
static void test_perplexity_too_long(void **state) {
  const Config config = training_config(training_directory(state), "eval", NULL);
  EvalTask task = {.config = &config, .context = 1 << 20};
  Error error = {0};
  assert_int_equal(grid_run(&config, NULL, evaluate_rank, &task, &error), STATUS_DATA);
}

/* ---------------------------------------------------------------- steps that are not finite */

/* Spoilt steps change nothing, are counted, and training goes on behind them. */
static void test_skipped_steps(void **state) {
  char *shard = NULL;
  const Config config = poison_config(training_directory(state), "spoilt.bin", &shard);
  poison_shard(shard, 6, 12); /* steps 4, 5 and 6 of two samples each */
  const Metrics metrics = training_metrics(&config);
  assert_int_equal(metrics.count, 24);
  for (int i = 0; i < 24; i++) {
    const bool spoilt = i >= 3 && i < 6;
    assert_int_equal(metrics.skipped[i], spoilt);
    assert_int_equal(isnan(metrics.loss[i]), spoilt);
  }
  char *before = training_checkpoint(&config, 3, "model.safetensors");
  char *after = training_checkpoint(&config, 6, "model.safetensors");
  char *later = training_checkpoint(&config, 7, "model.safetensors");
  char command[2048];
  (void)snprintf(command, sizeof command, "cmp -s '%s' '%s' && ! cmp -s '%s' '%s'", before, after, after,
                 later);
  assert_int_equal(system(command), 0);
  CheckpointManifest manifest;
  Error error = {0};
  char *directory = training_checkpoint(&config, 24, "");
  assert_int_equal(checkpoint_verify(directory, &manifest, &error), STATUS_OK);
  assert_int_equal(manifest.skipped_steps, 3);
  assert_int_equal(manifest.skipped_in_a_row, 0);
  free(directory);
  free(later);
  free(after);
  free(before);
  free(shard);
}

/* Ten spoilt steps in a row end the run with a word on what to do. */
static void test_ten_skipped_steps(void **state) {
  char *shard = NULL;
  const Config config = poison_config(training_directory(state), "ruined.bin", &shard);
  poison_shard(shard, 4, 48);
  Error error = {0};
  assert_int_equal(training_run(&config, &error), STATUS_CONFIG);
  assert_non_null(strstr(error.text, "10 steps in a row"));
  const Metrics metrics = training_read_metrics(&config);
  assert_int_equal(metrics.count, 12);
  for (int i = 0; i < 12; i++) assert_int_equal(metrics.skipped[i], i >= 2);
  free(shard);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_grids),
      cmocka_unit_test(test_grids_gpt2),
      cmocka_unit_test(test_accumulation),
      cmocka_unit_test(test_repeatable),
      cmocka_unit_test(test_sequence_schedule),
      cmocka_unit_test(test_perplexity),
      cmocka_unit_test(test_standard_error),
      cmocka_unit_test(test_perplexity_too_long),
      cmocka_unit_test(test_skipped_steps),
      cmocka_unit_test(test_ten_skipped_steps),
  };
  return cmocka_run_group_tests(tests, training_set_up, temp_dir_tear_down);
}
