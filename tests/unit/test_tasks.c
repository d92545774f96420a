/* Tasks: what is predicted against the logits of the decoder, ties and rows that are not numbers; samples of
 * needle and passkey; scores on several grids against a direct count, with a model whose answers are known;
 * the control that sees local keys alone; and each mistake with its message. */
#include "train/tasks.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/recall.h"
#include "data/tokenizer.h"
#include "kernels/ops.h"
#include "model/decoder.h"
#include "model/params.h"
#include "tests/support/expect.h"
#include "tests/support/gpt_case.h"
#include "tests/support/ranks.h"
#include "tests/support/shards.h"
#include "tests/support/small_gpt2.h"
#include "tests/support/temp_dir.h"
#include "tests/support/unit.h"
#include "train/batches.h"
#include "train/host_weights.h"
#include "train/task_text.h"

static TempDir directory;

static int make_directory(void **state) {
  (void)state;
  directory = temp_dir_create();
  return 0;
}

static int remove_directory(void **state) {
  (void)state;
  temp_dir_remove(&directory);
  return 0;
}

static void *take(size_t count, size_t size) {
  void *memory = calloc(count, size);
  assert_non_null(memory);
  return memory;
}

/* ---------------------------------------------------------------- a model */

/* What ranks compute with: a configuration, and its weights as floats. */
typedef struct Weights {
  ModelConfig config;
  float *floats;
  int64_t total;
} Weights;

static Weights make_weights(const ModelConfig *config) {
  TensorTable table;
  Error error = {0};
  expect_ok(params_build(config, &table, NULL, &error), &error);
  Weights weights = {
      .config = *config, .floats = take((size_t)table.total, sizeof(float)), .total = table.total};
  gpt_case_weights(&table, weights.floats);
  params_free(&table, NULL);
  return weights;
}

static Status make_model(const TestRank *rank, const Weights *weights, bool local_keys, Model **out,
                         Error *error) {
  const ModelOptions options = {.config = weights->config, .loss_chunk = 7, .local_keys = local_keys};
  HostWeights host;
  TRY(model_create(rank->device, rank->ring, &options, out, error));
  TRY(host_weights_open(rank->device, *out, &host, error));
  memcpy(host.floats, weights->floats, (size_t)weights->total * sizeof(float));
  return host_weights_close(&host, true, error);
}

/* ---------------------------------------------------------------- predictions */

enum { LENGTH = 45 };

/* A sequence, of which every third position has a target, and what a ring predicts. */
typedef struct Prediction {
  const Weights *weights;
  bool local_keys;
  int32_t tokens[LENGTH];
  int32_t predictions[LENGTH]; /* written by the rank that has the position */
} Prediction;

static bool has_target(int64_t position) {
  return position % 3 == 1;
}

static Status predict_rank(TestRank *rank, void *context, Error *error) {
  Prediction *shared = context;
  const Layout layout = layout_zigzag(LENGTH, rank->ring->rank, rank->ring->size);
  int32_t tokens[2 * LENGTH] = {0};
  int32_t targets[2 * LENGTH];
  int32_t predictions[2 * LENGTH];
  int64_t places[2 * LENGTH];
  int64_t n = 0;
  for (int i = 0; i < layout.run_count; i++) {
    for (int64_t p = layout.runs[i].start; p < layout.runs[i].start + layout.runs[i].length; p++, n++) {
      places[n] = p;
      tokens[n] = p < LENGTH ? shared->tokens[p] : 0;
      targets[n] = p < LENGTH && has_target(p) ? 0 : IGNORED_TARGET;
    }
  }
  const ModelBatch batch = {.sequences = 1, .sequence_length = LENGTH, .tokens = tokens, .targets = targets};
  Model *model = NULL;
  Status status = make_model(rank, shared->weights, shared->local_keys, &model, error);
  if (status == STATUS_OK) status = model_predict(model, &batch, predictions, error);
  for (int64_t i = 0; i < n && status == STATUS_OK; i++) {
    if (places[i] < LENGTH) shared->predictions[places[i]] = predictions[i];
  }
  model_destroy(model);
  return status;
}

static Prediction make_prediction(const Weights *weights) {
  Prediction prediction = {.weights = weights};
  for (int64_t p = 0; p < LENGTH; p++) {
    prediction.tokens[p] = (int32_t)((p * p * 7 + p + 3) % weights->config.vocab_size);
  }
  return prediction;
}

static void run_prediction(TestDevice device, int ring, Prediction *prediction) {
  Error error = {0};
  for (int64_t p = 0; p < LENGTH; p++) prediction->predictions[p] = -7;
  expect_ok(run_ranks_on(device, ring, 1, 1, predict_rank, prediction, &error), &error);
}

/* The place of the largest of the decoder's logits at each position, to context. */
static Status find_largest(void *context, int64_t first, int64_t count, const float *logits, Error *error) {
  Prediction *expected = context;
  const int64_t vocab = expected->weights->config.vocab_size;
  (void)error;
  for (int64_t i = 0; i < count; i++) {
    int32_t best = 0;
    for (int32_t j = 1; j < vocab; j++) {
      if (logits[i * vocab + j] > logits[i * vocab + best]) best = j;
    }
    expected->predictions[first + i] = best;
  }
  return STATUS_OK;
}

static Status decode_rank(TestRank *rank, void *context, Error *error) {
  Prediction *expected = context;
  const DecoderOptions options = {.most_tokens = LENGTH, .chunk = LENGTH};
  Model *model = NULL;
  Decoder *decoder = NULL;
  TRY(make_model(rank, expected->weights, false, &model, error));
  TRY(decoder_create(model, &options, &decoder, error));
  TRY(decoder_append_visit(decoder, LENGTH, expected->tokens, find_largest, expected, error));
  decoder_destroy(decoder);
  model_destroy(model);
  return STATUS_OK;
}

static void check_predictions(TestDevice device, int64_t least) {
  const ModelConfig config = llama_config(2, 4, 2, 8, false);
  Weights weights = make_weights(&config);
  Prediction expected = make_prediction(&weights);
  Prediction prediction = expected;
  Error error = {0};
  expect_ok(run_ranks(1, 1, 1, decode_rank, &expected, &error), &error);
  static const int rings[] = {1, 2, 4};
  for (size_t i = 0; i < sizeof rings / sizeof rings[0]; i++) {
    int64_t same = 0;
    run_prediction(device, rings[i], &prediction);
    for (int64_t p = 0; p < LENGTH; p++) {
      if (!has_target(p)) assert_int_equal(prediction.predictions[p], PREDICTED_NONE);
      same += has_target(p) && prediction.predictions[p] == expected.predictions[p];
    }
    assert_in_range(same, least, LENGTH / 3);
  }
  free(weights.floats);
}

static void test_predictions(void **state) {
  (void)state;
  check_predictions(TEST_CPU, LENGTH / 3);
  /* Rounding may turn a close decision. */
  check_predictions(TEST_CPU_BF16, LENGTH / 3 - 2);
}

static void test_predictions_cuda(void **state) {
  (void)state;
  test_device_need_cuda();
  check_predictions(TEST_CUDA_F32, LENGTH / 3);
}

/* Of equal logits the first; none where no logit is a number. */
static void test_ties(void **state) {
  (void)state;
  const ModelConfig config = llama_config(1, 2, 2, 8, true);
  Weights weights = make_weights(&config);
  Prediction prediction = make_prediction(&weights);
  memset(weights.floats, 0, (size_t)weights.total * sizeof(float));
  run_prediction(TEST_CPU, 2, &prediction);
  for (int64_t p = 0; p < LENGTH; p++) {
    assert_int_equal(prediction.predictions[p], has_target(p) ? 0 : PREDICTED_NONE);
  }
  for (int64_t i = 0; i < weights.total; i++) weights.floats[i] = NAN;
  run_prediction(TEST_CPU, 2, &prediction);
  for (int64_t p = 0; p < LENGTH; p++) assert_int_equal(prediction.predictions[p], PREDICTED_NONE);
  free(weights.floats);
}

/* ---------------------------------------------------------------- local keys */

/* nll of a ring of 2 over 16 tokens. */
typedef struct Local {
  const Weights *weights;
  bool local_keys;
  int32_t first_token;
  float nll[2][8]; /* by rank: rank 0 has positions 0-3 and 12-15 */
} Local;

static Status local_rank(TestRank *rank, void *context, Error *error) {
  Local *shared = context;
  const Layout layout = layout_zigzag(16, rank->ring->rank, 2);
  int32_t tokens[8];
  int32_t targets[8];
  int64_t n = 0;
  for (int i = 0; i < layout.run_count; i++) {
    for (int64_t p = layout.runs[i].start; p < layout.runs[i].start + layout.runs[i].length; p++, n++) {
      tokens[n] = p == 0 ? shared->first_token : (int32_t)(p * 5 % 23);
      targets[n] = (int32_t)(p % 11);
    }
  }
  const ModelBatch batch = {.sequences = 1, .sequence_length = 16, .tokens = tokens, .targets = targets};
  Model *model = NULL;
  Status status = make_model(rank, shared->weights, shared->local_keys, &model, error);
  if (status == STATUS_OK) status = model_evaluate(model, &batch, shared->nll[rank->ring->rank], error);
  model_destroy(model);
  return status;
}

/* Whether rank 1 sees the first token, which rank 0 has; rank 0 always does. */
static bool sees_the_other(const Weights *weights, bool local_keys) {
  Local runs[2] = {{.weights = weights, .local_keys = local_keys, .first_token = 3},
                   {.weights = weights, .local_keys = local_keys, .first_token = 20}};
  Error error = {0};
  for (int i = 0; i < 2; i++) expect_ok(run_ranks(2, 1, 1, local_rank, &runs[i], &error), &error);
  for (int i = 0; i < 8; i++) assert_true(runs[0].nll[0][i] != runs[1].nll[0][i]);
  return memcmp(runs[0].nll[1], runs[1].nll[1], sizeof runs[0].nll[1]) != 0;
}

static void test_local_keys(void **state) {
  (void)state;
  const ModelConfig config = llama_config(2, 4, 2, 8, false);
  Weights weights = make_weights(&config);
  assert_true(sees_the_other(&weights, false));
  assert_false(sees_the_other(&weights, true));
  free(weights.floats);
}

/* ---------------------------------------------------------------- samples of text */

enum { SHARD_TOKENS = 3000 };

/* A shard of letters: text in which no number and no sentence of a task occurs. */
static const char *write_shard(int32_t *tokens) {
  const char *path = temp_dir_path(&directory, "text.bin");
  for (int64_t i = 0; i < SHARD_TOKENS; i++) tokens[i] = (int32_t)('a' + (i * i + i / 7) % 26);
  shards_write(path, FORM_PLAIN, tokens, SHARD_TOKENS, 2);
  return path;
}

/* The bytes of tokens as a text, to be freed. */
static char *text_of(const char *tokenizer_name, const int32_t *tokens, int64_t count) {
  Tokenizer *tokenizer = NULL;
  char *text = NULL;
  size_t bytes = 0;
  Error error = {0};
  expect_ok(tokenizer_open(tokenizer_name, &tokenizer, &error), &error);
  FILE *stream = open_memstream(&text, &bytes);
  for (int64_t i = 0; i < count; i++) {
    const char *piece = NULL;
    size_t length = 0;
    expect_ok(tokenizer_decode(tokenizer, tokens[i], &piece, &length, &error), &error);
    (void)fwrite(piece, 1, length, stream);
  }
  (void)fclose(stream);
  tokenizer_close(tokenizer);
  return text;
}

static TaskText *open_text(TaskTextKind kind, const char *tokenizer, const char *pattern) {
  const TaskTextOptions options = {
      .kind = kind, .tokenizer = tokenizer, .pattern = pattern, .vocab_size = 400, .seed = 9};
  TaskText *text = NULL;
  Error error = {0};
  expect_ok(task_text_open(&options, &text, &error), &error);
  return text;
}

/* One sample as text: the number is where it belongs and is the answer. Returns the bytes before the
 * sentence.
 */
static int64_t check_sample(TaskText *text, const char *tokenizer, const TaskTextPlace *place,
                            const char *before, size_t digits, char number[16]) {
  Error error = {0};
  int64_t answers = 0;
  int32_t *tokens = take((size_t)place->context + 1, sizeof(int32_t));
  expect_ok(task_text_sample(text, place, tokens, &answers, &error), &error);
  char *answer = text_of(tokenizer, tokens + place->context + 1 - answers, answers);
  char *all = text_of(tokenizer, tokens, place->context + 1);
  const char *digits_at = answer + strspn(answer, " ");
  assert_int_equal(strspn(digits_at, "0123456789"), digits);
  assert_int_equal(strlen(digits_at), digits);
  (void)snprintf(number, 16, "%s", digits_at);
  const char *sentence = strstr(all, before);
  assert_non_null(sentence);
  assert_memory_equal(sentence + strlen(before), number, digits);
  const int64_t position = sentence - all;
  free(all);
  free(answer);
  free(tokens);
  return position;
}

static void test_needle(void **state) {
  (void)state;
  const char *const words = "\nThe number painted on the door of the lighthouse is ";
  int32_t shard[SHARD_TOKENS];
  TaskText *text = open_text(TASK_TEXT_NEEDLE, "bytes", write_shard(shard));
  char numbers[3][16];
  for (int sample = 0; sample < 3; sample++) {
    const int64_t fixed =
        (int64_t)(2 * strlen(words)) + 2 + 14; /* "." and the line end, and the number twice */
    const int64_t filler = 1000 + 1 - fixed;
    for (int64_t row = 0; row < 5; row++) {
      const TaskTextPlace place = {.context = 1000, .sample = sample, .depth = task_depth(row, 5)};
      const int64_t at = check_sample(text, "bytes", &place, words, 7, numbers[sample]);
      assert_int_equal(at, (int64_t)((double)(row * filler) / 4));
    }
  }
  assert_true(strcmp(numbers[0], numbers[1]) != 0 && strcmp(numbers[1], numbers[2]) != 0);
  /* What is around the sentence is one piece of the shard. */
  int32_t tokens[1001];
  int64_t answers = 0;
  Error error = {0};
  const TaskTextPlace place = {.context = 1000, .sample = 0, .depth = 0.25};
  expect_ok(task_text_sample(text, &place, tokens, &answers, &error), &error);
  assert_int_equal(answers, 7);
  const int64_t filler = 1001 - (int64_t)(2 * strlen(words)) - 16;
  const int64_t before = filler / 4;
  const int64_t sentence = (int64_t)strlen(words) + 9;
  memmove(tokens + before, tokens + before + sentence, (size_t)(filler - before) * sizeof *tokens);
  bool found = false;
  for (int64_t i = 0; i + filler <= SHARD_TOKENS; i++) {
    found = found || memcmp(shard + i, tokens, (size_t)filler * sizeof *tokens) == 0;
  }
  assert_true(found);
  task_text_close(text);
}

static void test_passkey(void **state) {
  (void)state;
  small_gpt2_write(&directory, "gpt2", "vocab.json", "merges.txt");
  char gpt2[512];
  (void)snprintf(gpt2, sizeof gpt2, "gpt2:%s", temp_dir_path(&directory, "gpt2"));
  const char *const tokenizers[] = {"bytes", gpt2};
  for (size_t i = 0; i < 2; i++) {
    char numbers[2][16];
    TaskText *text = open_text(TASK_TEXT_PASSKEY, tokenizers[i], "");
    int64_t last = -1;
    for (int64_t row = 0; row < 3; row++) {
      const TaskTextPlace place = {.context = 1500, .sample = 4, .depth = task_depth(row, 3)};
      const int64_t at = check_sample(text, tokenizers[i], &place, " The pass key is ", 5, numbers[row % 2]);
      assert_true(at > last);
      last = at;
    }
    assert_string_equal(numbers[0], numbers[1]);
    task_text_close(text);
  }
}

static void test_text_mistakes(void **state) {
  (void)state;
  int32_t shard[SHARD_TOKENS];
  int32_t tokens[SHARD_TOKENS + 2];
  int64_t answers = 0;
  Error error = {0};
  TaskText *text = open_text(TASK_TEXT_NEEDLE, "bytes", write_shard(shard));
  TaskTextPlace place = {.context = 121, .depth = 0.5};
  expect_ok(task_text_sample(text, &place, tokens, &answers, &error), &error);
  place.context = 120;
  expect_error(task_text_sample(text, &place, tokens, &answers, &error), &error, STATUS_CONFIG,
               "a context of 120 tokens is too short", "121 at least");
  place.context = SHARD_TOKENS + 121;
  int32_t *many = take((size_t)place.context + 1, sizeof(int32_t));
  expect_ok(task_text_sample(text, &place, many, &answers, &error), &error);
  place.context++;
  expect_error(task_text_sample(text, &place, many, &answers, &error), &error, STATUS_DATA,
               "data.val holds 3000 tokens, too few for the 3001", "3122");
  free(many);
  task_text_close(text);
  TaskTextOptions options = {.kind = TASK_TEXT_PASSKEY, .tokenizer = "bytes", .vocab_size = 256};
  expect_error(task_text_open(&options, &text, &error), &error, STATUS_CONFIG,
               "the model knows 256 tokens, but the tokenizer bytes has 257");
  assert_null(text);
}

/* ---------------------------------------------------------------- scores */

enum { SAMPLES = 3, DEPTHS = 2, CONTEXT = 300 };

/* What follows each token by the model of test_scores; -1: token 0. */
static int32_t follower[257];

/* A model that predicts follower[token] whatever the context: embeddings are unit vectors, the layer adds
 * nothing. */
static Weights make_bigrams(void) {
  ModelConfig config = llama_config(1, 33, 33, 8, false);
  config.vocab_size = 257;
  Weights weights = make_weights(&config);
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
  Status status = make_model(rank, shared->weights, false, &model, error);
  if (status == STATUS_OK)
    status = task_run(shared->config, &whole, model, &shared->options, CONTEXT, &result, error);
  if (status == STATUS_OK && rank->world->rank == rank->world->size - 1) shared->result = result;
  model_destroy(model);
  return status;
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
  int32_t shard[SHARD_TOKENS];
  Config config = {.model = {.vocab_size = 257}, .data = {.mqar_pairs = 8, .mqar_queries = 0.5}};
  (void)snprintf(config.data.val, sizeof config.data.val, "%s", write_shard(shard));
  TaskTextOptions options = {
      .kind = TASK_TEXT_NEEDLE, .tokenizer = "bytes", .pattern = config.data.val, .vocab_size = 257};
  TaskText *text = NULL;
  Error error = {0};
  bool taught = false;
  for (config.run.seed = 0; !taught; config.run.seed++) {
    task_text_close(text);
    options.seed = (uint64_t)config.run.seed;
    expect_ok(task_text_open(&options, &text, &error), &error);
    taught = teach(text, 1);
  }
  config.run.seed--;
  const TaskResult expected = count_text(text);
  assert_true(expected.total.right >= DEPTHS && expected.total.right < expected.total.asked);
  assert_true(expected.tokens.right > expected.total.right * 7);
  Weights weights = make_bigrams();
  static const int grids[][2] = {{1, 1}, {4, 1}, {2, 2}};
  for (size_t i = 0; i < sizeof grids / sizeof grids[0]; i++) {
    const TaskResult result = run_scores(&config, &weights, TASK_NEEDLE, grids[i][0], grids[i][1]);
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
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_predictions),   cmocka_unit_test(test_predictions_cuda),
      cmocka_unit_test(test_ties),          cmocka_unit_test(test_local_keys),
      cmocka_unit_test(test_needle),        cmocka_unit_test(test_passkey),
      cmocka_unit_test(test_text_mistakes), cmocka_unit_test(test_text_scores),
      cmocka_unit_test(test_recall_scores), cmocka_unit_test(test_checks),
  };
  return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
