/* Scores of tasks on several grids against a direct count, with a model whose answers are known; and what a
 * configuration must have for a task. */
#include "train/tasks.h"

#include <stdlib.h>
#include <string.h>

#include "data/recall.h"
#include "kernels/ops.h"
#include "model/params.h"
#include "tests/support/expect.h"
#include "tests/support/gpt_case.h"
#include "tests/support/unit.h"
#include "tests/support/weighted_model.h"
#include "train/batches.h"
#include "train/task_text.h"

/* ---------------------------------------------------------------- scores */

enum { SAMPLES = 3, DEPTHS = 2, CONTEXT = 300 };

/* What follows each token by the model of test_scores; -1: token 0. */
static int32_t follower[257];

/* A model that predicts follower[token] whatever the context: embeddings are unit vectors, the layer adds
 * nothing. */
static Weights make_bigrams(void) {
  ModelConfig config = llama_config(1, 33, 33, 8, false);
  config.vocab_size = 257;
  Weights weights = weighted_model_draw(&config);
  TensorTable table;
  ParamPlaces places;
  Error error = {0};
  expect_ok(params_build(&config, &table, &places, &error), &error);
  memset(weights.floats, 0, (size_t)weights.total * sizeof(float));
  for (int64_t c = 0; c < config.hidden_size; c++) weights.floats[places.final_norm + c] = 1.0F;
  for (int64_t t = 0; t < 257; t++) {
    weights.floats[places.tokens + t * config.hidden_size + t] = 1.0F;
    if (follower[t] >= 0) weights.floats[places.head + follower[t] * config.hidden_size + t] = 1.0F;
  }
  params_free(&table, &places);
  return weights;
}

typedef struct Scores {
  const Config *config;
  const Weights *weights;
  TaskOptions options;
  int data;
  TaskResult result;
} Scores;

static Status score_rank(TestRank *rank, void *context, Error *error) {
  Scores *shared = context;
  const Rank whole = {.world = rank->world,
                      .ring = rank->ring,
                      .data_rank = rank->data_rank,
                      .data_size = shared->data,
                      .device = rank->device};
  Model *model = NULL;
  TaskResult result;
  void *memory = malloc(task_bytes(CONTEXT, rank->ring->size));
  Status status = weighted_model_make(rank, shared->weights, false, &model, error);
  if (status == STATUS_OK && memory != NULL)
    status = task_run(shared->config, &whole, model, &shared->options, CONTEXT, memory, NULL, &result, error);
  if (status == STATUS_OK && rank->world->rank == rank->world->size - 1) shared->result = result;
  model_destroy(model);
  free(memory);
  return memory == NULL ? STATUS_SYSTEM : status;
}

static TaskResult run_scores(const Config *config, const Weights *weights, TaskKind kind, int ring,
                             int data) {
  Scores scores = {.config = config,
                   .weights = weights,
                   .options = {.kind = kind, .tokenizer = "bytes", .depths = DEPTHS, .samples = SAMPLES},
                   .data = data};
  Error error = {0};
  expect_ok(run_ranks(ring, data, 1, score_rank, &scores, &error), &error);
  return scores.result;
}

static void add_to(TaskScore *score, bool right) {
  score->asked++;
  score->right += right ? 1 : 0;
}

/* Makes the model answer sample `sample` of a text task, if no two of its tokens contradict each other. */
static bool teach(TaskText *text, int64_t sample) {
  const TaskTextPlace place = {.context = CONTEXT, .sample = sample, .depth = 0};
  int32_t tokens[CONTEXT + 1];
  int64_t answers = 0;
  Error error = {0};
  expect_ok(task_text_sample(text, &place, tokens, &answers, &error), &error);
  for (int64_t t = 0; t < 257; t++) follower[t] = -1;
  for (int64_t p = CONTEXT - answers; p < CONTEXT; p++) {
    if (follower[tokens[p]] >= 0 && follower[tokens[p]] != tokens[p + 1]) return false;
    follower[tokens[p]] = tokens[p + 1];
  }
  return true;
}

/* The same by reading the samples. */
static TaskResult count_text(TaskText *text) {
  TaskResult result = {.context = CONTEXT};
  Error error = {0};
  for (int64_t row = 0; row < DEPTHS; row++) {
    for (int64_t s = 0; s < SAMPLES; s++) {
      const TaskTextPlace place = {.context = CONTEXT, .sample = s, .depth = task_depth(row, DEPTHS)};
      int32_t tokens[CONTEXT + 1];
      int64_t answers = 0;
      bool all = true;
      expect_ok(task_text_sample(text, &place, tokens, &answers, &error), &error);
      for (int64_t p = CONTEXT - answers; p < CONTEXT; p++) {
        const int32_t predicted = follower[tokens[p]] < 0 ? 0 : follower[tokens[p]];
        add_to(&result.tokens, predicted == tokens[p + 1]);
        all = all && predicted == tokens[p + 1];
      }
      add_to(&result.rows[row], all);
      add_to(&result.total, all);
    }
  }
  return result;
}

static void test_text_scores(void **state) {
  (void)state;
  Config config = {.model = {.vocab_size = 257}};
  TaskTextOptions options = {.kind = TASK_TEXT_PASSKEY, .tokenizer = "bytes", .vocab_size = 257};
  TaskText *text = NULL;
  Error error = {0};
  TaskResult expected = {0};
  /* Until other samples are partly right. */
  while (expected.tokens.right <= 5 * expected.total.right) {
    task_text_close(text);
    options.seed = (uint64_t)++config.run.seed;
    expect_ok(task_text_open(&options, &text, &error), &error);
    if (teach(text, 1)) expected = count_text(text);
  }
  assert_true(expected.total.right >= DEPTHS && expected.total.right < expected.total.asked);
  Weights weights = make_bigrams();
  static const int grids[][2] = {{1, 1}, {4, 1}, {2, 2}};
  for (size_t i = 0; i < sizeof grids / sizeof grids[0]; i++) {
    const TaskResult result = run_scores(&config, &weights, TASK_PASSKEY, grids[i][0], grids[i][1]);
    assert_memory_equal(&result, &expected, sizeof result);
  }
  free(weights.floats);
  task_text_close(text);
}

/* Questions of recall counted by reading the sequences, for a ring. */
static TaskResult count_recall(const Config *config, int ring) {
  const RecallOptions recall = batches_recall(config);
  TaskResult result = {.context = CONTEXT};
  for (int64_t s = 0; s < SAMPLES; s++) {
    const RecallSequence sequence = recall_sequence(&recall, RECALL_HELD_OUT + s, CONTEXT);
    int32_t tokens[CONTEXT];
    int32_t targets[CONTEXT];
    recall_fill(&sequence, 0, CONTEXT, tokens, targets);
    for (int64_t p = 0; p < CONTEXT; p++) {
      if (targets[p] == IGNORED_TARGET) continue;
      int64_t value = 1;
      while (tokens[value - 1] != tokens[p]) value += 2;
      const int64_t chunk = (CONTEXT + 2 * ring - 1) / (2 * ring);
      const int64_t asks = p / chunk, holds = value / chunk;
      const bool own = ring == 1 || asks == holds || asks + holds == 2 * ring - 1;
      const bool right = targets[p] == (follower[tokens[p]] < 0 ? 0 : follower[tokens[p]]);
      int row = 0;
      while (2 << row <= p - value) row++;
      add_to(&result.rows[row], right);
      add_to(own ? &result.own : &result.remote, right);
      add_to(&result.total, right);
    }
  }
  result.tokens = result.total;
  return result;
}

static void test_recall_scores(void **state) {
  (void)state;
  Config config = {
      .model = {.vocab_size = 257}, .data = {.mqar_pairs = 64, .mqar_queries = 0.5}, .run = {.seed = 2}};
  /* What the first sequence answers. */
  const RecallOptions recall = batches_recall(&config);
  const RecallSequence sequence = recall_sequence(&recall, RECALL_HELD_OUT, CONTEXT);
  int32_t tokens[CONTEXT];
  int32_t targets[CONTEXT];
  recall_fill(&sequence, 0, CONTEXT, tokens, targets);
  for (int64_t t = 0; t < 257; t++) follower[t] = -1;
  for (int64_t i = 0; i < sequence.pairs; i += 2) follower[tokens[2 * i]] = tokens[2 * i + 1];
  Weights weights = make_bigrams();
  static const int grids[][2] = {{1, 1}, {4, 1}, {2, 2}};
  for (size_t i = 0; i < sizeof grids / sizeof grids[0]; i++) {
    const TaskResult expected = count_recall(&config, grids[i][0]);
    assert_true(expected.total.right > 20 && expected.total.right < expected.total.asked / 2);
    assert_true(grids[i][0] == 1 || expected.remote.right > 5);
    const TaskResult result = run_scores(&config, &weights, TASK_MQAR, grids[i][0], grids[i][1]);
    assert_memory_equal(&result, &expected, sizeof result);
  }
  free(weights.floats);
}

static void test_checks(void **state) {
  (void)state;
  Config config = {.model = {.vocab_size = 20},
                   .data = {.mqar_pairs = 10, .mqar_queries = 0.5},
                   .eval = {.contexts = {.count = 2, .values = {64, 7}}}};
  Error error = {0};
  expect_ok(task_check(&config, TASK_PASSKEY, &error), &error);
  expect_error(task_check(&config, TASK_NEEDLE, &error), &error, STATUS_CONFIG, "data.val");
  expect_error(task_check(&config, TASK_MQAR, &error), &error, STATUS_CONFIG,
               "data.mqar_pairs (10) must be at most the 9 keys of a vocabulary of 20");
  config.data.mqar_pairs = 9;
  expect_error(task_check(&config, TASK_MQAR, &error), &error, STATUS_CONFIG, "at least 8 tokens, not 7");
  config.eval.contexts.values[1] = 8;
  expect_ok(task_check(&config, TASK_MQAR, &error), &error);
  assert_true(task_depth(0, 1) == 0.5 && task_depth(0, 3) == 0 && task_depth(1, 3) == 0.5 &&
              task_depth(2, 3) == 1);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_text_scores), cmocka_unit_test(test_recall_scores),
                                     cmocka_unit_test(test_checks)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
