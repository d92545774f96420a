/* What the model predicts against the logits of the decoder, on rings and devices, with ties and rows that
 * are not numbers; and the control that sees local keys alone. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/ops.h"
#include "model/decoder.h"
#include "tests/support/expect.h"
#include "tests/support/gpt_case.h"
#include "tests/support/unit.h"
#include "tests/support/weighted_model.h"

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
  const Layout layout = layout_zigzag(LENGTH, rank->ring->size);
  int32_t tokens[2 * LENGTH] = {0};
  int32_t targets[2 * LENGTH];
  int32_t predictions[2 * LENGTH];
  int64_t places[2 * LENGTH];
  int64_t n = 0;
  for (Run run = {0}; layout_next_run(&layout, 0, rank->ring->rank, &run);) {
    for (int64_t p = run.start; p < run.start + run.length; p++, n++) {
      places[n] = p;
      tokens[n] = p < LENGTH ? shared->tokens[p] : 0;
      targets[n] = p < LENGTH && has_target(p) ? 0 : IGNORED_TARGET;
    }
  }
  const ModelBatch batch = {.sequences = 1, .sequence_length = LENGTH, .tokens = tokens, .targets = targets};
  Model *model = NULL;
  Status status = weighted_model_make(rank, shared->weights, shared->local_keys, &model, error);
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
  TRY(weighted_model_make(rank, expected->weights, false, &model, error));
  TRY(decoder_create(model, &options, &decoder, error));
  TRY(decoder_append_visit(decoder, LENGTH, expected->tokens, find_largest, expected, error));
  decoder_destroy(decoder);
  model_destroy(model);
  return STATUS_OK;
}

static void check_predictions(TestDevice device, int64_t least) {
  const ModelConfig config = llama_config(2, 4, 2, 8, false);
  Weights weights = weighted_model_draw(&config);
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
  Weights weights = weighted_model_draw(&config);
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
  const Layout layout = layout_zigzag(16, 2);
  int32_t tokens[8];
  int32_t targets[8];
  int64_t n = 0;
  for (Run run = {0}; layout_next_run(&layout, 0, rank->ring->rank, &run);) {
    for (int64_t p = run.start; p < run.start + run.length; p++, n++) {
      tokens[n] = p == 0 ? shared->first_token : (int32_t)(p * 5 % 23);
      targets[n] = (int32_t)(p % 11);
    }
  }
  const ModelBatch batch = {.sequences = 1, .sequence_length = 16, .tokens = tokens, .targets = targets};
  Model *model = NULL;
  Status status = weighted_model_make(rank, shared->weights, shared->local_keys, &model, error);
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
  Weights weights = weighted_model_draw(&config);
  assert_true(sees_the_other(&weights, false));
  assert_false(sees_the_other(&weights, true));
  free(weights.floats);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_predictions),
                                     cmocka_unit_test(test_predictions_cuda), cmocka_unit_test(test_ties),
                                     cmocka_unit_test(test_local_keys)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
