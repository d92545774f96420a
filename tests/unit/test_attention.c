/* Attention in blocks: every implementation against the float64 equations over one list of cases, and the
 * promises of kernels/ops.h that numbers alone do not show. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/device.h"
#include "tests/support/attention_answer.h"
#include "tests/support/attention_runs.h"
#include "tests/support/implementations.h"
#include "tests/support/unit.h"

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
    {"longer than a thread's share", 2400, 1, 1, 8, .run = 2400},
    {"several chunks, window", 2400, 4, 2, 8, .run = 2400, .window = 130, .holes = 8},
    {"several chunks, documents", 2400, 2, 2, 8, .run = 2400, .document = 700},
    {"several chunks, blind", 2400, 2, 2, 8, .run = 2400, .blind_end = 1300},
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
    {"window of two", 200, 1, 1, 64, .run = 200, .window = 2},
    {"window, documents", 700, 1, 1, 64, 175, ORDER_DESCENDING, .window = 100, .document = 150},
    {"blind tail", 150, 2, 1, 32, 75, ORDER_RING, .blind_start = 101, .blind_end = 150},
    {"blind in between", 150, 2, 1, 64, .run = 150, .blind_start = 20, .blind_end = 70},
    {"all blind", 50, 1, 1, 32, .run = 50, .blind_end = 50},
    {"far", 300, 1, 1, 32, 100, ORDER_RING, .document = 80, .origin = INT64_C(5000000000)},
    {"large scores", 400, 2, 1, 64, .run = 400, .q_factor = 110},
    {"large scores, descending", 400, 2, 1, 128, 80, ORDER_DESCENDING, .document = 130, .q_factor = 110},
};
#define CASES (sizeof cases / sizeof cases[0])

/* ---------------------------------------------------------------- comparison */

/* Float scores carry an error that grows with their size: how many times that of scores near 1. */
static double score_error(const AttentionCase *c) {
  return c->q_factor > 0 ? c->q_factor / 4 : 1;
}

/* What errors may be. With bf16 the scores come from the very numbers of q and k and are summed in float, so
 * that lse is as good as with floats. Probabilities and their gradients are rounded to bf16, by 2^-8 at most
 * and a third of that on average, before they meet v, k, q and dout, and results once more at the end. Where
 * the CPU multiplies bf16 itself, powers are good to 7.5e-5 (kernels/cpu/attention_lanes.h), which lse shows.
 * Large scores leave a query one key: the gradient of its score is the difference of dout . v and dout . out,
 * all but equal, whose out has been rounded. */
typedef struct Tolerance {
  double out;
  double lse;
  double gradient;
} Tolerance;

static Tolerance tolerance(const Implementation *implementation, const AttentionCase *c) {
  const double score = score_error(c);
  const bool coarse = strcmp(implementation->name, "avx512_bf16 bf16") == 0;
  if (implementation->elements == ELEMENT_F32) return (Tolerance){1e-6 * score, 2e-6, 2e-6 * score};
  return (Tolerance){4e-3, coarse ? 8e-5 : 2e-6, c->q_factor > 0 ? 1.6e-2 : 6e-3};
}

static void check_lse(const char *implementation, const AttentionCase *c, const float *got,
                      const double *wanted, double bound) {
  for (int64_t i = 0; i < c->heads * c->length; i++) {
    const double error = fabs((double)got[i] - wanted[i]) / fmax(score_error(c), fabs(wanted[i]));
    if ((double)got[i] == wanted[i] || error <= bound) continue;
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

static void check_outputs(const Implementation *implementation, const AttentionCase *c,
                          const AttentionOutputs *got, const AttentionAnswer *wanted) {
  const Tolerance bound = tolerance(implementation, c);
  double distances[ATTENTION_DISTANCES];
  attention_distances(c, got, wanted, distances);
  check_blind(c, got);
  check_lse(implementation->name, c, got->lse, wanted->lse, bound.lse);
  for (int i = 0; i < ATTENTION_DISTANCES; i++) {
    const double allowed = i == 0 ? bound.out : bound.gradient;
    if (distances[i] <= allowed) continue;
    fail_msg("%s, %s, %s: relative error %.3g, allowed %.3g", implementation->name, c->name,
             attention_distance_names[i], distances[i], allowed);
  }
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

/* What a test runs on: an implementation and its device, on the CPU of one thread. */
typedef struct Subject {
  const Implementation *implementation;
  Device *device;
} Subject;

/* The same bits from a device of the CPU with `threads` threads. */
static void check_threads(const Subject *s, int threads, const AttentionCase *c, const AttentionInputs *in,
                          const AttentionOutputs *wanted) {
  Device *device = implementation_device(s->implementation, threads);
  AttentionOutputs got = attention_attend(device, c, in);
  check_same_bits(s->implementation->name, c, wanted, &got);
  attention_outputs_free(&got);
  device_destroy(device);
}

/* The float64 answer, and the same bits from a second call and from two threads (not where a sequence is cut
 * into many runs: threads that meet that often make a busy machine crawl). */
static void check_case(const Subject *s, const AttentionCase *c) {
  AttentionInputs in = attention_inputs(c, s->implementation->elements);
  AttentionAnswer wanted = attention_answer(c, &in);
  AttentionOutputs got = attention_attend(s->device, c, &in);
  check_outputs(s->implementation, c, &got, &wanted);
  AttentionOutputs again = attention_attend(s->device, c, &in);
  check_same_bits(s->implementation->name, c, &got, &again);
  if (implementation_on_host(s->device) && c->run * 3 >= c->length) check_threads(s, 2, c, &in, &got);
  attention_outputs_free(&again);
  attention_outputs_free(&got);
  attention_answer_free(&wanted);
  attention_inputs_free(&in);
}

/* Long enough for several chunks of queries and keys per head: threads must not meet in the same sums. */
static void check_many_threads(const Subject *s) {
  const int64_t length = test_wants_small() ? 2600 : 5000;
  const AttentionCase c = {
      .name = "many threads", .length = length, .heads = 2, .kv_heads = 2, .head_dim = 16};
  AttentionInputs in = attention_inputs(&c, s->implementation->elements);
  AttentionOutputs one = attention_attend(s->device, &c, &in);
  const int times = test_wants_small() ? 3 : 10;
  for (int i = 0; i < times; i++) check_threads(s, 4, &c, &in, &one);
  attention_outputs_free(&one);
  attention_inputs_free(&in);
}

/* The errors of a sequence cut into `runs` runs that meet as on a ring. */
static void ring_distances(const Subject *s, int64_t runs, double distances[ATTENTION_DISTANCES]) {
  const AttentionCase c = {.name = "ring of 16",
                           .length = 320,
                           .heads = 1,
                           .kv_heads = 1,
                           .head_dim = 64,
                           .run = 320 / runs,
                           .order = ORDER_RING};
  AttentionInputs in = attention_inputs(&c, s->implementation->elements);
  AttentionAnswer wanted = attention_answer(&c, &in);
  AttentionOutputs got = attention_attend(s->device, &c, &in);
  attention_distances(&c, &got, &wanted, distances);
  attention_outputs_free(&got);
  attention_answer_free(&wanted);
  attention_inputs_free(&in);
}

/* Whatever is folded stays in float until the end: the error of a ring does not grow with its size. */
static void check_ring_size(const Subject *s) {
  double one[ATTENTION_DISTANCES];
  double many[ATTENTION_DISTANCES];
  ring_distances(s, 1, one);
  ring_distances(s, 16, many);
  for (int i = 0; i < ATTENTION_DISTANCES; i++) {
    if (many[i] <= 2 * one[i]) continue;
    fail_msg("%s, %s: relative error %.3g in a ring of 16, %.3g in one run", s->implementation->name,
             attention_distance_names[i], many[i], one[i]);
  }
}

/* Device memory whose bytes must not change. */
typedef struct Kept {
  const void *memory;
  size_t bytes;
  void *before;
} Kept;

static Kept keep(Device *device, const void *memory, size_t bytes) {
  const Kept kept = {memory, bytes, attention_memory(bytes)};
  device_read(device, kept.before, memory, bytes);
  return kept;
}

static void check_kept(Device *device, const Kept *kept) {
  void *after = attention_memory(kept->bytes);
  device_read(device, after, kept->memory, kept->bytes);
  assert_memory_equal(kept->before, after, kept->bytes);
  free(kept->before);
  free(after);
}

enum { UNSEEN = 70 };

static void check_unseen_forward(Device *device, const AttentionDims *dims, const elem *q, int64_t stride,
                                 const int64_t *first_key, const void *kv) {
  const AttentionOps *ops = &device->ops.attention;
  const size_t bytes = ops->forward_bytes(dims, UNSEEN);
  void *state = attention_dirty(device, bytes);
  ops->forward_begin(device, dims, UNSEEN, q, stride, state);
  ops->forward_block(device, dims, UNSEEN, 0, first_key, state, UNSEEN, 0, kv);
  const Kept kept = keep(device, state, bytes);
  ops->forward_block(device, dims, UNSEEN, 0, first_key, state, UNSEEN, UNSEEN, kv);
  check_kept(device, &kept);
  device_free(device, state);
}

static void check_unseen_backward(Device *device, const AttentionDims *dims, const elem *q, int64_t stride,
                                  const int64_t *first_key, const void *kv) {
  const AttentionOps *ops = &device->ops.attention;
  const size_t bytes = ops->backward_bytes(dims, UNSEEN);
  const size_t dkv_bytes = ops->dkv_bytes(dims, UNSEEN);
  void *lse_zeros = attention_memory((size_t)(UNSEEN * dims->heads) * sizeof(float));
  float *lse = attention_to_device(device, (size_t)(UNSEEN * dims->heads) * sizeof(float), lse_zeros);
  void *state = attention_dirty(device, bytes);
  void *dkv = attention_dirty(device, dkv_bytes);
  device_zero(device, dkv, dkv_bytes);
  ops->backward_begin(device, dims, UNSEEN, q, stride, q, q, stride, lse, state);
  ops->backward_block(device, dims, UNSEEN, 0, first_key, state, UNSEEN, 0, kv, dkv);
  const Kept kept_state = keep(device, state, bytes);
  const Kept kept_dkv = keep(device, dkv, dkv_bytes);
  ops->backward_block(device, dims, UNSEEN, 0, first_key, state, UNSEEN, UNSEEN, kv, dkv);
  check_kept(device, &kept_state);
  check_kept(device, &kept_dkv);
  free(lse_zeros);
  device_free(device, lse);
  device_free(device, state);
  device_free(device, dkv);
}

/* A block that no query sees leaves the forward state, the backward state and dkv as they are. */
static void check_unseen_block(const Subject *s) {
  const AttentionCase c = {.length = UNSEEN, .heads = 2, .kv_heads = 1, .head_dim = 32};
  Device *device = s->device;
  AttentionInputs in = attention_inputs(&c, s->implementation->elements);
  int64_t *first_key = attention_to_device(device, (size_t)c.length * sizeof(int64_t), in.first_key);
  elem *q = attention_elements(device, c.length * in.q_stride, in.q);
  elem *k = attention_elements(device, c.length * in.k_stride, in.k);
  elem *v = attention_elements(device, c.length * in.k_stride, in.v);
  void *kv = attention_dirty(device, device->ops.attention.kv_bytes(&in.dims, c.length));
  device->ops.attention.pack_kv(device, &in.dims, c.length, k, v, in.k_stride, kv);
  check_unseen_forward(device, &in.dims, q, in.q_stride, first_key, kv);
  check_unseen_backward(device, &in.dims, q, in.q_stride, first_key, kv);
  device_free(device, first_key);
  device_free(device, q);
  device_free(device, k);
  device_free(device, v);
  device_free(device, kv);
  attention_inputs_free(&in);
}

/* A NaN in the inputs must come out, or a step with a broken model would not be noticed. */
static void check_nan(const Subject *s) {
  const AttentionCase c = {.name = "NaN", .length = 70, .heads = 1, .kv_heads = 1, .head_dim = 32};
  AttentionInputs in = attention_inputs(&c, s->implementation->elements);
  in.k[0] = NAN;
  AttentionOutputs got = attention_attend(s->device, &c, &in);
  for (int64_t i = 0; i < c.length; i++) {
    assert_true(isnan(got.out[i * c.head_dim]));
    assert_true(isnan(got.lse[i]));
    assert_true(isnan(got.dq[i * c.head_dim]));
  }
  attention_outputs_free(&got);
  attention_inputs_free(&in);
}

/* The heads that are computed at a time share the work evenly; of a long sequence not more than must be. */
static void check_heads_at_once(const Subject *s) {
  const int64_t counts[] = {1, 2, 3, 8, 9, 12, 35};
  const int64_t lengths[] = {1, 1024, 65536};
  for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
    const AttentionDims dims = {.heads = 2 * counts[i], .kv_heads = counts[i], .head_dim = 64, .scale = 1};
    int64_t before = counts[i];
    for (size_t j = 0; j < sizeof lengths / sizeof lengths[0]; j++) {
      const int64_t heads = s->device->ops.attention.heads_at_once(&dims, lengths[j]);
      assert_in_range(heads, 1, before);
      assert_int_equal(counts[i] % heads, 0);
      before = heads;
    }
  }
}

/* A run of no tokens is a run like any other. */
static void check_empty(const Subject *s) {
  const AttentionDims dims = {.heads = 1, .kv_heads = 1, .head_dim = 32, .scale = 1};
  const AttentionOps *ops = &s->device->ops.attention;
  void *state = attention_dirty(s->device, ops->forward_bytes(&dims, 0));
  void *kv = attention_dirty(s->device, ops->kv_bytes(&dims, 0));
  void *nothing = attention_dirty(s->device, 0);
  Error error = {0};
  ops->pack_kv(s->device, &dims, 0, nothing, nothing, 32, kv);
  ops->forward_begin(s->device, &dims, 0, nothing, 32, state);
  ops->forward_block(s->device, &dims, 0, 0, nothing, state, 0, 0, kv);
  ops->forward_end(s->device, &dims, 0, state, nothing, 32, nothing);
  assert_int_equal(device_check(s->device, &error), STATUS_OK);
  device_free(s->device, state);
  device_free(s->device, kv);
  device_free(s->device, nothing);
}

/* Central differences of the float64 loss sum(dout * out) by x[i], one of the answer's inputs. */
static double difference(const AttentionAnswer *a, double *x, int64_t i, double *out, double *lse) {
  const double step = 1e-5;
  const double kept = x[i];
  const int64_t count = a->problem.length * a->problem.heads * a->problem.head_dim;
  double loss[2] = {0, 0};
  for (int side = 0; side < 2; side++) {
    x[i] = kept + (side == 0 ? -step : step);
    attention64_forward(&a->problem, out, lse);
    for (int64_t j = 0; j < count; j++) loss[side] += a->dout[j] * out[j];
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
  AttentionInputs in = attention_inputs(&c, ELEMENT_F32);
  AttentionAnswer a = attention_answer(&c, &in);
  const int64_t q_count = c.length * c.heads * c.head_dim;
  const int64_t k_count = c.length * c.kv_heads * c.head_dim;
  double *out = attention_memory((size_t)q_count * sizeof *out);
  double *lse = attention_memory((size_t)(c.length * c.heads) * sizeof *lse);
  for (int64_t i = 0; i < q_count; i++) {
    assert_true(fabs(difference(&a, a.q, i, out, lse) - a.dq[i]) < 1e-8);
  }
  for (int64_t i = 0; i < k_count; i++) {
    assert_true(fabs(difference(&a, a.k, i, out, lse) - a.dk[i]) < 1e-8);
    assert_true(fabs(difference(&a, a.v, i, out, lse) - a.dv[i]) < 1e-8);
  }
  free(out);
  free(lse);
  attention_answer_free(&a);
  attention_inputs_free(&in);
}

/* False where a case takes an emulated device too long. */
static bool affordable(const Subject *s, const AttentionCase *c) {
  return !implementation_wants_small(s->device) || c->length * c->heads <= 1200;
}

static void check_all(const Subject *s) {
  for (size_t i = 0; i < CASES; i++) {
    if (affordable(s, &cases[i])) check_case(s, &cases[i]);
  }
  check_ring_size(s);
  check_unseen_block(s);
  check_nan(s);
  check_empty(s);
  check_heads_at_once(s);
}

/* Every check on the implementation of this name, where the machine has it. */
static void check_implementation(const char *name) {
  Subject s = {0};
  for (size_t i = 0; implementation_at(i) != NULL; i++) {
    if (strcmp(implementation_at(i)->name, name) == 0) s.implementation = implementation_at(i);
  }
  if (s.implementation != NULL) s.device = implementation_device(s.implementation, 1);
  if (s.device == NULL) skip();
  check_all(&s);
  if (strncmp(name, "avx", 3) == 0) check_many_threads(&s);
  device_destroy(s.device);
}

static void test_reference(void **unused) {
  (void)unused;
  check_implementation("reference");
}

static void test_reference_bf16(void **unused) {
  (void)unused;
  check_implementation("reference bf16");
}

static void test_avx512(void **unused) {
  (void)unused;
  check_implementation("avx512");
}

static void test_avx512_bf16(void **unused) {
  (void)unused;
  check_implementation("avx512_bf16 bf16");
}

static void test_avx512_without_bf16(void **unused) {
  (void)unused;
  check_implementation("avx512 bf16");
}

static void test_avx2(void **unused) {
  (void)unused;
  check_implementation("avx2");
}

static void test_avx2_bf16(void **unused) {
  (void)unused;
  check_implementation("avx2 bf16");
}

static void test_cuda_fp32(void **unused) {
  (void)unused;
  check_implementation("cuda fp32");
}

static void test_cuda_bf16(void **unused) {
  (void)unused;
  check_implementation("cuda bf16");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_equations),      cmocka_unit_test(test_reference),
      cmocka_unit_test(test_reference_bf16), cmocka_unit_test(test_avx512_bf16),
      cmocka_unit_test(test_avx512),         cmocka_unit_test(test_avx512_without_bf16),
      cmocka_unit_test(test_avx2),           cmocka_unit_test(test_avx2_bf16),
      cmocka_unit_test(test_cuda_fp32),      cmocka_unit_test(test_cuda_bf16),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
