/* The order of samples: a bijection for every size, different for every key, at a cost that does not grow. */
#include "data/permutation.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>

#include "kernels/base/clock.h"
#include "tests/support/unit.h"

static void expect_bijection(int64_t count, uint64_t seed, int64_t epoch) {
  const Permutation permutation = permutation_make(seed, epoch, 1024, count);
  uint8_t *seen = calloc((size_t)count, 1);
  assert_non_null(seen);
  for (int64_t i = 0; i < count; i++) {
    const int64_t image = permutation_apply(&permutation, i);
    assert_true(image >= 0 && image < count);
    assert_int_equal(seen[image], 0);
    seen[image] = 1;
  }
  free(seen);
}

static void test_bijection(void **state) {
  (void)state;
  for (int64_t count = 1; count <= 300; count++) expect_bijection(count, 1, count % 3);
  const int64_t larger[] = {1023, 1024, 1025, 4095, 4096, 4097, 65535, 65536, 65537, 99991};
  for (size_t i = 0; i < sizeof larger / sizeof larger[0]; i++) expect_bijection(larger[i], 42, 5);
}

/* Places at which two permutations of `count` agree: about 1 for unrelated ones. */
static int64_t agreements(Permutation a, Permutation b, int64_t count) {
  int64_t equal = 0;
  for (int64_t i = 0; i < count; i++) equal += permutation_apply(&a, i) == permutation_apply(&b, i);
  return equal;
}

static void test_every_part_of_the_key_counts(void **state) {
  (void)state;
  const int64_t count = 5000;
  const Permutation base = permutation_make(1, 0, 1024, count);
  assert_int_equal(agreements(base, permutation_make(1, 0, 1024, count), count), count);
  assert_true(agreements(base, permutation_make(2, 0, 1024, count), count) < 12);
  assert_true(agreements(base, permutation_make(1 + ((uint64_t)1 << 32), 0, 1024, count), count) < 12);
  assert_true(agreements(base, permutation_make(1, 1, 1024, count), count) < 12);
  assert_true(agreements(base, permutation_make(1, (int64_t)1 << 32, 1024, count), count) < 12);
  assert_true(agreements(base, permutation_make(1, 0, 8192, count), count) < 12);
}

static void test_looks_random(void **state) {
  (void)state;
  const int64_t count = 30000;
  const Permutation permutation = permutation_make(3, 0, 4096, count);
  int64_t near = 0;
  int64_t rising = 0;
  double sum = 0.0;
  for (int64_t i = 0; i < count; i++) {
    const int64_t image = permutation_apply(&permutation, i);
    const int64_t next = permutation_apply(&permutation, (i + 1) % count);
    near += llabs(image - next) <= 10;
    rising += next > image;
    sum += (double)i * (double)image;
  }
  /* Correlation of index and image: of standard deviation 1 / sqrt(n), so below 5 of them. */
  const double n = (double)count;
  const double correlation = (sum / n - n * n / 4.0) / (n * n / 12.0);
  assert_true(fabs(correlation) < 5.0 / sqrt(n));
  assert_true(near < 60); /* about 20 are to be expected */
  assert_true(llabs(rising - count / 2) < 400);
}

static void test_small_sets_have_every_order(void **state) {
  (void)state;
  int seen[6] = {0};
  for (int64_t epoch = 0; epoch < 200; epoch++) {
    const Permutation permutation = permutation_make(9, epoch, 64, 3);
    const int64_t first = permutation_apply(&permutation, 0);
    const int64_t second = permutation_apply(&permutation, 1);
    seen[2 * first + (second > permutation_apply(&permutation, 2))]++;
  }
  for (int i = 0; i < 6; i++) assert_true(seen[i] >= 10);
}

/* Fixed values: a run that resumes with a later version of the program must see the same order. */
static void test_known_values(void **state) {
  (void)state;
  const int64_t expected[8] = {676520, 670810, 98549, 800544, 52780, 364660, 501950, 351692};
  const Permutation permutation = permutation_make(1234, 2, 8192, 1000003);
  for (int64_t i = 0; i < 8; i++) assert_int_equal(permutation_apply(&permutation, i), expected[i]);
}

static void test_cost_does_not_grow_with_the_set(void **state) {
  (void)state;
  const int64_t count = INT64_C(3000000000000);
  const double start = clock_seconds();
  const Permutation permutation = permutation_make(5, 7, 1048576, count);
  for (int64_t i = 0; i < 10000; i++) {
    const int64_t image = permutation_apply(&permutation, count - 1 - i);
    assert_true(image >= 0 && image < count);
  }
  assert_true(clock_seconds() - start < 2.0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_bijection),    cmocka_unit_test(test_every_part_of_the_key_counts),
      cmocka_unit_test(test_looks_random), cmocka_unit_test(test_small_sets_have_every_order),
      cmocka_unit_test(test_known_values), cmocka_unit_test(test_cost_does_not_grow_with_the_set),
  };
  return cmocka_run_group_tests_name("permutation", tests, NULL, NULL);
}
