/* Dropout in the model and in training: the whole model against float64 with masks of the reference's own, on
 * grids, cut into micro-batches and with layers computed again; the masks of a run, and that they follow the
 * place in the data through grids, stages and resumes; evaluation, which has none. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/loader.h"
#include "model/params.h"
#include "tests/support/compare.h"
#include "tests/support/expect.h"
#include "tests/support/gpt_case.h"
#include "tests/support/grids.h"
#include "tests/support/temp_dir.h"
#include "tests/support/training.h"
#include "tests/support/unit.h"

/* ---------------------------------------------------------------- the model */

static void test_gpt2(void **state) {
  (void)state;
  GptCase test = {.config = gpt2_config(2, 2, 16),
                  .sequences = 4,
                  .sequence_length = 45,
                  .loss_chunk = 64,
                  .threads = 1,
                  .dropout = 0.1,
                  .seed = 5,
                  .first_draw = 123};
  const int grids[][2] = {{1, 1}, {2, 1}, {4, 2}, {1, 2}};
  gpt_case_check("GPT-2", &test, grids, 4);
  test.micro_batch = 1;
  gpt_case_check("GPT-2, a sequence at once", &test, grids, 3);
}

/* 24 columns, which fill no vector of AVX-512; draws and a seed beyond 32 bits. */
static void test_llama(void **state) {
  (void)state;
  GptCase test = {.config = llama_config(3, 3, 1, 8, false),
                  .sequences = 4,
                  .sequence_length = 38,
                  .loss_chunk = 1000,
                  .document_mask = true,
                  .recompute = true,
                  .ignore_every = 7,
                  .threads = 2,
                  .dropout = 0.3,
                  .seed = 0x123456789abcU,
                  .first_draw = (int64_t)1 << 33};
  const int grids[][2] = {{1, 1}, {4, 1}, {2, 2}};
  gpt_case_check("Llama, computed again", &test, grids, 3);
  test.recompute = false;
  test.micro_batch = 2;
  gpt_case_check("Llama, two sequences at once", &test, grids, 3);
  test.rank_chunks = 4;
  gpt_case_check("Llama, chunks that lie anywhere", &test, grids + 1, 2);
}

/* Computing layers again must give the bits that keeping them gives. */
static void test_recompute(void **state) {
  (void)state;
  GptCase test = {.config = gpt2_config(3, 2, 16),
                  .sequences = 2,
                  .sequence_length = 50,
                  .loss_chunk = 64,
                  .threads = 1,
                  .dropout = 0.2,
                  .seed = 9};
  Error error = {0};
  GptResult kept;
  GptResult recomputed;
  expect_ok(gpt_case_run(&test, 2, 1, &kept, &error), &error);
  test.recompute = true;
  expect_ok(gpt_case_run(&test, 2, 1, &recomputed, &error), &error);
  assert_memory_equal(kept.gradient, recomputed.gradient, (size_t)kept.table.total * sizeof(double));
  gpt_result_free(&kept);
  gpt_result_free(&recomputed);
}

/* ---------------------------------------------------------------- training */

static void test_grids(void **state) {
  const GridCase cases[] = {{.ring = 2, .data = 1}, {.ring = 3, .data = 1}, {.ring = 4, .data = 2}};
  const char *const overrides[] = {"train.dropout=0.1", NULL};
  const char *const odd[] = {"train.dropout=0.1", "train.sequence_length=101", "train.micro_batch_size=1",
                             "train.recompute=true", NULL};
  grids_compare(training_directory(state), "grids", overrides, cases, 3);
  grids_compare(training_directory(state), "odd", odd, cases, 2);
}

/* One way to cut a step into micro-batches against another. */
static void test_accumulation(void **state) {
  const char *const whole[] = {"train.dropout=0.1", "train.micro_batch_size=4", NULL};
  const char *const cut[] = {"train.dropout=0.1", "train.micro_batch_size=1", "parallelism.data=2", NULL};
  const Config a = training_config(training_directory(state), "whole", whole);
  const Config b = training_config(training_directory(state), "cut", cut);
  const Metrics first = training_metrics(&a);
  const Metrics second = training_metrics(&b);
  grids_check_metrics("micro-batches of 1 against 4", &first, &second);
}

#define STAGES "train.dropout=0.1", "train.sequence_schedule={0: 64, 9: 128}"

/* From steps around the end of a stage; on the same grid the same bits. */
static void test_resume(void **state) {
  const char *directory = training_directory(state);
  const char *const overrides[] = {STAGES, "checkpoint.every=1", "checkpoint.keep=64", NULL};
  const Config whole = training_config(directory, "resumed", overrides);
  (void)training_metrics(&whole);
  const int64_t steps[] = {1, 8, 9, 15};
  for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
    char name[32];
    char resume[CONFIG_TEXT_BYTES + 32];
    char *checkpoint = training_checkpoint(&whole, steps[i], "");
    (void)snprintf(name, sizeof name, "resumed-from-%lld", (long long)steps[i]);
    (void)snprintf(resume, sizeof resume, "checkpoint.resume=%s", checkpoint);
    const char *const again[] = {STAGES, resume, NULL};
    const Config config = training_config(directory, name, again);
    Error error = {0};
    expect_ok(training_run(&config, &error), &error);
    training_same_state(&whole, &config, 20);
    free(checkpoint);
  }
}

/* ---------------------------------------------------------------- the masks of a run */

/* So small a rate that no weight moves: every step is the first, on other sequences and with other masks. */
#define FROZEN "optimizer.learning_rate=1e-30", "data.document_mask=false", "train.steps=5"

/* The loss of the step that begins behind `tokens` tokens with sequences of T = length, in float64. */
static double step_loss(const Config *config, Gpt64 *model, int64_t tokens, int64_t length) {
  const int64_t step_tokens = config->train.global_batch_size * config->train.sequence_length;
  const LoaderOptions options = {.pattern = config->data.train,
                                 .vocab_size = config->model.vocab_size,
                                 .end_of_document = -1,
                                 .sequence_length = length,
                                 .micro_batch = 1,
                                 .ring_size = 1,
                                 .data_size = 1,
                                 .first_sample = tokens / length,
                                 .shuffle = config->data.shuffle,
                                 .seed = (uint64_t)config->run.seed,
                                 .read_ahead = 1};
  Loader *loader = NULL;
  Error error = {0};
  double loss = 0;
  expect_ok(loader_open(&options, &loader, &error), &error);
  for (int64_t done = 0; done < step_tokens; done += length) {
    const RefDropout dropout = {
        .p = config->train.dropout, .seed = (uint64_t)config->run.seed, .first_token = tokens + done};
    const Batch *batch = NULL;
    expect_ok(loader_next(loader, &batch, &error), &error);
    model->dropout = &dropout;
    loss += gpt64_loss(model, batch->tokens, batch->targets, NULL, length, (double)step_tokens, NULL, false);
  }
  loader_close(loader);
  return loss;
}

/* Steps and sequences have masks of their own, numbered through the stages of the schedule by the tokens seen
 * before. */
static void test_masks_of_a_run(void **state) {
  const char *const overrides[] = {FROZEN,
                                   "train.sequence_schedule={0: 32, 2: 128}",
                                   "train.dropout=0.4",
                                   "run.seed=4294967301",
                                   "parallelism.data=2",
                                   "train.micro_batch_size=1",
                                   NULL};
  const Config config = training_config(training_directory(state), "masks", overrides);
  const Metrics metrics = training_metrics(&config);
  TensorTable table;
  Error error = {0};
  expect_ok(params_build(&config.model, &table, NULL, &error), &error);
  float *weights = calloc((size_t)table.total, sizeof *weights);
  assert_non_null(weights);
  params_init(&table, (uint64_t)config.run.seed, weights);
  Gpt64 *model = gpt_case_model(&config.model, &table, weights);
  assert_non_null(model);
  assert_int_equal(metrics.count, 5);
  for (int64_t i = 0; i < 5; i++) {
    const int64_t tokens = i * config.train.global_batch_size * config.train.sequence_length;
    const double expected = step_loss(&config, model, tokens, i < 2 ? 32 : 128);
    char name[48];
    (void)snprintf(name, sizeof name, "loss of step %lld", (long long)i + 1);
    check_within(name, fabs(metrics.loss[i] - expected) / expected, 1e-7);
  }
  gpt64_free(model);
  free(weights);
  params_free(&table, NULL);
}

/* The lines of a run's metrics that tell of evaluations, to be freed. */
static char *evaluations(const Config *config) {
  char *path = training_path(config->run.dir, "metrics.jsonl");
  size_t bytes = 0;
  char *text = (char *)temp_file_read(path, &bytes);
  char *found = calloc(bytes + 1, 1);
  assert_non_null(found);
  char *rest = NULL;
  size_t used = 0;
  for (char *line = strtok_r(text, "\n", &rest); line != NULL; line = strtok_r(NULL, "\n", &rest)) {
    if (strstr(line, "\"eval\"") == NULL) continue;
    used += (size_t)snprintf(found + used, bytes + 1 - used, "%s", line);
  }
  free(text);
  free(path);
  return found;
}

/* The same weights are evaluated alike, bit for bit, whether they are trained with dropout or without. */
static void test_evaluation_has_none(void **state) {
  const char *const without[] = {FROZEN, "eval.every=2", "eval.contexts=[64, 200]", NULL};
  const char *const with[] = {FROZEN, "eval.every=2", "eval.contexts=[64, 200]", "train.dropout=0.5", NULL};
  const Config a = training_config(training_directory(state), "without", without);
  const Config b = training_config(training_directory(state), "with", with);
  const Metrics first = training_metrics(&a);
  const Metrics second = training_metrics(&b);
  char *expected = evaluations(&a);
  char *got = evaluations(&b);
  assert_non_null(strstr(expected, "\"eval\""));
  assert_string_equal(got, expected);
  for (int i = 0; i < 5; i++) assert_true(first.loss[i] != second.loss[i]);
  free(got);
  free(expected);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_gpt2),           cmocka_unit_test(test_llama),
      cmocka_unit_test(test_recompute),      cmocka_unit_test(test_grids),
      cmocka_unit_test(test_accumulation),   cmocka_unit_test(test_resume),
      cmocka_unit_test(test_masks_of_a_run), cmocka_unit_test(test_evaluation_has_none),
  };
  return cmocka_run_group_tests(tests, training_set_up, temp_dir_tear_down);
}
