/* Dropout: every implementation against a Philox of the test's own, element by element; how often elements
 * are kept, and that masks of different keys and rows have nothing to do with each other. */
#include <math.h>
#include <stdint.h>

#include "model/dropout.h"
#include "tests/reference/dropout64.h"
#include "tests/support/ops_check.h"
#include "tests/support/unit.h"

/* Nothing, the usual, nearly all; 1 - 2^-50 rounds to a threshold of 2^32, which does not exist. */
static const double probabilities[] = {0.0, 0x1p-32, 0.1, 0.5, 0.9, 1.0 - 0x1p-20, 1.0 - 0x1p-50};
#define PROBABILITIES (sizeof probabilities / sizeof probabilities[0])

/* Answers that Random123, the program of the generator's authors, gives as its tests (kat_vectors). */
static void test_philox_of_the_reference(void **state) {
  (void)state;
  static const uint32_t answers[3][10] = {
      {0, 0, 0, 0, 0, 0, 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8},
      {UINT32_MAX, UINT32_MAX, UINT32_MAX, UINT32_MAX, UINT32_MAX, UINT32_MAX, 0x408f276d, 0x41c83b0e,
       0xa20bc7c6, 0x6d5451fd},
      {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344, 0xa4093822, 0x299f31d0, 0xd16cfe09, 0x94fdcceb,
       0x5001e420, 0x24126ea1},
  };
  for (int i = 0; i < 3; i++) {
    uint32_t words[4];
    ref_philox(answers[i], answers[i] + 4, words);
    assert_memory_equal(words, answers[i] + 6, sizeof words);
  }
}

/* Numbers of rows in no order, some so large that the number of the block does not fit in 32 bits. */
static const int64_t *random_rows(OpsRun *run, int64_t n) {
  int64_t *rows = ops_bytes(run, (size_t)n * sizeof *rows);
  for (int64_t i = 0; i < n; i++) rows[i] = random_below(&run->random, i % 2 == 0 ? 1000 : (int64_t)1 << 46);
  return rows;
}

/* Kept elements are the scale times x in float, rounded once to the elements; the others are 0 even where x
 * is not a number. */
static void check_dropout(OpsRun *run, int64_t n, int64_t c, const int64_t *rows, double p) {
  const uint64_t seed = random_bits(&run->random);
  const uint32_t place = (uint32_t)random_bits(&run->random);
  const DropoutKey key = dropout_key(p, seed, place);
  const int64_t count = n * c;
  float *x = ops_random_elements(run, count, 1);
  for (int64_t i = 0; i < count; i++) {
    const double factor = ref_dropout_factor(p, seed, place, rows[i / c], c, i % c);
    if (!(factor > 0.0) && i % 3 == 0) x[i] = NAN;
  }
  const int64_t *rows_device = ops_to_device(run, (size_t)n * sizeof *rows, rows);
  elem *y_device = ops_unset_elements(run, count);
  elem *in_place_device = ops_to_elements(run, count, x);
  run->ops->dropout(run->device, n, c, &key, rows_device, ops_to_elements(run, count, x), y_device);
  run->ops->dropout(run->device, n, c, &key, rows_device, in_place_device, in_place_device);
  const float *y = ops_from_elements(run, count, y_device);
  const float *in_place = ops_from_elements(run, count, in_place_device);
  for (int64_t i = 0; i < count; i++) {
    const float factor = (float)ref_dropout_factor(p, seed, place, rows[i / c], c, i % c);
    const float expected = factor > 0.0F ? ops_rounded(run, factor * x[i]) : 0.0F;
    if (y[i] == expected && in_place[i] == expected) continue;
    fail_msg("%s: p %g, element %lld of (%lld, %lld): %g, in place %g, expected %g", run->implementation, p,
             (long long)i, (long long)n, (long long)c, (double)y[i], (double)in_place[i], (double)expected);
  }
}

static void check_dropouts(OpsRun *run) {
  static const int64_t widths[] = {1, 3, 4, 8, 15, 16, 17, 31, 32, 33, 64, 95, 130, 768};
  for (size_t i = 0; i < sizeof widths / sizeof widths[0]; i++) {
    for (size_t j = 0; j < PROBABILITIES; j++) {
      check_dropout(run, 5, widths[i], random_rows(run, 5), probabilities[j]);
    }
  }
  check_dropout(run, 70, 40, random_rows(run, 70), 0.1);
  check_dropout(run, 0, 16, random_rows(run, 0), 0.1);
  check_dropout(run, 3, 0, random_rows(run, 3), 0.1);
  /* Blocks on both sides of 2^32 in one row, where a count in 32 bits would begin anew. */
  const int64_t crossing = 0x100000000 / 25;
  const int64_t rows[] = {crossing - 1, crossing, crossing + 1};
  check_dropout(run, 3, 100, rows, 0.3);
}

static void test_elements(void **state) {
  (void)state;
  ops_check_all(check_dropouts);
}

/* A word equal to the threshold is kept, one below it is not. */
static void check_threshold(OpsRun *run) {
  enum { COUNT = 48 };
  const int64_t row = 77;
  const int64_t *row_device = ops_to_device(run, sizeof row, &row);
  for (int64_t j = 0; j < COUNT; j++) {
    const uint32_t word = ref_dropout_word(3, 9, row, COUNT, j);
    DropoutKey key = {.seed = 3, .stream = 9, .threshold = word, .scale = 2.0F};
    float x[COUNT] = {0};
    x[j] = 1.5F;
    elem *x_device = ops_to_elements(run, COUNT, x);
    run->ops->dropout(run->device, 1, COUNT, &key, row_device, x_device, x_device);
    assert_true(ops_from_elements(run, COUNT, x_device)[j] == 3.0F);
    key.threshold += 1;
    run->ops->dropout(run->device, 1, COUNT, &key, row_device, x_device, x_device);
    assert_true(ops_from_elements(run, COUNT, x_device)[j] == 0.0F);
  }
}

static void test_threshold(void **state) {
  (void)state;
  static const uint32_t thresholds[PROBABILITIES] = {0,           1,           429496730, 0x80000000U,
                                                     3865470566U, 0xfffff000U, UINT32_MAX};
  for (size_t i = 0; i < PROBABILITIES; i++) {
    const DropoutKey key = dropout_key(probabilities[i], 5, 6);
    assert_true(key.threshold == thresholds[i]);
    assert_true(key.scale == (float)(1.0 / (1.0 - probabilities[i])));
  }
  ops_check_all(check_threshold);
}

/* ---------------------------------------------------------------- as random numbers */

enum { ROWS = 4096, COLUMNS = 100, COUNT = ROWS * COLUMNS };

/* The masks (ROWS, COLUMNS) of tokens first ... first + ROWS - 1: 0 or the factor. */
static const float *masks(OpsRun *run, const DropoutKey *key, int64_t first) {
  int64_t *rows = ops_bytes(run, ROWS * sizeof *rows);
  float *ones = ops_zeros(run, COUNT);
  for (int64_t i = 0; i < ROWS; i++) rows[i] = first + i;
  for (int64_t i = 0; i < COUNT; i++) ones[i] = 1.0F;
  elem *mask = ops_to_elements(run, COUNT, ones);
  run->ops->dropout(run->device, ROWS, COLUMNS, key, ops_to_device(run, ROWS * sizeof *rows, rows), mask,
                    mask);
  return ops_from_elements(run, COUNT, mask);
}

/* Of `count` draws with probability q, as many as five standard deviations allow. */
static void check_count(const OpsRun *run, const char *what, int64_t got, int64_t count, double q) {
  const double deviation = sqrt((double)count * q * (1.0 - q));
  ops_within(run, what, count, fabs((double)got - (double)count * q), 5.0 * deviation);
}

static void check_kept(OpsRun *run, double p) {
  const DropoutKey key = dropout_key(p, 1, 0);
  const float *mask = masks(run, &key, 0);
  int64_t in_column[COLUMNS] = {0};
  int64_t kept = 0;
  for (int64_t i = 0; i < COUNT; i++) {
    in_column[i % COLUMNS] += mask[i] > 0.0F;
    kept += mask[i] > 0.0F;
  }
  check_count(run, "kept", kept, COUNT, 1.0 - p);
  for (int64_t j = 0; j < COLUMNS; j++) check_count(run, "kept in a column", in_column[j], ROWS, 1.0 - p);
}

/* Two masks that know nothing of each other agree with probability p^2 + (1 - p)^2. */
static void check_apart(const OpsRun *run, const char *what, const float *a, const float *b, double p) {
  int64_t equal = 0;
  for (int64_t i = 0; i < COUNT; i++) equal += (a[i] > 0.0F) == (b[i] > 0.0F);
  check_count(run, what, equal, COUNT, p * p + (1.0 - p) * (1.0 - p));
}

static void check_randomness(OpsRun *run) {
  const double p = 0.3;
  const DropoutKey key = dropout_key(p, 1, 1);
  const DropoutKey place = dropout_key(p, 1, 2);
  const DropoutKey seed = dropout_key(p, 2, 1);
  check_kept(run, 0.1);
  check_kept(run, 0.5);
  check_kept(run, 0.97);
  const float *mask = masks(run, &key, 0);
  check_apart(run, "another place", mask, masks(run, &place, 0), p);
  check_apart(run, "another seed", mask, masks(run, &seed, 0), p);
  check_apart(run, "other tokens", mask, masks(run, &key, ROWS), p);
  check_apart(run, "the next token", mask, masks(run, &key, 1), p);
}

static void test_randomness(void **state) {
  (void)state;
  ops_check_all(check_randomness);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_philox_of_the_reference),
      cmocka_unit_test(test_elements),
      cmocka_unit_test(test_threshold),
      cmocka_unit_test(test_randomness),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
