/* Exact at length: the perplexity of a whole program's path - shards, loader, model, ring - is that of the
 * float64 model at 8,192 tokens, and the same for every ring at 131,072. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/memory.h"
#include "model/params.h"
#include "tests/support/compare.h"
#include "tests/support/expect.h"
#include "tests/support/gpt_case.h"
#include "tests/support/shards.h"
#include "tests/support/temp_dir.h"
#include "tests/support/training.h"
#include "tests/support/unit.h"
#include "train/grid.h"
#include "train/host_weights.h"
#include "train/perplexity.h"

enum { VOCAB = 257, REFERENCE_LENGTH = 8192, LENGTH = 131072 };

/* What every rank evaluates. */
typedef struct Task {
  const Config *config;
  const char *shard;
  int64_t context;
  Perplexity result; /* written by world rank 0 */
} Task;

static Status evaluate(Rank *rank, void *context, Error *error) {
  Task *task = context;
  const Config *config = task->config;
  const ModelOptions options = {.config = config->model, .loss_chunk = config->train.loss_chunk};
  const PerplexityTask window = {
      .pattern = task->shard,
      .end_of_document = -1,
      .windows = {.mode = EVAL_FULL,
                  .context = task->context,
                  .stride = task->context,
                  .count = 1,
                  .tokens = task->context + 1},
  };
  Model *model = NULL;
  HostWeights weights;
  Perplexity result;
  Status status = STATUS_OK;
  TRY_GOTO(model_create(rank->device, rank->ring, &options, &model, error), done);
  TRY_GOTO(host_weights_open(rank->device, model, &weights, error), done);
  gpt_case_weights(model_table(model), weights.floats);
  TRY_GOTO(host_weights_close(&weights, true, error), done);
  TRY_GOTO(perplexity_run(config, rank, model, &window, &result, error), done);
  if (rank->world->rank == 0) task->result = result;
done:
  if (status != STATUS_OK) rank_abort(rank, error);
  model_destroy(model);
  return status;
}

/* Two layers, four query heads of 16 that share two key heads, rotary positions; weights wide enough for
 * attention to choose among its keys. */
static Config length_config(void **state, const char *ring) {
  const char *const overrides[] = {"model.initializer_range=0.15",
                                   "model.rope_theta=1000000",
                                   "model.max_position_embeddings=131072",
                                   "data.document_mask=false",
                                   ring,
                                   NULL};
  return training_config(training_directory(state), "length", overrides);
}

/* A shard of LENGTH tokens and one more, made once; *tokens are those, to be freed. */
static char *length_shard(void **state, int32_t **tokens) {
  char *path = training_path(training_directory(state), "length.bin");
  *tokens = shards_tokens(LENGTH + 1, VOCAB);
  shards_write(path, FORM_PLAIN, *tokens, LENGTH + 1, 2);
  return path;
}

static double mean_on_ring(void **state, const char *shard, int ring, int64_t context) {
  char override[32];
  Error error = {0};
  (void)snprintf(override, sizeof override, "parallelism.ring=%d", ring);
  const Config config = length_config(state, override);
  Task task = {.config = &config, .shard = shard, .context = context};
  expect_ok(grid_run(&config, NULL, evaluate, &task, &error), &error);
  assert_int_equal(task.result.total.tokens, context);
  return perplexity_mean(&task.result.total);
}

/* ---------------------------------------------------------------- against float64 */

static double mean_in_float64(const ModelConfig *config, const int32_t *tokens) {
  Error error = {0};
  TensorTable table;
  void *weights = NULL;
  expect_ok(params_build(config, &table, NULL, &error), &error);
  expect_ok(memory_alloc((size_t)table.total, sizeof(float), "weights", &weights, &error), &error);
  gpt_case_weights(&table, weights);
  Gpt64 *model = gpt_case_model(config, &table, weights);
  assert_non_null(model);
  const double mean =
      gpt64_loss(model, tokens, tokens + 1, NULL, REFERENCE_LENGTH, REFERENCE_LENGTH, NULL, false);
  gpt64_free(model);
  free(weights);
  params_free(&table, NULL);
  return mean;
}

/* The reference keeps the probabilities of 8 heads, 8,192^2 doubles each. */
static void need_memory(void) {
  Error error = {0};
  void *probe = NULL;
  const Status status = memory_alloc((size_t)5 << 30, 1, "the reference model", &probe, &error);
  free(probe);
  if (status == STATUS_OK) return;
  print_message("skipped: %s\n", error.text);
  skip();
}

static void test_float64(void **state) {
  need_memory();
  int32_t *tokens = NULL;
  char *shard = length_shard(state, &tokens);
  const Config config = length_config(state, "parallelism.ring=1");
  const double exact = mean_in_float64(&config.model, tokens);
  static const int rings[] = {1, 4};
  for (size_t i = 0; i < sizeof rings / sizeof rings[0]; i++) {
    const double mean = mean_on_ring(state, shard, rings[i], REFERENCE_LENGTH);
    (void)printf("figures: %d tokens, ring of %d: mean nll %.9f, in float64 %.9f, difference %.1e\n",
                 REFERENCE_LENGTH, rings[i], mean, exact, fabs(mean - exact));
    check_within("difference from float64", fabs(mean - exact), 1e-6);
  }
  free(shard);
  free(tokens);
}

/* ---------------------------------------------------------------- ring against ring */

static void test_rings(void **state) {
  static const int rings[] = {1, 2, 4, 8};
  enum { RINGS = sizeof rings / sizeof rings[0] };
  double least = INFINITY;
  double most = -INFINITY;
  int32_t *tokens = NULL;
  char *shard = length_shard(state, &tokens);
  for (int i = 0; i < RINGS; i++) {
    const double mean = mean_on_ring(state, shard, rings[i], LENGTH);
    least = fmin(least, mean);
    most = fmax(most, mean);
    (void)printf("figures: %d tokens, ring of %d: mean nll %.9f\n", LENGTH, rings[i], mean);
  }
  (void)printf("figures: %d tokens, rings of 1, 2, 4 and 8: at most %.1e apart\n", LENGTH, most - least);
  check_within("difference between rings", most - least, 1e-6);
  free(shard);
  free(tokens);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_float64), cmocka_unit_test(test_rings)};
  return cmocka_run_group_tests(tests, training_set_up, temp_dir_tear_down);
}
