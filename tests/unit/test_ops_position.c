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
  return lookup;
}

static void check_embedding_forward(OpsRun *run, int64_t n, int64_t c, int64_t vocab) {
  const Lookup lookup = make_lookup(run, n, c, vocab);
  const float *wte = ops_random(run, lookup.vocab * c, 1);
  const float *wpe = ops_random(run, lookup.positions * c, 1);
  float *y = ops_unset(run, n * c);
  float *tokens_only = ops_unset(run, n * c);
  run->ops->embedding_forward(run->device, n, c, lookup.token, lookup.position, wte, wpe, y);
  run->ops->embedding_forward(run->device, n, c, lookup.token, NULL, wte, NULL, tokens_only);
  for (int64_t i = 0; i < n; i++) {
    for (int64_t j = 0; j < c; j++) {
      const float token = wte[lookup.token[i] * c + j];
      assert_true(tokens_only[i * c + j] == token);
      assert_true(y[i * c + j] == token + wpe[lookup.position[i] * c + j]);
    }
  }
}

static void check_embedding_backward(OpsRun *run, int64_t n, int64_t c, int64_t vocab) {
  const Lookup lookup = make_lookup(run, n, c, vocab);
  const float *dy = ops_random(run, n * c, 1);
  float *dwte = ops_random(run, lookup.vocab * c, 1);
  float *dwpe = ops_random(run, lookup.positions * c, 1);
  double *dwte64 = ops_copy64(run, lookup.vocab * c, dwte);
  double *dwpe64 = ops_copy64(run, lookup.positions * c, dwpe);
  for (int64_t i = 0; i < n * c; i++) {
    dwte64[lookup.token[i / c] * c + i % c] += 2 * (double)dy[i];
    dwpe64[lookup.position[i / c] * c + i % c] += (double)dy[i];
  }
  run->ops->embedding_backward(run->device, n, c, lookup.token, lookup.position, dy, dwte, dwpe);
  run->ops->embedding_backward(run->device, n, c, lookup.token, NULL, dy, dwte, NULL);
  ops_within(run, "dwte", n, relative_error(lookup.vocab * c, dwte, dwte64), 3e-7);
  ops_within(run, "dwpe", n, relative_error(lookup.positions * c, dwpe, dwpe64), 3e-7);
  ops_record(run, (size_t)(lookup.vocab * c) * sizeof(float), dwte);
  ops_record(run, (size_t)(lookup.positions * c) * sizeof(float), dwpe);
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
  float *table = ops_unset(run, N * D);
  run->ops->rope_table(run->device, N, D, positions, frequencies, table);
  for (int i = 0; i < N; i++) {
    for (int j = 0; j < D / 2; j++) {
      /* The angle is rounded to double once. */
      const long double angle = (long double)((double)positions[i] * frequencies[j]);
      assert_true(table[i * D + j] == (float)cosl(angle));
      assert_true(table[i * D + D / 2 + j] == (float)sinl(angle));
    }
  }
  run->ops->rope_table(run->device, 0, D, positions, frequencies, NULL);
  ops_record(run, N * D * sizeof(float), table);
}

/* x (n, heads, d) in rows of `stride` elements; what lies between rows must stay. */
static void check_rope(OpsRun *run, int64_t n, int64_t heads, int64_t d, int64_t stride) {
  const int64_t half = d / 2;
  float *table = ops_unset(run, n * d);
  for (int64_t i = 0; i < n * half; i++) {
    const double angle = 10 * random_normal(&run->random);
    table[i / half * d + i % half] = (float)cos(angle);
    table[i / half * d + half + i % half] = (float)sin(angle);
  }
  const int64_t count = n > 0 ? (n - 1) * stride + heads * d : 0;
  float *x = ops_random(run, count, 1);
  const float *start = ops_copy(run, count, x);
  double *expected = ops_copy64(run, count, x);
  for (int64_t i = 0; i < n; i++) {
    for (int64_t k = 0; k < heads * half; k++) {
      const int64_t at = i * stride + k / half * d + k % half;
      const double cosine = (double)table[i * d + k % half];
      const double sine = (double)table[i * d + half + k % half];
      expected[at] = (double)start[at] * cosine - (double)start[at + half] * sine;
      expected[at + half] = (double)start[at + half] * cosine + (double)start[at] * sine;
    }
  }
  run->ops->rope_apply(run->device, n, heads, d, stride, table, false, x);
  ops_within(run, "rope_apply", d, largest_error(count, x, expected), 1e-7);
  for (int64_t i = 0; i < count; i++) {
    if (i % stride >= heads * d) assert_true(x[i] == start[i]);
  }
  ops_record(run, (size_t)count * sizeof(float), x);
  run->ops->rope_apply(run->device, n, heads, d, stride, table, true, x);
  ops_within(run, "rope_apply there and back", d, largest_error(count, x, ops_copy64(run, count, start)),
             3e-7);
}

static void check_ropes(OpsRun *run) {
  check_rope(run, 1, 1, 2, 2);
  check_rope(run, 7, 3, 8, 30);
  check_rope(run, 17, 2, 34, 68);
  check_rope(run, 33, 4, 32, 200);
  check_rope(run, 100, 1, 64, 65);
  check_rope(run, 5, 2, 128, 257);
  check_rope(run, 0, 2, 8, 16);
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
