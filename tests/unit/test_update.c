/* What a training step does to the weights: runs of several steps against the same training in float64
 * (tests/support/training64.h), with warm-up and schedule, clipping in some steps, weight decay, and steps
 * that are skipped. Every step's loss, learning rate, norm and weights are compared. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "checkpoints/checkpoint.h"
#include "checkpoints/directory.h"
#include "kernels/comm/comm.h"
#include "model/params.h"
#include "tests/support/compare.h"
#include "tests/support/expect.h"
#include "tests/support/gpt_case.h"
#include "tests/support/grids.h"
#include "tests/support/poison.h"
#include "tests/support/temp_dir.h"
#include "tests/support/training.h"
#include "tests/support/training64.h"
#include "tests/support/unit.h"

enum { STEPS = 10 };

/* A high rate, so that the rounding of the weights is small beside the way they go; an epsilon not far below
 * the gradients, so that its place shows and the smallest gradients do not count by their sign alone; a
 * clipping that the first steps need and the last do not. */
static void settle(Config *config) {
  config->run.seed = 3;
  config->train.steps = STEPS;
  config->optimizer.learning_rate = 1e-2;
  config->optimizer.eps = 1e-4;
  config->optimizer.weight_decay = 0.1;
  config->optimizer.clip_grad = 1.5;
  config->scheduler.warmup_steps = 3;
  config->checkpoint.every = 1;
  config->checkpoint.keep = 2 * STEPS;
}

/* ---------------------------------------------------------------- weights */

static float *new_weights(const TensorTable *table) {
  float *weights = calloc((size_t)table->total, sizeof *weights);
  assert_non_null(weights);
  return weights;
}

/* The weights (table->total) that the run's checkpoint of `step` holds, a new block. */
static float *saved_weights(const Config *config, const TensorTable *table, int64_t step) {
  float *weights = new_weights(table);
  char *path = training_checkpoint(config, step, "");
  Comm *alone = NULL;
  Error error = {0};
  expect_ok(comm_local_create(1, &alone, &error), &error);
  expect_ok(checkpoint_load_weights(path, table, weights, alone, &error), &error);
  comm_destroy(alone);
  free(path);
  return weights;
}

/* How far the tensor's way from `start` to `got` is off the way to `expected`, relative to that way. What is
 * not a number at the start must stay so and has no way. */
static double way_error(const Gpt64Tensor *start, const Gpt64Tensor *got, const Gpt64Tensor *expected) {
  double difference = 0;
  double way = 0;
  for (int64_t i = 0; i < start->rows * start->cols; i++) {
    if (isnan(start->value[i]) && isnan(got->value[i])) continue;
    const double d = got->value[i] - expected->value[i];
    const double w = expected->value[i] - start->value[i];
    difference += d * d;
    way += w * w;
  }
  return sqrt(difference / way);
}

/* ---------------------------------------------------------------- a run against float64 */

typedef struct Comparison {
  const Config *config;
  const TensorTable *table;
  const Gpt64 *start;
  const Metrics *metrics;
  const Training64 *expected; /* after the step to be compared */
} Comparison;

static void check_number(const Comparison *c, const char *what, double got, double expected, double bound) {
  char name[128];
  (void)snprintf(name, sizeof name, "ring %lld: %s of step %lld", (long long)c->config->parallelism.ring,
                 what, (long long)c->expected->step);
  check_within(name, fabs(got - expected) / expected, bound);
}

static void check_record(const Comparison *c) {
  const int64_t i = c->expected->step - 1;
  check_number(c, "learning rate", c->metrics->learning_rate[i], c->expected->learning_rate, 1e-14);
  assert_int_equal(c->metrics->skipped[i], c->expected->skipped);
  if (c->expected->skipped) return;
  check_number(c, "loss", c->metrics->loss[i], c->expected->loss, 1e-7);
  check_number(c, "norm", c->metrics->grad_norm[i], c->expected->grad_norm, 1e-6);
}

static void check_weights(const Comparison *c) {
  float *weights = saved_weights(c->config, c->table, c->expected->step);
  Gpt64 *got = gpt_case_model(&c->config->model, c->table, weights);
  assert_non_null(got);
  for (int64_t t = 0; t < got->count; t++) {
    const double error = way_error(&c->start->tensors[t], &got->tensors[t], &c->expected->model->tensors[t]);
    char name[160];
    (void)snprintf(name, sizeof name, "%s after step %lld", got->tensors[t].name,
                   (long long)c->expected->step);
    check_within(name, error, 4e-5);
  }
  gpt64_free(got);
  free(weights);
}

/* Which steps of a compared run were clipped and skipped. */
typedef struct Seen {
  int64_t clipped;
  int64_t skipped;
} Seen;

/* Compares every step of a run that began from `weights` (table->total). */
static Seen compare(const Config *config, const TensorTable *table, const float *weights) {
  const Metrics metrics = training_read_metrics(config);
  Training64 expected;
  Gpt64 *start = gpt_case_model(&config->model, table, weights);
  assert_non_null(start);
  assert_int_equal(metrics.count, config->train.steps);
  training64_begin(config, table, weights, &expected);
  const Comparison comparison = {
      .config = config, .table = table, .start = start, .metrics = &metrics, .expected = &expected};
  Seen seen = {0};
  for (int64_t i = 0; i < config->train.steps; i++) {
    training64_step(&expected);
    check_record(&comparison);
    if (expected.updates > 0) check_weights(&comparison);
    seen.clipped += expected.clipped;
    seen.skipped += expected.skipped;
  }
  training64_end(&expected);
  gpt64_free(start);
  return seen;
}

/* ---------------------------------------------------------------- steps with an update */

/* Trains from params_init's weights. */
static void check_training(const Config *config) {
  TensorTable table;
  Error error = {0};
  expect_ok(training_run(config, &error), &error);
  expect_ok(params_build(&config->model, &table, NULL, &error), &error);
  float *weights = new_weights(&table);
  params_init(&table, (uint64_t)config->run.seed, weights);
  const Seen seen = compare(config, &table, weights);
  assert_in_range(seen.clipped, 2, STEPS - 2);
  assert_int_equal(seen.skipped, 0);
  free(weights);
  params_free(&table, NULL);
}

static void test_llama(void **state) {
  for (int64_t ring = 1; ring <= 2; ring++) {
    Config config = training_config(training_directory(state), ring == 1 ? "llama-1" : "llama-2", NULL);
    settle(&config);
    config.parallelism.ring = ring;
    check_training(&config);
  }
}

/* Vectors of every kind, weights that lie transposed in checkpoints, a tied head; the other schedule; more
 * than one ring. */
static void test_gpt2(void **state) {
  Config config = training_config(training_directory(state), "gpt2", grids_gpt2_overrides());
  settle(&config);
  config.scheduler.name = SCHEDULER_LINEAR;
  config.parallelism.data = 2;
  check_training(&config);
}

/* ---------------------------------------------------------------- steps without one */

/* Removes the run's checkpoints behind `step`, so that the next start goes on from there. */
static void go_back(const Config *config, int64_t step) {
  for (int64_t later = step + 1; later <= config->train.steps; later++) {
    char *path = training_checkpoint(config, later, "");
    Error error = {0};
    expect_ok(directory_remove(path, &error), &error);
    free(path);
  }
}

/* Bias correction counts updates, not steps: behind skipped steps, and behind a start from a checkpoint that
 * knows of them. */
static void test_skipped_steps(void **state) {
  enum { FIRST = 3, SKIPPED = 3, RESUMED_AFTER = 7 };
  char *shard = NULL;
  Config config = poison_config(training_directory(state), "spoilt.bin", &shard);
  settle(&config);
  TensorTable table;
  Error error = {0};
  expect_ok(params_build(&config.model, &table, NULL, &error), &error);
  poison_shard(shard, FIRST * POISON_BATCH, (FIRST + SKIPPED) * POISON_BATCH);
  float *weights = saved_weights(&config, &table, 0);
  for (int start = 0; start < 2; start++) {
    expect_ok(training_run(&config, &error), &error);
    const Seen seen = compare(&config, &table, weights);
    assert_int_equal(seen.skipped, SKIPPED);
    go_back(&config, RESUMED_AFTER);
  }
  free(weights);
  params_free(&table, NULL);
  free(shard);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_llama),
      cmocka_unit_test(test_gpt2),
      cmocka_unit_test(test_skipped_steps),
  };
  return cmocka_run_group_tests(tests, training_set_up, temp_dir_tear_down);
}
