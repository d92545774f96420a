/* Attention in blocks: every implementation against the float64 equations over one list of cases, and the
 * promises of kernels/ops.h that numbers alone do not show. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/attention_reference.h"
#include "kernels/device.h"
#include "tests/support/attention64.h"
#include "tests/support/attention_runs.h"
#include "tests/support/unit.h"
#if defined(__x86_64__)
#include "kernels/cpu/attention_avx512.h"
#endif

/* name, tokens, heads, key heads, head size, tokens of a run, and what is not plain. */
static const AttentionCase cases[] = {
    {"one token", 1, 1, 1, 8, .run = 1},
    {"7 tokens", 7, 2, 2, 16, .run = 7},
    {"63 tokens", 63, 2, 1, 24, .run = 63},
    {"65 tokens", 65, 1, 1, 64, .run = 65},
    {"129 tokens", 129, 1, 1, 80, .run = 129},
    {"200 tokens", 200, 4, 4, 32, .run = 200, .holes = 40},
    {"wide heads", 129, 2, 1, 128, .run = 129, .holes = 8},
    {"widest heads", 70, 1, 1, 256, .run = 70},
    {"odd heads", 90, 2, 2, 120, .run = 30},
    {"2 heads share", 63, 2, 1, 64, .run = 20},
    {"4 heads share", 130, 8, 2, 16, .run = 65},
    {"8 heads share", 100, 8, 1, 40, .run = 100, .holes = 3},
    {"long", 1300, 1, 1, 32, .run = 1300},
    {"long, wide heads", 900, 2, 1, 128, .run = 450},
    {"longer than a thread's share", 2400, 1, 1, 8, .run = 2500},
    {"ascending", 300, 2, 1, 32, .run = 64},
    {"descending", 300, 2, 2, 64, .run = 50, .order = ORDER_DESCENDING},
    {"ring", 301, 2, 1, 32, .run = 38, .order = ORDER_RING, .holes = 5},
    {"zigzag", 328, 2, 1, 64, .run = 41, .order = ORDER_ZIGZAG},
    {"keys cut otherwise", 320, 2, 1, 32, .run = 90, .key_run = 37, .document = 200},
    {"keys cut longer", 500, 1, 1, 64, 61, ORDER_DESCENDING, .key_run = 203, .window = 120},
    {"tiny runs", 40, 2, 1, 8, .run = 3, .order = ORDER_RING},
    {"documents", 330, 2, 1, 64, .run = 330, .document = 45},
    {"documents, ring", 330, 2, 1, 32, .run = 48, .order = ORDER_RING, .document = 37},
    {"documents, zigzag", 480, 2, 1, 32, .run = 80, .order = ORDER_ZIGZAG, .document = 110},
    {"short documents", 200, 1, 1, 32, .run = 100, .document = 2},
    {"long documents", 1000, 1, 1, 64, .run = 1000, .document = 300},
    {"window", 333, 2, 2, 32, .run = 333, .window = 50},
    {"window of one", 100, 1, 1, 16, .run = 33, .window = 1},
    {"window, documents", 700, 1, 1, 64, 175, ORDER_DESCENDING, .window = 100, .document = 150},
    {"blind tail", 150, 2, 1, 32, 75, ORDER_RING, .blind_start = 101, .blind_end = 150},
    {"blind in between", 150, 2, 1, 64, .run = 150, .blind_start = 20, .blind_end = 70},
    {"all blind", 50, 1, 1, 32, .run = 50, .blind_end = 50},
    {"far", 300, 1, 1, 32, 100, ORDER_RING, .document = 80, .origin = INT64_C(5000000000)},
    {"large scores", 400, 2, 1, 64, .run = 400, .q_factor = 110},
    {"large scores, descending", 400, 2, 1, 128, 80, ORDER_DESCENDING, .document = 130, .q_factor = 110},
};
#define CASES (sizeof cases / sizeof cases[0])

/* ---------------------------------------------------------------- the float64 answer */

typedef struct Answer {
  double *out;
  double *lse;
  double *dq;
  double *dk;
  double *dv;
} Answer;

static double *to_double(int64_t length, int64_t row, int64_t stride, const float *from) {
  double *to = attention_memory((size_t)(length * row) * sizeof *to);
  for (int64_t i = 0; i < length; i++) {
    for (int64_t j = 0; j < row; j++) to[i * row + j] = from[i * stride + j];
  }
  return to;
}

static double *zeros(int64_t count) {
  return attention_memory((size_t)count * sizeof(double));
}

static Answer answer(const AttentionCase *c, const AttentionInputs *in) {
  const int64_t q_row = c->heads * c->head_dim;
  const int64_t k_row = c->kv_heads * c->head_dim;
  double *q = to_double(c->length, q_row, in->q_stride, in->q);
  double *k = to_double(c->length, k_row, in->k_stride, in->k);
  double *v = to_double(c->length, k_row, in->k_stride, in->v);
  double *dout = to_double(c->length, q_row, q_row, in->dout);
  const Attention64 a = {.length = c->length,
                         .heads = c->heads,
                         .kv_heads = c->kv_heads,
                         .head_dim = c->head_dim,
                         .scale = (double)in->dims.scale,
                         .first_key = in->first_key,
                         .q = q,
                         .k = k,
                         .v = v};
  const Answer result = {.out = zeros(c->length * q_row),
                         .lse = zeros(c->length * c->heads),
                         .dq = zeros(c->length * q_row),
                         .dk = zeros(c->length * k_row),
                         .dv = zeros(c->length * k_row)};
  attention64_forward(&a, result.out, result.lse);
  attention64_backward(&a, dout, result.dq, result.dk, result.dv);
  free(q);
  free(k);
  free(v);
  free(dout);
  return result;
}

static void free_answer(Answer *a) {
  free(a->out);
  free(a->lse);
  free(a->dq);
  free(a->dk);
  free(a->dv);
}

/* ---------------------------------------------------------------- comparison */

/* Float scores carry an error that grows with their size: how many times that of scores near 1. */
static double score_error(const AttentionCase *c) {
  return c->q_factor > 0 ? c->q_factor / 4 : 1;
}

/* Norm of the difference over the norm of the wanted, which counts as at least 0.1 per element: a single
 * visible key has gradients that are exactly 0. NaN anywhere fails. */
static void check_near(const char *implementation, const AttentionCase *c, const char *what, int64_t count,
                       const float *got, const double *wanted, double tolerance) {
  double difference = 0;
  double norm = 0;
  for (int64_t i = 0; i < count; i++) {
    const double error = (double)got[i] - wanted[i];
    difference += error * error;
    norm += wanted[i] * wanted[i];
  }
  const double error = sqrt(difference) / fmax(sqrt(norm), 0.1 * sqrt((double)count));
  if (!(error <= tolerance)) {
    fail_msg("%s, %s, %s: relative error %.3g, allowed %.3g", implementation, c->name, what, error,
             tolerance);
  }
}

static void check_lse(const char *implementation, const AttentionCase *c, const float *got,
                      const double *wanted) {
  for (int64_t i = 0; i < c->heads * c->length; i++) {
    const double error = fabs((double)got[i] - wanted[i]) / fmax(score_error(c), fabs(wanted[i]));
    if ((double)got[i] == wanted[i] || error <= 2e-6) continue;
    fail_msg("%s, %s, lse %lld: %.9g instead of %.9g", implementation, c->name, (long long)i, (double)got[i],
             wanted[i]);
  }
}

/* Queries that see nothing get exact zeros. */
static void check_blind(const AttentionCase *c, const AttentionOutputs *got) {
  const int64_t row = c->heads * c->head_dim;
  for (int64_t i = c->blind_start * row; i < c->blind_end * row; i++) {
    assert_true(got->out[i] == 0.0F);
    assert_true(got->dq[i] == 0.0F);
  }
}

static void check_outputs(const char *name, const AttentionCase *c, const AttentionOutputs *got,
                          const Answer *wanted) {
  const int64_t q_count = c->length * c->heads * c->head_dim;
  const int64_t k_count = c->length * c->kv_heads * c->head_dim;
  check_near(name, c, "out", q_count, got->out, wanted->out, 1e-6 * score_error(c));
  check_blind(c, got);
  check_lse(name, c, got->lse, wanted->lse);
  check_near(name, c, "dq", q_count, got->dq, wanted->dq, 2e-6 * score_error(c));
  check_near(name, c, "dk", k_count, got->dk, wanted->dk, 2e-6 * score_error(c));
  check_near(name, c, "dv", k_count, got->dv, wanted->dv, 2e-6 * score_error(c));
}

/* ---------------------------------------------------------------- tests */

static void check_same_bits(const char *name, const AttentionCase *c, const AttentionOutputs *a,
                            const AttentionOutputs *b) {
  const size_t q_bytes = (size_t)(c->length * c->heads * c->head_dim) * sizeof(float);
  const size_t k_bytes = (size_t)(c->length * c->kv_heads * c->head_dim) * sizeof(float);
  const bool same = memcmp(a->out, b->out, q_bytes) == 0 && memcmp(a->dq, b->dq, q_bytes) == 0 &&
                    memcmp(a->dk, b->dk, k_bytes) == 0 && memcmp(a->dv, b->dv, k_bytes) == 0 &&
                    memcmp(a->lse, b->lse, (size_t)(c->length * c->heads) * sizeof(float)) == 0;
  if (!same) fail_msg("%s, %s: results differ in bits", name, c->name);
}

/* The float64 answer, and the same bits from a second call and from two threads (not where a sequence is cut
 * into many runs: threads that meet that often make a busy machine crawl). */
static void check_case(const AttentionOps *ops, const AttentionCase *c) {
  AttentionInputs in = attention_inputs(c);
  Answer wanted = answer(c, &in);
  AttentionOutputs got = attention_attend(ops, 1, c, &in);
  check_outputs(ops->name, c, &got, &wanted);
  const int most_threads = c->run * 3 >= c->length ? 2 : 1;
  for (int threads = 1; threads <= most_threads; threads++) {
    AttentionOutputs again = attention_attend(ops, threads, c, &in);
    check_same_bits(ops->name, c, &got, &again);
    attention_outputs_free(&again);
  }
  attention_outputs_free(&got);
  free_answer(&wanted);
  attention_inputs_free(&in);
}

/* Long enough for several chunks of queries and keys per head: threads must not meet in the same sums. */
static void check_many_threads(const AttentionOps *ops) {
  const AttentionCase c = {.name = "many threads", .length = 5000, .heads = 1, .kv_heads = 1, .head_dim = 32};
  AttentionInputs in = attention_inputs(&c);
  AttentionOutputs one = attention_attend(ops, 1, &c, &in);
  for (int i = 0; i < 10; i++) {
    AttentionOutputs more = attention_attend(ops, 4, &c, &in);
    check_same_bits(ops->name, &c, &one, &more);
    attention_outputs_free(&more);
  }
  attention_outputs_free(&one);
  attention_inputs_free(&in);
}

/* A block that no query sees leaves the forward state, the backward state and dkv as they are. */
static void check_unseen_block(const AttentionOps *ops) {
  const AttentionCase c = {.length = 70, .heads = 2, .kv_heads = 1, .head_dim = 32};
  AttentionInputs in = attention_inputs(&c);
  Device device = {.threads = 1};
  const size_t state_bytes = ops->forward_bytes(&in.dims, c.length);
  void *kv = attention_memory(ops->kv_bytes(&in.dims, c.length));
  void *state = attention_memory(state_bytes);
  void *before = attention_memory(state_bytes);
  ops->pack_kv(&device, &in.dims, c.length, in.k, in.v, in.k_stride, kv);
  ops->forward_begin(&device, &in.dims, c.length, in.q, in.q_stride, state);
  ops->forward_block(&device, &in.dims, c.length, 0, in.first_key, state, c.length, 0, kv);
  memcpy(before, state, state_bytes);
  ops->forward_block(&device, &in.dims, c.length, 0, in.first_key, state, c.length, 70, kv);
  assert_memory_equal(before, state, state_bytes);
  free(kv);
  free(state);
  free(before);
  attention_inputs_free(&in);
}

/* A NaN in the inputs must come out, or a step with a broken model would not be noticed. */
static void check_nan(const AttentionOps *ops) {
  const AttentionCase c = {.name = "NaN", .length = 70, .heads = 1, .kv_heads = 1, .head_dim = 32};
  AttentionInputs in = attention_inputs(&c);
  in.k[0] = NAN;
  AttentionOutputs got = attention_attend(ops, 1, &c, &in);
  for (int64_t i = 0; i < c.length; i++) {
    assert_true(isnan(got.out[i * c.head_dim]));
    assert_true(isnan(got.lse[i]));
    assert_true(isnan(got.dq[i * c.head_dim]));
  }
  attention_outputs_free(&got);
  attention_inputs_free(&in);
}

static void check_empty(const AttentionOps *ops) {
  const AttentionCase c = {
      .name = "no token", .length = 0, .heads = 1, .kv_heads = 1, .head_dim = 32, .run = 1};
  AttentionInputs in = attention_inputs(&c);
  Device device = {.threads = 2};
  void *state = attention_memory(ops->forward_bytes(&in.dims, 0));
  float *out = attention_memory(1);
  ops->forward_begin(&device, &in.dims, 0, in.q, in.q_stride, state);
  ops->forward_block(&device, &in.dims, 0, 0, in.first_key, state, 0, 0, out);
  ops->forward_end(&device, &in.dims, 0, state, out, out);
  free(state);
  free(out);
  attention_inputs_free(&in);
}

/* Central differences of the float64 loss sum(dout * out) by one input. */
static double difference(Attention64 *a, const double *dout, double *x, int64_t i, double *out, double *lse) {
  const double step = 1e-5;
  const double kept = x[i];
  const int64_t count = a->length * a->heads * a->head_dim;
  double loss[2] = {0, 0};
  for (int side = 0; side < 2; side++) {
    x[i] = kept + (side == 0 ? -step : step);
    attention64_forward(a, out, lse);
    for (int64_t j = 0; j < count; j++) loss[side] += dout[j] * out[j];
  }
  x[i] = kept;
  return (loss[1] - loss[0]) / (2 * step);
}

/* The float64 equations themselves: their gradients against finite differences. */
static void test_equations(void **unused) {
  (void)unused;
  const AttentionCase c = {.length = 11,
                           .heads = 4,
                           .kv_heads = 2,
                           .head_dim = 8,
                           .document = 4,
                           .blind_start = 9,
                           .blind_end = 11};
  AttentionInputs in = attention_inputs(&c);
  Answer wanted = answer(&c, &in);
  const int64_t q_count = c.length * c.heads * c.head_dim;
  const int64_t k_count = c.length * c.kv_heads * c.head_dim;
  double *q = to_double(1, q_count, 0, in.q);
  double *k = to_double(1, k_count, 0, in.k);
  double *v = to_double(1, k_count, 0, in.v);
  double *dout = to_double(1, q_count, 0, in.dout);
  double *out = zeros(q_count);
  double *lse = zeros(c.length * c.heads);
  Attention64 a = {.length = c.length,
                   .heads = c.heads,
                   .kv_heads = c.kv_heads,
                   .head_dim = c.head_dim,
                   .scale = (double)in.dims.scale,
                   .first_key = in.first_key,
                   .q = q,
                   .k = k,
                   .v = v};
  for (int64_t i = 0; i < q_count; i++) {
    assert_true(fabs(difference(&a, dout, q, i, out, lse) - wanted.dq[i]) < 1e-8);
  }
  for (int64_t i = 0; i < k_count; i++) {
    assert_true(fabs(difference(&a, dout, k, i, out, lse) - wanted.dk[i]) < 1e-8);
    assert_true(fabs(difference(&a, dout, v, i, out, lse) - wanted.dv[i]) < 1e-8);
  }
  free(q);
  free(k);
  free(v);
  free(dout);
  free(out);
  free(lse);
  free_answer(&wanted);
  attention_inputs_free(&in);
}

static void check_all(const AttentionOps *ops) {
  for (size_t i = 0; i < CASES; i++) check_case(ops, &cases[i]);
  check_unseen_block(ops);
  check_nan(ops);
  check_empty(ops);
}

static void test_reference(void **unused) {
  (void)unused;
  check_all(&attention_reference);
}

static void test_avx512(void **unused) {
  (void)unused;
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl")) {
    check_all(&attention_avx512);
    check_many_threads(&attention_avx512);
    return;
  }
#endif
  skip();
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_equations),
      cmocka_unit_test(test_reference),
      cmocka_unit_test(test_avx512),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
