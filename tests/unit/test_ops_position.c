/* Embeddings and rotary positions: every implementation against the equations in float64 and beyond. */
#include <math.h>
#include <stdint.h>

#include "tests/support/ops_check.h"
#include "tests/support/unit.h"

/* ---------------------------------------------------------------- embeddings */

typedef struct Lookup {
  int64_t n, c, vocab, positions;
  int32_t *token;    /* (n) */
  int64_t *position; /* (n) */
  const int32_t *token_device;
  const int64_t *position_device;
} Lookup;

/* Few distinct tokens, so that most come several times, spread over the vocabulary. */
static Lookup make_lookup(OpsRun *run, int64_t n, int64_t c, int64_t vocab) {
  Lookup lookup = {.n = n, .c = c, .vocab = vocab, .positions = 29};
  lookup.token = ops_bytes(run, (size_t)n * sizeof(int32_t));
  lookup.position = ops_bytes(run, (size_t)n * sizeof(int64_t));
  for (int64_t i = 0; i < n; i++) {
    lookup.token[i] = (int32_t)(random_below(&run->random, 13) * (vocab / 13));
    lookup.position[i] = random_below(&run->random, lookup.positions);
  }
  lookup.token_device = ops_to_device(run, (size_t)n * sizeof(int32_t), lookup.token);
  lookup.position_device = ops_to_device(run, (size_t)n * sizeof(int64_t), lookup.position);
  return lookup;
}

static void check_embedding_forward(OpsRun *run, int64_t n, int64_t c, int64_t vocab) {
  const Lookup lookup = make_lookup(run, n, c, vocab);
  const float *wte = ops_random_elements(run, lookup.vocab * c, 1);
  const float *wpe = ops_random_elements(run, lookup.positions * c, 1);
  const elem *wte_device = ops_to_elements(run, lookup.vocab * c, wte);
  elem *y_device = ops_unset_elements(run, n * c);
  elem *tokens_only_device = ops_unset_elements(run, n * c);
  run->ops->embedding_forward(run->device, n, c, lookup.token_device, lookup.position_device, wte_device,
                              ops_to_elements(run, lookup.positions * c, wpe), y_device);
  run->ops->embedding_forward(run->device, n, c, lookup.token_device, NULL, wte_device, NULL,
                              tokens_only_device);
  const float *y = ops_from_elements(run, n * c, y_device);
  const float *tokens_only = ops_from_elements(run, n * c, tokens_only_device);
  for (int64_t i = 0; i < n; i++) {
    for (int64_t j = 0; j < c; j++) {
      const float token = wte[lookup.token[i] * c + j];
      assert_true(tokens_only[i * c + j] == token);
      assert_true(y[i * c + j] == ops_rounded(run, token + wpe[lookup.position[i] * c + j]));
    }
  }
}

/* The gradients of the tables are floats in every table of operations. */
static void check_embedding_backward(OpsRun *run, int64_t n, int64_t c, int64_t vocab) {
  const Lookup lookup = make_lookup(run, n, c, vocab);
  const float *dy = ops_random_elements(run, n * c, 1);
  const float *dwte_start = ops_random(run, lookup.vocab * c, 1);
  const float *dwpe_start = ops_random(run, lookup.positions * c, 1);
  const elem *dy_device = ops_to_elements(run, n * c, dy);
  float *dwte_device = ops_to_floats(run, lookup.vocab * c, dwte_start);
  float *dwpe_device = ops_to_floats(run, lookup.positions * c, dwpe_start);
  run->ops->embedding_backward(run->device, n, c, lookup.token_device, lookup.position_device, dy_device,
                               dwte_device, dwpe_device);
  run->ops->embedding_backward(run->device, n, c, lookup.token_device, NULL, dy_device, dwte_device, NULL);
  const float *dwte = ops_from_floats(run, lookup.vocab * c, dwte_device);
  const float *dwpe = ops_from_floats(run, lookup.positions * c, dwpe_device);
  if (run->repeated) return;
  double *dwte64 = ops_copy64(run, lookup.vocab * c, dwte_start);
  double *dwpe64 = ops_copy64(run, lookup.positions * c, dwpe_start);
  for (int64_t i = 0; i < n * c; i++) {
    dwte64[lookup.token[i / c] * c + i % c] += 2 * (double)dy[i];
    dwpe64[lookup.position[i / c] * c + i % c] += (double)dy[i];
  }
  ops_within(run, "dwte", n, relative_error(lookup.vocab * c, dwte, dwte64), 3e-7);
  ops_within(run, "dwpe", n, relative_error(lookup.positions * c, dwpe, dwpe64), 3e-7);
}

static void check_embeddings(OpsRun *run) {
  static const int64_t columns[] = {1, 7, 33, 128, 257};
  static const int64_t rows[] = {0, 1, 17, 1000};
  for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
    for (size_t j = 0; j < sizeof columns / sizeof columns[0]; j++) {
      check_embedding_forward(run, rows[i], columns[j], 13);
      check_embedding_backward(run, rows[i], columns[j], 13);
    }
  }
  /* A frequent token in a long sequence: its gradient is as good as any. */
  check_embedding_backward(run, 200000, 3, 100000);
}

/* ---------------------------------------------------------------- rotary positions */

/* Angles in long double: positions beyond 2^20 times frequencies near 1 must come out exact. */
static void check_rope_table(OpsRun *run) {
  enum { N = 9, D = 34 };
  static const int64_t positions[N] = {0, 1, 17, 1023, 65535, (1 << 20) - 1, 1 << 20, 123456789, 1 << 30};
  double frequencies[D / 2];
  for (int j = 0; j < D / 2; j++) frequencies[j] = pow(500000.0, -2.0 * j / D);
  const int64_t *positions_device = ops_to_device(run, sizeof positions, positions);
  const double *frequencies_device = ops_to_device(run, sizeof frequencies, frequencies);
  float *table_device = ops_unset_floats(run, N * D);
  run->ops->rope_table(run->device, N, D, positions_device, frequencies_device, table_device);
  run->ops->rope_table(run->device, 0, D, positions_device, frequencies_device, NULL);
  const float *table = ops_from_floats(run, N * D, table_device);
  for (int i = 0; i < N; i++) {
    for (int j = 0; j < D / 2; j++) {
      /* The angle is rounded to double once. */
      const long double angle = (long double)((double)positions[i] * frequencies[j]);
      assert_true(table[i * D + j] == (float)cosl(angle));
      assert_true(table[i * D + D / 2 + j] == (float)sinl(angle));
    }
  }
}

/* Heads (n, heads, d) in rows of `stride` elements. */
typedef struct Heads {
  int64_t n, heads, d, stride;
} Heads;

/* Random angles: cosines and sines (n, d). */
static const float *make_table(OpsRun *run, const Heads *h) {
  const int64_t half = h->d / 2;
  float *table = ops_zeros(run, h->n * h->d);
  for (int64_t i = 0; i < h->n * half; i++) {
    const double angle = 10 * random_normal(&run->random);
    table[i / half * h->d + i % half] = (float)cos(angle);
    table[i / half * h->d + half + i % half] = (float)sin(angle);
  }
  return table;
}

/* expected (as x) = x turned by the angles of the table, times `sign`. */
static void rotate64(const Heads *h, const float *table, double sign, const float *x, double *expected) {
  const int64_t half = h->d / 2;
  for (int64_t i = 0; i < h->n; i++) {
    for (int64_t k = 0; k < h->heads * half; k++) {
      const int64_t at = i * h->stride + k / half * h->d + k % half;
      const double cosine = (double)table[i * h->d + k % half];
      const double sine = sign * (double)table[i * h->d + half + k % half];
      expected[at] = (double)x[at] * cosine - (double)x[at + half] * sine;
      expected[at + half] = (double)x[at + half] * cosine + (double)x[at] * sine;
    }
  }
}

/* There and back, each from the very numbers of the device; what lies between the rows must stay. */
static void check_rope(OpsRun *run, const Heads *h) {
  const int64_t count = h->n > 0 ? (h->n - 1) * h->stride + h->heads * h->d : 0;
  const float *table = make_table(run, h);
  const float *x = ops_random_elements(run, count, 1);
  const float *table_device = ops_to_floats(run, h->n * h->d, table);
  elem *x_device = ops_to_elements(run, count, x);
  for (int inverse = 0; inverse < 2; inverse++) {
    double *expected = ops_copy64(run, count, x);
    rotate64(h, table, inverse ? -1 : 1, x, expected);
    run->ops->rope_apply(run->device, h->n, h->heads, h->d, h->stride, table_device, inverse, x_device);
    const float *turned = ops_from_elements(run, count, x_device);
    ops_within(run, inverse ? "rope_apply back" : "rope_apply", h->d,
               ops_largest_error(run, count, turned, expected), 1e-7);
    for (int64_t i = 0; i < count; i++) {
      if (i % h->stride >= h->heads * h->d) assert_true(turned[i] == x[i]);
    }
    x = turned;
  }
}

static void check_ropes(OpsRun *run) {
  static const Heads heads[] = {{1, 1, 2, 2},     {7, 3, 8, 30},    {17, 2, 34, 68}, {33, 4, 32, 200},
                                {100, 1, 64, 65}, {5, 2, 128, 257}, {0, 2, 8, 16}};
  for (size_t i = 0; i < sizeof heads / sizeof heads[0]; i++) check_rope(run, &heads[i]);
}

static void test_embedding(void **state) {
  (void)state;
  ops_check_all(check_embeddings);
}

static void test_rope_table(void **state) {
  (void)state;
  ops_check_all(check_rope_table);
}

static void test_rope_apply(void **state) {
  (void)state;
  ops_check_all(check_ropes);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_embedding),
      cmocka_unit_test(test_rope_table),
      cmocka_unit_test(test_rope_apply),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
