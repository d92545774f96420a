/* The modes of evaluation against the plain computation: window by window as the conventions say, each window
 * by the float64 model, on every grid. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/dataset.h"
#include "model/params.h"
#include "tests/support/compare.h"
#include "tests/support/expect.h"
#include "tests/support/gpt_case.h"
#include "tests/support/shards.h"
#include "tests/support/temp_dir.h"
#include "tests/support/training.h"
#include "tests/support/unit.h"
#include "train/grid.h"
#include "train/perplexity.h"

enum { SET_TOKENS = 163, VOCABULARY = 61, END_OF_DOCUMENT = 7, MOST_CONTEXT = 64, MOST_RANKS = 8 };

/* ---------------------------------------------------------------- ours */

typedef struct Ours {
  const Config *config;
  Perplexity result;            /* written by world rank 0 */
  int64_t pairs;                /* what rank 0 counted in its last window, */
  int64_t pairs_due;            /* and what it expected */
  int64_t pairs_of[MOST_RANKS]; /* what each rank counted in its last window */
  double part;                  /* of the work that it took for done in the end */
} Ours;

static Status evaluate_rank(Rank *rank, void *context, Error *error) {
  Ours *ours = context;
  const Config *config = ours->config;
  const ModelOptions options = {.config = config->model, .loss_chunk = 16};
  PerplexityTask task = {.pattern = config->data.val, .end_of_document = END_OF_DOCUMENT};
  EvalWatch watch;
  Model *model = NULL;
  Perplexity result;
  TRY(perplexity_plan(config, task.pattern, config->eval.contexts.values[0], &task.windows, error));
  TRY(model_create(rank->device, rank->ring, &options, &model, error));
  gpt_case_weights(model_table(model), model_weights(model));
  eval_watch_begin(&watch, rank, NULL,
                   perplexity_work(model, &config->model, &task.windows, rank->data_size));
  task.watch = &watch;
  const Status status = perplexity_run(config, rank, model, &task, &result, error);
  eval_watch_end(&watch);
  if (status != STATUS_OK) comm_abort(rank->world, error);
  ours->pairs_of[rank->world->rank] = watch.pairs;
  if (status == STATUS_OK && rank->world->rank == 0) {
    ours->result = result;
    ours->pairs = watch.pairs;
    ours->pairs_due = watch.pairs_due;
    ours->part = watch.done / watch.total;
  }
  model_destroy(model);
  return status;
}

/* ---------------------------------------------------------------- the plain computation */

typedef struct Plain {
  const Config *config;
  const int32_t *tokens; /* of the set */
  Gpt64 *model;
  Perplexity sums;
} Plain;

static void add(PerplexityBucket *bucket, double nll) {
  bucket->tokens += 1;
  bucket->nll += nll;
  bucket->squares += nll * nll;
}

/* Scores tokens [first_target, end) given those from `begin` on. */
static void score(Plain *plain, int64_t begin, int64_t end, int64_t first_target) {
  const int32_t *tokens = plain->tokens + begin;
  const int64_t length = end - begin - 1; /* positions that have a target */
  int64_t first_key[MOST_CONTEXT];
  double nll[MOST_CONTEXT];
  if (length == 0) return;
  assert_in_range(length, 1, MOST_CONTEXT);
  gpt64_document_starts(length, tokens, END_OF_DOCUMENT, first_key);
  const int64_t *mask = plain->config->data.document_mask ? first_key : NULL;
  assert_true(gpt64_loss(plain->model, tokens, tokens + 1, mask, length, 1.0, nll, false) > 0.0);
  for (int64_t target = first_target; target < end; target++) {
    const int64_t position = target - 1 - begin;
    if (position < 0) continue;
    add(&plain->sums.total, nll[position]);
    add(&plain->sums.buckets[position == 0 ? 0 : 1 + (int)floor(log2((double)position))], nll[position]);
  }
}

static int64_t smaller(int64_t a, int64_t b) {
  return a < b ? a : b;
}

/* The tokens of a set that eval.tokens leaves, at least those of one window. */
static int64_t limit(const Config *config) {
  const int64_t context = config->eval.contexts.values[0];
  if (config->eval.tokens == 0) return SET_TOKENS;
  return smaller(SET_TOKENS, config->eval.tokens > context ? config->eval.tokens : context);
}

static void run_full(Plain *plain) {
  const int64_t context = plain->config->eval.contexts.values[0];
  int64_t begin = 0;
  for (; begin + context <= limit(plain->config) && begin + context < SET_TOKENS; begin += context) {
    score(plain, begin, begin + context + 1, begin + 1);
  }
}

/* As in the documentation of transformers, "Perplexity of fixed-length models". */
static void run_strided(Plain *plain) {
  const int64_t context = plain->config->eval.contexts.values[0];
  const int64_t stride = plain->config->eval.stride == 0 ? context / 2 : plain->config->eval.stride;
  const int64_t length = limit(plain->config);
  int64_t previous_end = 0;
  for (int64_t begin = 0; begin < length; begin += stride) {
    const int64_t end = smaller(begin + context, length);
    score(plain, begin, end, previous_end);
    previous_end = end;
    if (end == length) break;
  }
}

/* As llama.cpp's perplexity tool. */
static void run_llama_cpp(Plain *plain) {
  const int64_t context = plain->config->eval.contexts.values[0];
  for (int64_t i = 0; i < limit(plain->config) / context; i++) {
    const int64_t begin = i * context;
    score(plain, begin, begin + context, begin + context / 2 + 1);
  }
}

static Perplexity plain_computation(const Config *config, const int32_t *tokens) {
  TensorTable table;
  ParamPlaces places;
  Error error = {0};
  expect_ok(params_build(&config->model, &table, &places, &error), &error);
  float *weights = malloc((size_t)table.total * sizeof *weights);
  assert_non_null(weights);
  gpt_case_weights(&table, weights);
  Plain plain = {
      .config = config, .tokens = tokens, .model = gpt_case_model(&config->model, &table, weights)};
  assert_non_null(plain.model);
  if (config->eval.mode == EVAL_FULL) run_full(&plain);
  if (config->eval.mode == EVAL_STRIDED) run_strided(&plain);
  if (config->eval.mode == EVAL_LLAMA_CPP) run_llama_cpp(&plain);
  gpt64_free(plain.model);
  free(weights);
  params_free(&table, &places);
  return plain.sums;
}

/* ---------------------------------------------------------------- comparing */

static void check_bucket(const char *what, const PerplexityBucket *got, const PerplexityBucket *expected) {
  assert_int_equal(got->tokens, expected->tokens);
  if (expected->tokens == 0) return;
  check_within(what, fabs(got->nll - expected->nll) / expected->nll, 1e-6);
  check_within(what, fabs(got->squares - expected->squares) / expected->squares, 2e-6);
}

static void check_result(const char *what, const Perplexity *got, const Perplexity *expected) {
  assert_true(expected->total.tokens > 0);
  check_bucket(what, &got->total, &expected->total);
  for (int i = 0; i < PERPLEXITY_BUCKETS; i++) check_bucket(what, &got->buckets[i], &expected->buckets[i]);
}

typedef struct Case {
  const char *mode;
  const char *context;
  const char *stride;
  const char *tokens;
  const char *mask;
} Case;

static Config config_of(const char *directory, const Case *test, const char *ring, const char *data) {
  char path[CONFIG_TEXT_BYTES];
  (void)snprintf(path, sizeof path, "data.val=%s/odd.bin", directory);
  const char *const overrides[] = {path,
                                   test->mode,
                                   test->context,
                                   test->stride,
                                   test->tokens,
                                   test->mask,
                                   ring,
                                   data,
                                   "model.vocab_size=61",
                                   "train.micro_batch_size=1",
                                   "model.hidden_size=32",
                                   "model.intermediate_size=48",
                                   "data.end_of_document=7",
                                   NULL};
  return training_config(directory, "modes", overrides);
}

/* The balance that is told is that of the pairs which the ranks counted; `ours` knows those of one window. */
static void check_balance(const Config *config, const Ours *ours) {
  const int64_t ranks = config->parallelism.ring;
  int64_t most = 0;
  int64_t all = 0;
  assert_true(ours->result.balance >= 1.0 && ours->result.balance <= (double)ranks);
  if (ours->result.windows.count > 1 || config->parallelism.data > 1) return;
  for (int64_t r = 0; r < ranks; r++) {
    all += ours->pairs_of[r];
    if (ours->pairs_of[r] > most) most = ours->pairs_of[r];
  }
  check_within("balance", fabs(ours->result.balance - (double)(most * ranks) / (double)all), 1e-12);
}

static void check_case(const char *directory, const int32_t *tokens, const Case *test) {
  static const char *const grids[][2] = {{"parallelism.ring=1", "parallelism.data=1"},
                                         {"parallelism.ring=2", "parallelism.data=1"},
                                         {"parallelism.ring=3", "parallelism.data=2"},
                                         {"parallelism.ring=1", "parallelism.data=4"}};
  const Config one = config_of(directory, test, grids[0][0], grids[0][1]);
  const Perplexity expected = plain_computation(&one, tokens);
  for (size_t i = 0; i < sizeof grids / sizeof grids[0]; i++) {
    const Config config = config_of(directory, test, grids[i][0], grids[i][1]);
    Ours ours = {.config = &config};
    Error error = {0};
    char what[256];
    (void)snprintf(what, sizeof what, "%s %s %s %s %s", test->mode, test->context, test->stride, grids[i][0],
                   grids[i][1]);
    expect_ok(grid_run(&config, NULL, evaluate_rank, &ours, &error), &error);
    check_result(what, &ours.result, &expected);
    assert_int_equal(ours.pairs, ours.pairs_due);
    assert_true(ours.pairs > 0);
    check_within("work", fabs(ours.part - 1.0), 1e-12);
    check_balance(&config, &ours);
  }
}

static void test_modes(void **state) {
  const char *const mask = "data.document_mask=true";
  const char *const open = "data.document_mask=false";
  const Case cases[] = {
      /* 163 tokens: 4 windows and 3 tokens, 2 of them and the end of the set as the last target, one. */
      {"eval.mode=full", "eval.contexts=[40]", "eval.stride=0", "eval.tokens=0", mask},
      {"eval.mode=full", "eval.contexts=[60]", "eval.stride=0", "eval.tokens=5", mask},
      {"eval.mode=full", "eval.contexts=[54]", "eval.stride=0", "eval.tokens=0", open},
      {"eval.mode=full", "eval.contexts=[40]", "eval.stride=0", "eval.tokens=119", open},
      {"eval.mode=full", "eval.contexts=[40]", "eval.stride=0", "eval.tokens=5", open},
      /* Strides that divide and not, of a token and of the whole window; a last window of few new tokens. */
      {"eval.mode=strided", "eval.contexts=[40]", "eval.stride=13", "eval.tokens=0", mask},
      {"eval.mode=strided", "eval.contexts=[40]", "eval.stride=20", "eval.tokens=0", open},
      {"eval.mode=strided", "eval.contexts=[41]", "eval.stride=0", "eval.tokens=0", open},
      {"eval.mode=strided", "eval.contexts=[40]", "eval.stride=40", "eval.tokens=0", mask},
      {"eval.mode=strided", "eval.contexts=[40]", "eval.stride=39", "eval.tokens=118", open},
      {"eval.mode=strided", "eval.contexts=[40]", "eval.stride=39", "eval.tokens=119", open},
      {"eval.mode=strided", "eval.contexts=[40]", "eval.stride=40", "eval.tokens=121", open},
      {"eval.mode=strided", "eval.contexts=[23]", "eval.stride=1", "eval.tokens=47", open},
      {"eval.mode=strided", "eval.contexts=[40]", "eval.stride=7", "eval.tokens=5", open},
      {"eval.mode=strided", "eval.contexts=[2]", "eval.stride=0", "eval.tokens=9", open},
      /* An even and an odd half; the smallest window; a set that ends with a window, and one token later. */
      {"eval.mode=llama.cpp", "eval.contexts=[40]", "eval.stride=0", "eval.tokens=0", mask},
      {"eval.mode=llama.cpp", "eval.contexts=[41]", "eval.stride=0", "eval.tokens=0", open},
      {"eval.mode=llama.cpp", "eval.contexts=[3]", "eval.stride=0", "eval.tokens=10", open},
      {"eval.mode=llama.cpp", "eval.contexts=[40]", "eval.stride=0", "eval.tokens=120", open},
      {"eval.mode=llama.cpp", "eval.contexts=[40]", "eval.stride=0", "eval.tokens=121", open},
  };
  const char *directory = training_directory(state);
  char *path = training_path(directory, "odd.bin");
  int32_t *tokens = shards_tokens(SET_TOKENS, VOCABULARY);
  for (int64_t i = 11; i < SET_TOKENS; i += 29) tokens[i] = END_OF_DOCUMENT;
  shards_write(path, FORM_PLAIN, tokens, SET_TOKENS, 2);
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) check_case(directory, tokens, &cases[i]);
  free(tokens);
  free(path);
}

/* ---------------------------------------------------------------- what is refused */

static void check_plan(const char *mode, int64_t available, Status expected, int64_t count) {
  const EvalMode modes[] = {EVAL_FULL, EVAL_STRIDED, EVAL_LLAMA_CPP};
  const EvalConfig eval = {.mode = modes[mode[0] == 'f' ? 0 : mode[0] == 's' ? 1 : 2], .stride = 0};
  Windows windows;
  Error error = {0};
  assert_int_equal(windows_plan(&eval, 16, available, "a set", &windows, &error), expected);
  if (expected == STATUS_OK) {
    assert_int_equal(windows.count, count);
    return;
  }
  assert_non_null(strstr(error.text, "a set: holds "));
  assert_non_null(strstr(error.text, "too few for a window of 16"));
}

static void test_short_sets(void **state) {
  (void)state;
  check_plan("full", 16, STATUS_DATA, 0);
  check_plan("full", 17, STATUS_OK, 1);
  check_plan("strided", 15, STATUS_DATA, 0);
  check_plan("strided", 16, STATUS_OK, 1);
  check_plan("strided", 17, STATUS_OK, 2);
  check_plan("llama.cpp", 15, STATUS_DATA, 0);
  check_plan("llama.cpp", 16, STATUS_OK, 1);
  check_plan("llama.cpp", 31, STATUS_OK, 1);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_modes),
      cmocka_unit_test(test_short_sets),
  };
  return cmocka_run_group_tests(tests, training_set_up, temp_dir_tear_down);
}
