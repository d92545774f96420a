/* The decoder: logits of every position against the float64 reference, for any cut of the text into pieces
 * and chunks; blocks of keys and values; windows; what is refused. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/arena.h"
#include "kernels/base/memory.h"
#include "kernels/cpu/cpu_device.h"
#include "model/decoder.h"
#include "model/kv_cache.h"
#include "model/params.h"
#include "tests/support/compare.h"
#include "tests/support/expect.h"
#include "tests/support/gpt_case.h"
#include "tests/support/ops_check.h"
#include "tests/support/ranks.h"
#include "tests/support/unit.h"

/* A text, and how it comes to the decoder. */
typedef struct TextCase {
  ModelConfig config;
  int64_t length;
  int64_t loss_chunk;
  int64_t chunk;
  int64_t first_piece; /* tokens of the first piece; 0: all */
  int64_t piece;       /* of all others; 0: all that is left */
  bool again;          /* forgotten once, and appended again */
} TextCase;

/* Calls of one test: what a rank works on and what it leaves. */
typedef struct Work {
  const TextCase *text;
  const int32_t *tokens;
  float *logits; /* (length, V) */
} Work;

static void *zeroed(int64_t count, size_t size) {
  Error error = {0};
  void *memory = NULL;
  expect_ok(memory_alloc((size_t)count, size, "test", &memory, &error), &error);
  return memory;
}

static int32_t *draw_tokens(const TextCase *text) {
  int32_t *tokens = zeroed(text->length, sizeof(int32_t));
  Random random = {5};
  for (int64_t i = 0; i < text->length; i++) {
    tokens[i] = (int32_t)random_below(&random, text->config.vocab_size);
  }
  return tokens;
}

/* Runs a function as the one rank of a ring, in the thread of the test, so that it may use assertions. */
static Status run_alone(int threads, TestRankMain main, void *context, Error *error) {
  TestRank rank = {0};
  TRY(comm_local_create(1, &rank.ring, error));
  rank.world = rank.ring;
  Status status = cpu_device_create(threads, ELEMENT_F32, &rank.device, error);
  if (status == STATUS_OK) status = main(&rank, context, error);
  device_destroy(rank.device);
  comm_destroy(rank.ring);
  return status;
}

/* ---------------------------------------------------------------- our decoder */

static Status collect(void *context, int64_t first, int64_t count, const float *logits, Error *error) {
  const Work *work = context;
  const int64_t vocab = work->text->config.vocab_size;
  (void)error;
  memcpy(work->logits + first * vocab, logits, (size_t)(count * vocab) * sizeof(float));
  return STATUS_OK;
}

/* Appends the whole text in its pieces. Pieces of one token go by decoder_append, as in generation. */
static Status append_pieces(Decoder *decoder, Work *work, Error *error) {
  const TextCase *text = work->text;
  for (int64_t done = 0; done < text->length;) {
    const int64_t left = text->length - done;
    const int64_t wanted = done == 0 && text->first_piece > 0 ? text->first_piece
                           : text->piece > 0                  ? text->piece
                                                              : left;
    const int64_t count = wanted < left ? wanted : left;
    const int32_t *tokens = work->tokens + done;
    if (count > 1) {
      TRY(decoder_append_visit(decoder, count, tokens, collect, work, error));
    } else {
      TRY(decoder_append(decoder, 1, tokens, work->logits + done * text->config.vocab_size, error));
    }
    done += count;
    assert_int_equal(decoder_length(decoder), done);
  }
  return STATUS_OK;
}

static Status create_model(TestRank *rank, const TextCase *text, Model **model, Error *error) {
  const ModelOptions options = {.config = text->config, .loss_chunk = text->loss_chunk};
  TRY(model_create(rank->device, rank->ring, &options, model, error));
  gpt_case_weights(model_table(*model), model_weights(*model));
  return STATUS_OK;
}

static Status decode_rank(TestRank *rank, void *context, Error *error) {
  Work *work = context;
  const TextCase *text = work->text;
  const DecoderOptions options = {.most_tokens = text->length, .chunk = text->chunk};
  Model *model = NULL;
  Decoder *decoder = NULL;
  Status status = STATUS_OK;
  TRY_GOTO(create_model(rank, text, &model, error), done);
  TRY_GOTO(decoder_create(model, &options, &decoder, error), done);
  TRY_GOTO(append_pieces(decoder, work, error), done);
  if (text->again) {
    decoder_reset(decoder);
    TRY_GOTO(append_pieces(decoder, work, error), done);
  }
done:
  decoder_destroy(decoder);
  model_destroy(model);
  return status;
}

/* ---------------------------------------------------------------- against float64 */

static double *reference_logits(const TextCase *text, const int32_t *tokens) {
  Error error = {0};
  TensorTable table;
  expect_ok(params_build(&text->config, &table, NULL, &error), &error);
  float *weights = zeroed(table.total, sizeof(float));
  double *logits = zeroed(text->length * text->config.vocab_size, sizeof(double));
  gpt_case_weights(&table, weights);
  Gpt64 *model = gpt_case_model(&text->config, &table, weights);
  assert_non_null(model);
  assert_true(gpt64_logits(model, tokens, text->length, logits));
  gpt64_free(model);
  free(weights);
  params_free(&table, NULL);
  return logits;
}

/* Returns the logits (length, V), for the caller to free. */
static float *decode_and_compare(const char *what, const TextCase *text, int threads, const int32_t *tokens,
                                 const double *expected) {
  Error error = {0};
  const int64_t count = text->length * text->config.vocab_size;
  Work work = {.text = text, .tokens = tokens, .logits = zeroed(count, sizeof(float))};
  for (int64_t i = 0; i < count; i++) work.logits[i] = NAN;
  expect_ok(run_alone(threads, decode_rank, &work, &error), &error);
  check_within(what, largest_error(count, work.logits, expected), 1e-5);
  return work.logits;
}

/* With one thread and with two, which must give the same bits. */
static void decode_with_threads(const char *name, const char *isa, const TextCase *text,
                                const int32_t *tokens, const double *expected) {
  const size_t bytes = (size_t)(text->length * text->config.vocab_size) * sizeof(float);
  float *logits[2];
  char what[160];
  for (int i = 0; i < 2; i++) {
    (void)snprintf(what, sizeof what, "%s, %s, %d threads: chunk %lld, pieces of %lld and %lld", name, isa,
                   i + 1, (long long)text->chunk, (long long)text->first_piece, (long long)text->piece);
    logits[i] = decode_and_compare(what, text, i + 1, tokens, expected);
  }
  if (memcmp(logits[0], logits[1], bytes) != 0) fail_msg("%s: other bits than with one thread", what);
  free(logits[0]);
  free(logits[1]);
}

/* True when this CPU has the instruction set, which the next devices then use. */
static bool use_instruction_set(const char *isa) {
  Error error = {0};
  Device *device = NULL;
  assert_int_equal(setenv("RINGGPT_ISA", isa, 1), 0);
  const bool present = cpu_device_create(1, ELEMENT_F32, &device, &error) == STATUS_OK;
  device_destroy(device);
  return present;
}

/* Each way of cutting the text, on each instruction set, with one thread and two. */
static void check_text(const char *name, const TextCase *text, const TextCase *cuts, size_t cut_count) {
  const char *const isas[] = {"avx512", "avx2", "reference"};
  int32_t *tokens = draw_tokens(text);
  double *expected = reference_logits(text, tokens);
  for (size_t i = 0; i < sizeof isas / sizeof isas[0]; i++) {
    if (!use_instruction_set(isas[i])) continue;
    for (size_t c = 0; c < cut_count; c++) {
      TextCase cut = *text;
      cut.chunk = cuts[c].chunk;
      cut.first_piece = cuts[c].first_piece;
      cut.piece = cuts[c].piece;
      decode_with_threads(name, isas[i], &cut, tokens, expected);
    }
  }
  assert_int_equal(unsetenv("RINGGPT_ISA"), 0);
  free(expected);
  free(tokens);
}

static const RopeScaling dynamic_scaling = {.rope_type = ROPE_DYNAMIC, .factor = 2.5};

static const TextCase short_cuts[] = {
    {.chunk = 1000},            /* all at once */
    {.chunk = 7},               /* in chunks */
    {.chunk = 64, .piece = 64}, /* pieces of a piece of the cache */
    {.chunk = 50, .piece = 1},  /* one token at a time */
    {.chunk = 9, .first_piece = 60, .piece = 13},
    {.chunk = 30, .first_piece = 90, .piece = 1}, /* a prompt, then one at a time */
};
#define SHORT_CUTS (sizeof short_cuts / sizeof short_cuts[0])

/* The text is as long as the learned positions. */
static void test_gpt2(void **state) {
  (void)state;
  TextCase text = {.config = gpt2_config(2, 3, 8), .length = 150, .loss_chunk = 64};
  text.config.max_position_embeddings = 150;
  check_text("GPT-2", &text, short_cuts, SHORT_CUTS);
}

static void test_llama(void **state) {
  (void)state;
  const TextCase text = {.config = llama_config(2, 4, 2, 16, false), .length = 141, .loss_chunk = 5};
  check_text("Llama", &text, short_cuts, SHORT_CUTS);
}

static void test_llama_tied_window(void **state) {
  (void)state;
  TextCase text = {.config = llama_config(2, 4, 1, 8, true), .length = 150, .loss_chunk = 1000};
  text.config.sliding_window = 23;
  check_text("Llama with a window", &text, short_cuts, SHORT_CUTS);
}

/* The text passes the end of a block: within a chunk, at the end of one, and token by token. */
static void test_more_than_a_block(void **state) {
  (void)state;
  const TextCase text = {
      .config = llama_config(1, 2, 1, 16, true), .length = KV_BLOCK + KV_PIECE + 10, .loss_chunk = 256};
  const TextCase cuts[] = {
      {.chunk = 4 * KV_BLOCK},
      {.chunk = 300, .first_piece = KV_BLOCK - 20, .piece = 1},
      {.chunk = 300, .first_piece = KV_BLOCK, .piece = 13},
      {.chunk = KV_BLOCK, .first_piece = KV_BLOCK - 20, .piece = 200},
  };
  check_text("more than a block", &text, cuts, sizeof cuts / sizeof cuts[0]);
}

/* ---------------------------------------------------------------- against the model's own evaluation */

static double nll_of(int64_t vocab, const float *logits, int32_t target) {
  double sum = 0.0;
  for (int64_t v = 0; v < vocab; v++) sum += exp((double)logits[v]);
  return log(sum) - (double)logits[target];
}

static Status evaluate_rank(TestRank *rank, void *context, Error *error) {
  Work *work = context;
  const int64_t length = work->text->length;
  const ModelBatch batch = {
      .sequences = 1, .sequence_length = length, .tokens = work->tokens, .targets = work->tokens + 1};
  Model *model = NULL;
  TRY(create_model(rank, work->text, &model, error));
  const Status status = model_evaluate(model, &batch, work->logits, error);
  model_destroy(model);
  return status;
}

/* A text of several blocks with a window: whole blocks fall out of sight and are used again, also by the next
 * text. */
static void test_window_over_blocks(void **state) {
  (void)state;
  TextCase text = {.config = llama_config(2, 2, 1, 8, true),
                   .length = 4 * KV_BLOCK + 100,
                   .loss_chunk = 256,
                   .chunk = 500,
                   .first_piece = 2 * KV_BLOCK + 30,
                   .piece = 377,
                   .again = true};
  Error error = {0};
  text.config.sliding_window = 300;
  const int64_t vocab = text.config.vocab_size;
  TextCase longer = text;
  longer.length++;
  int32_t *tokens = draw_tokens(&longer);
  Work decoded = {.text = &text, .tokens = tokens, .logits = zeroed(text.length * vocab, sizeof(float))};
  Work evaluated = {.text = &text, .tokens = tokens, .logits = zeroed(text.length, sizeof(float))};
  expect_ok(run_alone(2, decode_rank, &decoded, &error), &error);
  expect_ok(run_alone(2, evaluate_rank, &evaluated, &error), &error);
  double worst = 0.0;
  for (int64_t t = 0; t < text.length; t++) {
    const double nll = nll_of(vocab, decoded.logits + t * vocab, tokens[t + 1]);
    worst = fmax(worst, fabs(nll - (double)evaluated.logits[t]));
  }
  check_within("nll of a token with a window over blocks", worst, 1e-5);
  free(decoded.logits);
  free(evaluated.logits);
  free(tokens);
}

/* Memory follows what can be seen: whole blocks of the text, or as many as a window and a chunk touch. */
static void test_blocks(void **state) {
  (void)state;
  const AttentionDims dims = {.heads = 1, .kv_heads = 1, .head_dim = 8, .scale = 1.0F};
  const struct {
    int64_t most, kept, blocks;
  } cases[] = {
      {1, 1, 1},
      {KV_BLOCK, KV_BLOCK, 1},
      {KV_BLOCK + 1, KV_BLOCK + 1, 2},
      {10 * KV_BLOCK, 10 * KV_BLOCK, 10},
      {10 * KV_BLOCK, 1, 1},
      {10 * KV_BLOCK, 2, 2},
      {10 * KV_BLOCK, KV_BLOCK + 1, 2},
      {10 * KV_BLOCK, KV_BLOCK + 2, 3},
      {INT64_C(1) << 40, 2 * KV_BLOCK, 3},
  };
  Error error = {0};
  Device *device = NULL;
  expect_ok(cpu_device_create(1, ELEMENT_F32, &device, &error), &error);
  const size_t tail = 2 * KV_BLOCK * 2 * 8 * sizeof(float);
  const KvCacheOptions one = {.dims = dims, .layers = 2, .most_tokens = 1, .kept = 1};
  const size_t block = kv_cache_bytes(&device->ops, &one) - tail;
  assert_true(block >= tail);
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    const KvCacheOptions options = {
        .dims = dims, .layers = 2, .most_tokens = cases[i].most, .kept = cases[i].kept};
    assert_int_equal(kv_cache_bytes(&device->ops, &options), (size_t)cases[i].blocks * block + tail);
  }
  const KvCacheOptions all = {.dims = dims, .layers = 2, .most_tokens = INT64_MAX, .kept = INT64_MAX};
  assert_true(kv_cache_bytes(&device->ops, &all) == ARENA_TOO_LARGE);
  device_destroy(device);
}

/* Scaled positions. Dynamic scaling goes by the whole text from its first token on, whatever was seen of it:
 * the reference computes all of it at once. */
static void test_rope_scaling(void **state) {
  (void)state;
  TextCase text = {.config = llama_config(2, 2, 1, 16, true), .length = 75, .loss_chunk = 20};
  text.config.max_position_embeddings = 20;
  text.config.rope_scaling = dynamic_scaling;
  check_text("dynamic", &text, short_cuts, sizeof short_cuts / sizeof short_cuts[0]);
  text.config.rope_scaling = (RopeScaling){.rope_type = ROPE_YARN,
                                           .factor = 4,
                                           .original_max_position_embeddings = 20,
                                           .beta_fast = 2,
                                           .beta_slow = 0.1,
                                           .attention_factor = 1.4};
  check_text("yarn", &text, short_cuts, sizeof short_cuts / sizeof short_cuts[0]);
}

/* ---------------------------------------------------------------- reset and errors */

/* Behind a piece of several chunks, the logits are those of its last token. */
static Status check_last_logits(Decoder *decoder, const Work *work, Error *error) {
  const int64_t vocab = work->text->config.vocab_size;
  const int64_t count = work->text->first_piece;
  float logits[64];
  decoder_reset(decoder);
  TRY(decoder_append(decoder, count, work->tokens, logits, error));
  for (int64_t v = 0; v < vocab; v++) {
    const double expected = (double)work->logits[(count - 1) * vocab + v];
    check_within("logits behind a piece", fabs((double)logits[v] - expected), 1e-5);
  }
  return STATUS_OK;
}

/* The same text again gives the same bits, also with other work of the model before and in between, which
 * gives the same bits too. */
static Status reset_rank(TestRank *rank, void *context, Error *error) {
  Work *work = context;
  const TextCase *text = work->text;
  const size_t bytes = (size_t)(text->length * text->config.vocab_size) * sizeof(float);
  const DecoderOptions options = {.most_tokens = text->length, .chunk = text->chunk};
  const ModelBatch batch = {
      .sequences = 2, .sequence_length = 30, .tokens = work->tokens, .targets = work->tokens};
  float before[60];
  float nll[60];
  Model *model = NULL;
  Decoder *decoder = NULL;
  Status status = STATUS_OK;
  float *first = zeroed(text->length * text->config.vocab_size, sizeof(float));
  TRY_GOTO(create_model(rank, text, &model, error), done);
  TRY_GOTO(model_evaluate(model, &batch, before, error), done);
  TRY_GOTO(decoder_create(model, &options, &decoder, error), done);
  TRY_GOTO(append_pieces(decoder, work, error), done);
  memcpy(first, work->logits, bytes);
  decoder_reset(decoder);
  assert_int_equal(decoder_length(decoder), 0);
  memset(work->logits, 0, bytes);
  TRY_GOTO(decoder_append_visit(decoder, 40, work->tokens, collect, work, error), done);
  TRY_GOTO(model_evaluate(model, &batch, nll, error), done);
  assert_memory_equal(nll, before, sizeof nll);
  decoder_reset(decoder);
  TRY_GOTO(append_pieces(decoder, work, error), done);
  assert_memory_equal(first, work->logits, bytes);
  TRY_GOTO(check_last_logits(decoder, work, error), done);
done:
  free(first);
  decoder_destroy(decoder);
  model_destroy(model);
  return status;
}

static void check_reset(const TextCase *text) {
  Error error = {0};
  int32_t *tokens = draw_tokens(text);
  Work work = {.text = text,
               .tokens = tokens,
               .logits = zeroed(text->length * text->config.vocab_size, sizeof(float))};
  double *expected = reference_logits(text, tokens);
  expect_ok(run_alone(1, reset_rank, &work, &error), &error);
  check_within("logits behind other work",
               largest_error(text->length * text->config.vocab_size, work.logits, expected), 1e-5);
  free(expected);
  free(work.logits);
  free(tokens);
}

static void test_reset(void **state) {
  (void)state;
  TextCase text = {.config = gpt2_config(2, 2, 8),
                   .length = 90,
                   .loss_chunk = 16,
                   .chunk = 20,
                   .first_piece = 70,
                   .piece = 1};
  check_reset(&text);
  /* The work in between is on shorter sequences, with other frequencies. */
  text.config = llama_config(2, 2, 2, 8, true);
  text.config.max_position_embeddings = 20;
  text.config.rope_scaling = dynamic_scaling;
  check_reset(&text);
}

static Status refuse(void *context, int64_t first, int64_t count, const float *logits, Error *error) {
  (void)context;
  (void)first;
  (void)count;
  (void)logits;
  return fail(error, STATUS_STOPPED, "enough");
}

static void expect_refusals(Decoder *decoder, int64_t vocab) {
  Error error = {0};
  float logits[64];
  const int32_t bad[3] = {1, 2, (int32_t)vocab};
  const int32_t negative[3] = {1, -1, 2};
  const int32_t good[12] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
  expect_ok(decoder_append(decoder, 4, good, NULL, &error), &error);
  expect_error(decoder_append(decoder, 3, bad, logits, &error), &error, STATUS_DATA, "token 61",
               "position 6");
  expect_error(decoder_append(decoder, 3, negative, logits, &error), &error, STATUS_DATA, "token -1",
               "position 5");
  expect_error(decoder_append(decoder, 7, good, logits, &error), &error, STATUS_CONFIG, "11 tokens", "10");
  expect_error(decoder_append_visit(decoder, 7, good, refuse, NULL, &error), &error, STATUS_CONFIG,
               "11 tokens");
  expect_error(decoder_append(decoder, 0, good, logits, &error), &error, STATUS_CONFIG, "at least one");
  assert_int_equal(decoder_length(decoder), 4);
  expect_error(decoder_append_visit(decoder, 6, good, refuse, NULL, &error), &error, STATUS_STOPPED,
               "enough");
  expect_ok(decoder_append(decoder, 0, NULL, NULL, &error), &error);
}

static Status refusals_rank(TestRank *rank, void *context, Error *error) {
  const TextCase *text = context;
  Error refused = {0};
  Model *model = NULL;
  Decoder *decoder = NULL;
  TRY(create_model(rank, text, &model, error));
  DecoderOptions options = {.most_tokens = 10, .chunk = 0};
  expect_error(decoder_create(model, &options, &decoder, &refused), &refused, STATUS_CONFIG, "chunks of 0");
  options = (DecoderOptions){.most_tokens = text->config.max_position_embeddings + 1, .chunk = 4};
  expect_error(decoder_create(model, &options, &decoder, &refused), &refused, STATUS_CONFIG,
               "max_position_embeddings");
  assert_null(decoder);
  options.most_tokens = 10;
  expect_ok(decoder_create(model, &options, &decoder, &refused), &refused);
  expect_refusals(decoder, text->config.vocab_size);
  decoder_destroy(decoder);
  model_destroy(model);
  return STATUS_OK;
}

static void test_refusals(void **state) {
  (void)state;
  TextCase text = {.config = gpt2_config(1, 2, 8), .length = 10, .loss_chunk = 16, .chunk = 4};
  Error error = {0};
  Work work = {.text = &text};
  expect_ok(run_alone(1, refusals_rank, &text, &error), &error);
  expect_error(run_ranks(2, 1, 1, decode_rank, &work, &error), &error, STATUS_CONFIG, "ring of 2");
  decoder_destroy(NULL);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_gpt2),
      cmocka_unit_test(test_llama),
      cmocka_unit_test(test_llama_tied_window),
      cmocka_unit_test(test_more_than_a_block),
      cmocka_unit_test(test_window_over_blocks),
      cmocka_unit_test(test_blocks),
      cmocka_unit_test(test_rope_scaling),
      cmocka_unit_test(test_reset),
      cmocka_unit_test(test_refusals),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
