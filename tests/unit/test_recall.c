/* Generated sequences of key-value recall: what they are made of, that every cut and every grid has the same,
 * how many questions another rank must answer, and training on them, on grids and across a resume. */
#include "data/recall.h"

#include <stdlib.h>
#include <string.h>

#include "data/loader.h"
#include "kernels/ops.h"
#include "tests/support/expect.h"
#include "tests/support/grids.h"
#include "tests/support/temp_dir.h"
#include "tests/support/training.h"
#include "tests/support/unit.h"

enum { VOCAB = 512, KEYS = 255, FIRST_VALUE = 256 };

static RecallOptions make_options(void) {
  return (RecallOptions){.vocab_size = VOCAB, .pairs = 64, .queries = 0.25, .seed = 3};
}

/* A whole sequence. */
typedef struct Whole {
  RecallSequence sequence;
  int32_t *tokens;  /* (T) */
  int32_t *targets; /* (T) */
} Whole;

static Whole make_whole(const RecallOptions *options, int64_t index, int64_t length) {
  const size_t bytes = (size_t)length * sizeof(int32_t);
  Whole whole = {
      .sequence = recall_sequence(options, index, length), .tokens = malloc(bytes), .targets = malloc(bytes)};
  assert_true(whole.tokens != NULL && whole.targets != NULL);
  recall_fill(&whole.sequence, 0, length, whole.tokens, whole.targets);
  return whole;
}

static void free_whole(Whole *whole) {
  free(whole->tokens);
  free(whole->targets);
}

/* ---------------------------------------------------------------- one sequence */

/* Keys differ, and tokens are of their kinds. */
static void check_pairs(const Whole *whole) {
  bool seen[VOCAB] = {false};
  for (int64_t i = 0; i < whole->sequence.pairs; i++) {
    const int32_t key = whole->tokens[2 * i];
    const int32_t value = whole->tokens[2 * i + 1];
    assert_in_range(key, 1, KEYS);
    assert_in_range(value, FIRST_VALUE, VOCAB - 1);
    assert_false(seen[key]);
    seen[key] = true;
    assert_int_equal(whole->targets[2 * i], IGNORED_TARGET);
    assert_int_equal(whole->targets[2 * i + 1], IGNORED_TARGET);
  }
}

/* The value behind a key, by reading the pairs. */
static int32_t look_up(const Whole *whole, int32_t key) {
  for (int64_t i = 0; i < whole->sequence.pairs; i++) {
    if (whole->tokens[2 * i] == key) return whole->tokens[2 * i + 1];
  }
  fail_msg("key %d is in no pair", (int)key);
  return 0;
}

/* Every question has the answer that the pairs give, and nothing else has a target: returns the questions. */
static int64_t check_questions(const Whole *whole) {
  int64_t questions = 0;
  for (int64_t p = 2 * whole->sequence.pairs; p < whole->sequence.length; p++) {
    const int64_t asked = recall_asked(&whole->sequence, p);
    assert_true((asked >= 0) == (whole->tokens[p] != 0));
    if (whole->tokens[p] == 0) {
      assert_int_equal(whole->targets[p], IGNORED_TARGET);
      continue;
    }
    assert_int_equal(whole->targets[p], look_up(whole, whole->tokens[p]));
    assert_int_equal(whole->tokens[p], whole->tokens[2 * asked]);
    questions++;
  }
  return questions;
}

static void test_sequence(void **state) {
  (void)state;
  const RecallOptions options = make_options();
  static const struct {
    int64_t length, pairs;
  } cases[] = {{8, 1}, {15, 1}, {128, 16}, {511, 63}, {512, 64}, {8192, 64}};
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    Whole whole = make_whole(&options, 7, cases[i].length);
    assert_int_equal(whole.sequence.pairs, cases[i].pairs);
    check_pairs(&whole);
    const int64_t questions = check_questions(&whole);
    if (cases[i].length == 8192) assert_in_range(questions, 8064 / 4 - 160, 8064 / 4 + 160);
    free_whole(&whole);
  }
}

/* All positions ask, and all keys are used, where that is asked for. */
static void test_extremes(void **state) {
  (void)state;
  const RecallOptions options = {.vocab_size = 9, .pairs = recall_keys(9), .queries = 1, .seed = 5};
  Whole whole = make_whole(&options, 0, 64);
  assert_int_equal(whole.sequence.pairs, 3);
  for (int64_t p = 0; p < 64; p++) {
    assert_true(p < 6 ? whole.tokens[p] > 0 : (whole.tokens[p] >= 1 && whole.tokens[p] < 4));
    if (p >= 6) assert_in_range(whole.targets[p], 4, 8);
  }
  free_whole(&whole);
}

/* The same again, other ones for another number, seed or length. */
static void test_numbers(void **state) {
  (void)state;
  const RecallOptions options = make_options();
  RecallOptions other_seed = options;
  other_seed.seed = 4;
  const size_t bytes = 256 * sizeof(int32_t);
  Whole whole = make_whole(&options, 7, 256);
  Whole all[] = {make_whole(&options, 7, 256), make_whole(&options, 8, 256), make_whole(&other_seed, 7, 256),
                 make_whole(&options, 7, 257), make_whole(&options, RECALL_HELD_OUT + 7, 256)};
  assert_memory_equal(all[0].tokens, whole.tokens, bytes);
  assert_memory_equal(all[0].targets, whole.targets, bytes);
  for (size_t i = 1; i < sizeof all / sizeof all[0]; i++) {
    int64_t same = 0;
    for (int64_t p = 0; p < 64; p++) same += all[i].tokens[p] == whole.tokens[p];
    assert_in_range(same, 0, 8);
  }
  for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) free_whole(&all[i]);
  free_whole(&whole);
}

/* Any cut is the same, and behind the end lies padding. */
static void test_cuts(void **state) {
  (void)state;
  const RecallOptions options = make_options();
  Whole whole = make_whole(&options, 1, 1000);
  for (int64_t start = 0; start < 1000; start += 37) {
    int32_t tokens[37];
    int32_t targets[37];
    recall_fill(&whole.sequence, start, 37, tokens, targets);
    for (int64_t i = 0; i < 37; i++) {
      const int64_t p = start + i;
      assert_int_equal(tokens[i], p < 1000 ? whole.tokens[p] : 0);
      assert_int_equal(targets[i], p < 1000 ? whole.targets[p] : IGNORED_TARGET);
    }
  }
  free_whole(&whole);
}

/* ---------------------------------------------------------------- rings */

/* Of the questions of a sequence cut in zigzag over four ranks, the share that none of the asking rank's own
 * tokens answers. */
static double remote_share(const Whole *whole) {
  int64_t asked = 0;
  int64_t remote = 0;
  for (int rank = 0; rank < 4; rank++) {
    const Layout layout = layout_zigzag(whole->sequence.length, 4);
    for (Run run = {0}; layout_next_run(&layout, 0, rank, &run);) {
      for (int64_t p = run.start; p < run.start + run.length; p++) {
        const int64_t pair = p < whole->sequence.length ? recall_asked(&whole->sequence, p) : -1;
        if (pair < 0) continue;
        bool own = false;
        for (Run held = {0}; layout_next_run(&layout, 0, rank, &held);) {
          const int64_t place = 2 * pair + 1 - held.start;
          own = own || (place >= 0 && place < held.length);
        }
        asked++;
        remote += own ? 0 : 1;
      }
    }
  }
  return (double)remote / (double)asked;
}

static void test_remote(void **state) {
  (void)state;
  const RecallOptions options = make_options();
  static const int64_t lengths[] = {128, 256, 512, 1000, 2048, 8192, 32768};
  for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
    double share = 0;
    for (int64_t index = 0; index < 8; index++) {
      Whole whole = make_whole(&options, index, lengths[i]);
      share += remote_share(&whole) / 8;
      free_whole(&whole);
    }
    if (share < 0.6) fail_msg("length %lld: %.3f of the questions", (long long)lengths[i], share);
  }
}

/* The loader's options for a rank of a grid. */
static LoaderOptions loader_options(int ring_rank, int ring, int data_rank, int data, int64_t first) {
  return (LoaderOptions){.pattern = "",
                         .vocab_size = VOCAB,
                         .end_of_document = -1,
                         .sequence_length = 100,
                         .micro_batch = 2,
                         .ring_rank = ring_rank,
                         .ring_size = ring,
                         .data_rank = data_rank,
                         .data_size = data,
                         .first_sample = first,
                         .shuffle = true,
                         .recall = make_options(),
                         .read_ahead = 2};
}

/* Compares a rank's batch with the sequences of its draws. */
static void check_batch(const Batch *batch, int ring_rank, int64_t first) {
  const RecallOptions options = make_options();
  const int32_t *tokens = batch->tokens;
  const int32_t *targets = batch->targets;
  assert_int_equal(batch->first_draw, first);
  assert_null(batch->document_marks);
  for (int64_t b = 0; b < batch->sequences; b++) {
    Whole whole = make_whole(&options, first + b, 100);
    assert_int_equal(batch->samples[b], first + b);
    for (Run run = {0}; layout_next_run(&batch->layout, b, ring_rank, &run);) {
      for (int64_t p = run.start; p < run.start + run.length; p++, tokens++, targets++) {
        assert_int_equal(*tokens, p < 100 ? whole.tokens[p] : 0);
        assert_int_equal(*targets, p < 100 ? whole.targets[p] : IGNORED_TARGET);
      }
    }
    free_whole(&whole);
  }
}

/* Every grid draws the same, and goes on anywhere. */
static void test_loader(void **state) {
  (void)state;
  static const int grids[][2] = {{1, 1}, {4, 1}, {3, 2}, {1, 3}};
  for (size_t g = 0; g < sizeof grids / sizeof grids[0]; g++) {
    for (int rank = 0; rank < grids[g][0] * grids[g][1]; rank++) {
      const int data_rank = rank / grids[g][0];
      const LoaderOptions options =
          loader_options(rank % grids[g][0], grids[g][0], data_rank, grids[g][1], 5);
      Error error = {0};
      Loader *loader = NULL;
      expect_ok(loader_open(&options, &loader, &error), &error);
      assert_true(loader_samples(loader) == INT64_MAX);
      for (int64_t step = 0; step < 3; step++) {
        const Batch *batch = NULL;
        expect_ok(loader_next(loader, &batch, &error), &error);
        check_batch(batch, options.ring_rank, 5 + (step * grids[g][1] + data_rank) * 2);
      }
      loader_close(loader);
    }
  }
}

/* ---------------------------------------------------------------- training */

#define GENERATED                                                                                            \
  "data.generate=mqar", "data.train=", "data.val=", "data.document_mask=false", "data.mqar_pairs=8"

static void test_grids(void **state) {
  const GridCase cases[] = {{.ring = 2, .data = 1}, {.ring = 4, .data = 1}, {.ring = 2, .data = 2}};
  const char *const overrides[] = {GENERATED, "train.sequence_schedule={0: 32, 6: 128}", NULL};
  grids_compare(training_directory(state), "generated", overrides, cases, 3);
}

/* A run that is cut in two gives the bits of one that is not. */
static void test_resume(void **state) {
  const char *const whole[] = {GENERATED,
                               "train.sequence_schedule={0: 32, 6: 128}",
                               "scheduler.name=constant",
                               "scheduler.warmup_steps=2",
                               "train.steps=12",
                               NULL};
  const char *const half[] = {GENERATED,
                              "train.sequence_schedule={0: 32, 6: 128}",
                              "scheduler.name=constant",
                              "scheduler.warmup_steps=2",
                              "train.steps=8",
                              NULL};
  const Config a = training_config(training_directory(state), "at-once", whole);
  const Config first = training_config(training_directory(state), "in-two", half);
  const Config b = training_config(training_directory(state), "in-two", whole);
  (void)training_metrics(&a);
  (void)training_metrics(&first);
  (void)training_metrics(&b);
  training_same_state(&a, &b, 12);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_sequence), cmocka_unit_test(test_extremes), cmocka_unit_test(test_numbers),
      cmocka_unit_test(test_cuts),     cmocka_unit_test(test_remote),   cmocka_unit_test(test_loader),
      cmocka_unit_test(test_grids),    cmocka_unit_test(test_resume),
  };
  return cmocka_run_group_tests(tests, training_set_up, temp_dir_tear_down);
}
