/* Ring attention over a million tokens: one head of 16 elements on a ring of 4, forward and backward. Random
 * queries and keys are computed again in float64, each from all the tokens that it meets.
 *
 * What may be expected: a result is a sum of up to T terms in float32, u = 2^-24. Each addition is off by at
 * most u of the sum so far; errors of random sign grow as sqrt(T), so the sum is off by about sqrt(T) u
 * whatever the order (N. Higham and T. Mary, "A new approach to probabilistic rounding error analysis",
 * 2019), 6.1e-5 of its size at 2^20. The tolerance is twice that. It is small enough to miss nothing: a term
 * more or less changes a row by 1 / sqrt(T) of its norm, 1e-3, which is eight times the tolerance. Of the
 * log-sum-exp the error of the sum is the absolute error, to which its own rounding adds u ln T. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/memory.h"
#include "model/ring_attention.h"
#include "tests/support/compare.h"
#include "tests/support/expect.h"
#include "tests/support/ranks.h"
#include "tests/support/unit.h"

enum { D = 16, RING = 4, SAMPLES = 64 };
#define SCALE 0.25 /* 1 / sqrt(D) */
#define UNIT 0x1p-24

/* A whole sequence and what comes out of it, by position. */
typedef struct Sequence {
  int64_t length;
  float *q, *k, *v, *dout; /* (T, D) */
  float *out;              /* (T, D) */
  float *lse;              /* (T) */
  float *dq, *dk, *dv;     /* (T, D) */
} Sequence;

static float *rows(int64_t length, int64_t columns) {
  Error error = {0};
  void *memory = NULL;
  expect_ok(memory_alloc((size_t)(length * columns), sizeof(float), "a test", &memory, &error), &error);
  return memory;
}

static Sequence sequence_create(int64_t length) {
  Sequence s = {.length = length, .lse = rows(length, 1)};
  float **all[] = {&s.q, &s.k, &s.v, &s.dout, &s.out, &s.dq, &s.dk, &s.dv};
  for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) *all[i] = rows(length, D);
  Random random = {(uint64_t)length};
  for (size_t i = 0; i < 4; i++) random_fill(&random, length * D, 1.0, *all[i]);
  return s;
}

static void sequence_free(Sequence *s) {
  float *all[] = {s->q, s->k, s->v, s->dout, s->out, s->lse, s->dq, s->dk, s->dv};
  for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) free(all[i]);
}

/* ---------------------------------------------------------------- on the ring */

/* Copies columns between the rows of this rank (stride `columns`, from `column` on) and a whole (T, D). */
static void exchange(const Layout *layout, int rank, float *whole, float *own, int64_t columns,
                     int64_t column, bool to_own) {
  for (Run run = {0}; layout_next_run(layout, 0, rank, &run);) {
    for (int64_t j = 0; j < run.length; j++) {
      float *here = own + (run.local + j) * columns + column;
      float *there = whole + (run.start + j) * D;
      memcpy(to_own ? here : there, to_own ? there : here, D * sizeof *here);
    }
  }
}

typedef struct Own {
  float *qkv, *dqkv; /* (N, 3 D) */
  float *out, *dout; /* (N, D) */
  float *lse;        /* (N), in the order of the rows for one head */
} Own;

static Status compute(const TestRank *rank, const Layout *layout, const Own *own, Error *error) {
  const AttentionDims dims = {.heads = 1, .kv_heads = 1, .head_dim = D, .scale = (float)SCALE};
  RingAttention *attention = NULL;
  Status status = STATUS_OK;
  TRY(ring_attention_create(rank->device, rank->ring, &dims, &attention, error));
  TRY_GOTO(ring_attention_prepare(attention, 1, layout, NULL, 0, true, error), done);
  TRY_GOTO(ring_attention_forward(attention, own->qkv, own->out, own->lse, error), done);
  TRY_GOTO(ring_attention_backward(attention, own->qkv, own->out, own->lse, own->dout, own->dqkv, error),
           done);
  status = device_check(rank->device, error);
done:
  if (status != STATUS_OK) comm_abort(rank->world, error);
  ring_attention_destroy(attention);
  return status;
}

/* One rank: its rows of the sequence in, its rows of the results out. */
static Status attend(TestRank *rank, void *context, Error *error) {
  Sequence *s = context;
  const Layout layout = layout_zigzag(s->length, rank->ring->size);
  const int64_t n = layout.local_length;
  Own own = {rows(n, 3 * D), rows(n, 3 * D), rows(n, D), rows(n, D), rows(n, 1)};
  float *const inputs[] = {s->q, s->k, s->v};
  float *const gradients[] = {s->dq, s->dk, s->dv};
  for (int i = 0; i < 3; i++)
    exchange(&layout, rank->ring->rank, inputs[i], own.qkv, 3 * D, (int64_t)i * D, true);
  exchange(&layout, rank->ring->rank, s->dout, own.dout, D, 0, true);
  const Status status = compute(rank, &layout, &own, error);
  for (int i = 0; i < 3; i++)
    exchange(&layout, rank->ring->rank, gradients[i], own.dqkv, 3 * D, (int64_t)i * D, false);
  exchange(&layout, rank->ring->rank, s->out, own.out, D, 0, false);
  for (Run run = {0}; layout_next_run(&layout, 0, rank->ring->rank, &run);) {
    memcpy(s->lse + run.start, own.lse + run.local, (size_t)run.length * sizeof *own.lse);
  }
  float *all[] = {own.qkv, own.dqkv, own.out, own.dout, own.lse};
  for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) free(all[i]);
  return status;
}

/* ---------------------------------------------------------------- in float64 */

static double dot(const float *x, const float *y) {
  double sum = 0.0;
  for (int c = 0; c < D; c++) sum += (double)x[c] * (double)y[c];
  return sum;
}

static void add(double *to, double factor, const float *x) {
  for (int c = 0; c < D; c++) to[c] += factor * (double)x[c];
}

/* The largest errors of the samples: relative in the norm of a row, of the log-sum-exp absolute. */
typedef struct Errors {
  double out, lse, dq, dk, dv;
} Errors;

/* Output, log-sum-exp and gradient of query i, from the inputs alone. */
static void check_query(const Sequence *s, int64_t i, Errors *errors) {
  const float *q = s->q + i * D, *dout = s->dout + i * D;
  double *scores = calloc((size_t)i + 1, sizeof *scores);
  double out[D] = {0}, dq[D] = {0}, sum = 0.0, delta = 0.0;
  assert_non_null(scores);
  for (int64_t j = 0; j <= i; j++) {
    scores[j] = exp(SCALE * dot(q, s->k + j * D)); /* far from overflow: unit variance */
    sum += scores[j];
    add(out, scores[j], s->v + j * D);
  }
  for (int c = 0; c < D; c++) {
    out[c] /= sum;
    delta += out[c] * (double)dout[c];
  }
  for (int64_t j = 0; j <= i; j++) {
    add(dq, SCALE * scores[j] / sum * (dot(dout, s->v + j * D) - delta), s->k + j * D);
  }
  free(scores);
  errors->out = fmax(errors->out, relative_error(D, s->out + i * D, out));
  errors->lse = fmax(errors->lse, fabs((double)s->lse[i] - log(sum)));
  errors->dq = fmax(errors->dq, relative_error(D, s->dq + i * D, dq));
}

/* The gradients of key j from all later queries, with what forward kept of these: the contract of backward.
 */
static void check_key(const Sequence *s, int64_t j, Errors *errors) {
  double dk[D] = {0}, dv[D] = {0};
  for (int64_t i = j; i < s->length; i++) {
    const float *dout = s->dout + i * D;
    const double p = exp(SCALE * dot(s->q + i * D, s->k + j * D) - (double)s->lse[i]);
    const double delta = dot(dout, s->out + i * D);
    add(dv, p, dout);
    add(dk, SCALE * p * (dot(dout, s->v + j * D) - delta), s->q + i * D);
  }
  errors->dk = fmax(errors->dk, relative_error(D, s->dk + j * D, dk));
  errors->dv = fmax(errors->dv, relative_error(D, s->dv + j * D, dv));
}

/* ---------------------------------------------------------------- the test */

static void check_length(int64_t length) {
  Error error = {0};
  Sequence s = sequence_create(length);
  Errors errors = {0};
  Random random = {17};
  expect_ok(run_ranks(RING, 1, 1, attend, &s, &error), &error);
  for (int n = 0; n < SAMPLES; n++) {
    check_query(&s, 1 + random_below(&random, length - 1), &errors);
    check_key(&s, random_below(&random, length), &errors);
  }
  sequence_free(&s);
  const double bound = 2.0 * sqrt((double)length) * UNIT;
  (void)printf(
      "figures: %lld tokens, %d queries and keys in float64: O %.1e, LSE %.1e (absolute), dQ %.1e, dK "
      "%.1e, dV %.1e of their norms; tolerance %.1e\n",
      (long long)length, SAMPLES, errors.out, errors.lse, errors.dq, errors.dk, errors.dv, bound);
  check_within("output", errors.out, bound);
  check_within("log-sum-exp", errors.lse, bound + UNIT * log((double)length));
  check_within("gradient of queries", errors.dq, bound);
  check_within("gradient of keys", errors.dk, bound);
  check_within("gradient of values", errors.dv, bound);
}

static void test_65536(void **state) {
  (void)state;
  check_length((int64_t)1 << 16);
}

static void test_1048576(void **state) {
  (void)state;
  check_length((int64_t)1 << 20);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_65536), cmocka_unit_test(test_1048576)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
