/* The poll hook: long operations call it often, counted against their work, and only from the thread that
 * made the device. */
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/cpu_device.h"
#include "tests/support/attention_runs.h"
#include "tests/support/expect.h"
#include "tests/support/unit.h"

/* ---------------------------------------------------------------- the hook */

typedef struct Watch {
  pthread_t owner;
  atomic_int calls;
  atomic_int strangers; /* calls from other threads */
} Watch;

static void count_call(void *context) {
  Watch *watch = context;
  atomic_fetch_add(&watch->calls, 1);
  if (!pthread_equal(pthread_self(), watch->owner)) atomic_fetch_add(&watch->strangers, 1);
}

static Device *watched_device(int threads, ElementType elements, Watch *watch) {
  Device *device = NULL;
  Error error = {0};
  expect_ok(cpu_device_create(threads, elements, &device, &error), &error);
  watch->owner = pthread_self();
  device->poll = count_call;
  device->poll_context = watch;
  return device;
}

/* The calls since the last time. */
static int take_calls(Watch *watch) {
  assert_int_equal(atomic_load(&watch->strangers), 0);
  return atomic_exchange(&watch->calls, 0);
}

/* ---------------------------------------------------------------- operations over elements */

enum { ROWS = 1024, WIDTH = 1024, ELEMENTS = ROWS * WIDTH, BUFFERS = 5 };

/* Elements between two calls at most: some tens of microseconds. */
#define ELEMENTS_PER_CALL 65536

typedef struct Buffers {
  float *at[BUFFERS];  /* (2 ROWS, WIDTH) */
  int32_t *tokens;     /* (ROWS) */
  int64_t *positions;  /* (ROWS) */
  double *frequencies; /* (WIDTH / 2) */
  float *statistics;   /* (2 ROWS) */
} Buffers;

static Buffers make_buffers(void) {
  Buffers b;
  for (int i = 0; i < BUFFERS; i++) {
    b.at[i] = attention_memory((size_t)2 * ELEMENTS * sizeof(float));
    for (int64_t j = 0; j < (int64_t)2 * ELEMENTS; j++) b.at[i][j] = 0.5F;
  }
  b.tokens = attention_memory(ROWS * sizeof *b.tokens);
  b.positions = attention_memory(ROWS * sizeof *b.positions);
  b.frequencies = attention_memory(WIDTH * sizeof *b.frequencies);
  b.statistics = attention_memory((size_t)2 * ROWS * sizeof *b.statistics);
  for (int i = 0; i < ROWS; i++) {
    b.tokens[i] = i;
    b.positions[i] = i;
    b.statistics[i] = 1.0F;
  }
  return b;
}

static void free_buffers(Buffers *b) {
  for (int i = 0; i < BUFFERS; i++) free(b->at[i]);
  free(b->tokens);
  free(b->positions);
  free(b->frequencies);
  free(b->statistics);
}

static void embedding_forward(Device *d, Buffers *b) {
  d->ops.embedding_forward(d, ROWS, WIDTH, b->tokens, b->positions, b->at[0], b->at[1], b->at[2]);
}
static void embedding_backward(Device *d, Buffers *b) {
  d->ops.embedding_backward(d, ROWS, WIDTH, b->tokens, NULL, b->at[0], b->at[1], NULL);
}
static void layernorm_forward(Device *d, Buffers *b) {
  d->ops.layernorm_forward(d, ROWS, WIDTH, 1e-5F, NULL, b->at[0], b->at[1], b->at[2], b->at[3], b->statistics,
                           b->statistics + ROWS);
}
static void layernorm_backward(Device *d, Buffers *b) {
  d->ops.layernorm_backward(d, ROWS, WIDTH, b->at[0], b->at[1], b->at[2], b->statistics, b->statistics,
                            b->at[3], b->at[4], b->at[2]);
}
static void rmsnorm_forward(Device *d, Buffers *b) {
  d->ops.rmsnorm_forward(d, ROWS, WIDTH, 1e-5F, NULL, b->at[0], b->at[1], b->at[2], b->statistics);
}
static void rmsnorm_backward(Device *d, Buffers *b) {
  d->ops.rmsnorm_backward(d, ROWS, WIDTH, b->at[0], b->at[1], b->at[2], b->statistics, b->at[3], b->at[4]);
}
static void rope_table(Device *d, Buffers *b) {
  d->ops.rope_table(d, ROWS, WIDTH, b->positions, b->frequencies, b->at[0]);
}
static void rope_apply(Device *d, Buffers *b) {
  d->ops.rope_apply(d, ROWS, WIDTH / 64, 64, WIDTH, b->at[0], false, b->at[1]);
}
static void gelu_forward(Device *d, Buffers *b) {
  d->ops.gelu_forward(d, ELEMENTS, b->at[0], b->at[1]);
}
static void gelu_backward(Device *d, Buffers *b) {
  d->ops.gelu_backward(d, ELEMENTS, b->at[0], b->at[1], b->at[2]);
}
static void swiglu_forward(Device *d, Buffers *b) {
  d->ops.swiglu_forward(d, ROWS, WIDTH, b->at[0], b->at[1]);
}
static void swiglu_backward(Device *d, Buffers *b) {
  d->ops.swiglu_backward(d, ROWS, WIDTH, b->at[0], b->at[1], b->at[2]);
}
static void add_f32(Device *d, Buffers *b) {
  d->ops.add_f32(d, ELEMENTS, b->at[0], b->at[1]);
}
static void cross_entropy(Device *d, Buffers *b) {
  d->ops.cross_entropy(d, ROWS, WIDTH, WIDTH, b->at[0], b->tokens, true, b->statistics);
}
static void sum_of_squares(Device *d, Buffers *b) {
  double sum = 0;
  d->ops.sum_of_squares(d, ELEMENTS, b->at[0], &sum);
}
static void adamw(Device *d, Buffers *b) {
  const AdamwStep step = {.learning_rate = 1e-3F, .beta1 = 0.9F, .beta2 = 0.95F, .eps = 1e-8F, .step = 1};
  d->ops.adamw(d, &step, ELEMENTS, b->at[0], b->at[1], b->at[2], b->at[3]);
}
static void zero(Device *d, Buffers *b) {
  device_zero(d, b->at[0], (size_t)ELEMENTS * sizeof(float));
}
static void write_memory(Device *d, Buffers *b) {
  device_write(d, b->at[0], b->at[1], (size_t)ELEMENTS * sizeof(float));
}
static void read_memory(Device *d, Buffers *b) {
  device_read(d, b->at[0], b->at[1], (size_t)ELEMENTS * sizeof(float));
}

static const struct {
  const char *name;
  void (*run)(Device *device, Buffers *buffers);
} operations[] = {
    {"embedding_forward", embedding_forward},
    {"embedding_backward", embedding_backward},
    {"layernorm_forward", layernorm_forward},
    {"layernorm_backward", layernorm_backward},
    {"rmsnorm_forward", rmsnorm_forward},
    {"rmsnorm_backward", rmsnorm_backward},
    {"rope_table", rope_table},
    {"rope_apply", rope_apply},
    {"gelu_forward", gelu_forward},
    {"gelu_backward", gelu_backward},
    {"swiglu_forward", swiglu_forward},
    {"swiglu_backward", swiglu_backward},
    {"add_f32", add_f32},
    {"cross_entropy", cross_entropy},
    {"sum_of_squares", sum_of_squares},
    {"adamw", adamw},
    {"device_zero", zero},
    {"device_write", write_memory},
    {"device_read", read_memory},
};
#define OPERATIONS (sizeof operations / sizeof operations[0])

/* Threads share these loops evenly, so that each must call its part of the times. */
static void check_operations(int threads, ElementType elements) {
  Watch watch = {.calls = 0};
  Device *device = watched_device(threads, elements, &watch);
  Buffers buffers = make_buffers();
  for (size_t i = 0; i < OPERATIONS; i++) {
    operations[i].run(device, &buffers);
    const int calls = take_calls(&watch);
    if (calls >= ELEMENTS / ELEMENTS_PER_CALL / threads) continue;
    fail_msg("%s of %s: %d calls for %d elements, %d threads", device->ops.name, operations[i].name, calls,
             ELEMENTS, threads);
  }
  free_buffers(&buffers);
  device_destroy(device);
}

/* ---------------------------------------------------------------- products and attention */

/* Multiplications between two calls at most: about 200 us of a fast core, and for the blocks that oneDNN
 * computes in one go, some milliseconds. */
static int64_t multiplications_per_call(const char *implementation) {
  if (strcmp(implementation, "oneDNN") == 0) return INT64_C(1) << 29;
  return strncmp(implementation, "avx", 3) == 0 ? 20000000 : 100000;
}

static void check_calls(const char *what, const char *implementation, Watch *watch, int64_t multiplications,
                        int threads) {
  const int calls = take_calls(watch);
  /* Which thread takes which block of a loop is open: with several of them only the caller is known. */
  if (threads > 1 || calls >= multiplications / multiplications_per_call(implementation)) return;
  fail_msg("%s of %s: %d calls for %lld multiplications", what, implementation, calls,
           (long long)multiplications);
}

static void check_products(int threads, ElementType elements) {
  Watch watch = {.calls = 0};
  Device *device = watched_device(threads, elements, &watch);
  const char *name = strstr(device->summary, "oneDNN") != NULL ? "oneDNN" : "reference";
  /* Blocks beyond those that threads need anyway, and few rows of many sums. */
  const int64_t n = strcmp(name, "oneDNN") == 0 ? 2048 : 16;
  const int64_t width = strcmp(name, "oneDNN") == 0 ? 2048 : 1024;
  const int64_t work = n * width * width;
  float *x = attention_memory((size_t)(width * width) * sizeof *x);
  float *y = attention_memory((size_t)(width * width) * sizeof *y);
  float *w = attention_memory((size_t)(width * width) * sizeof *w);
  device->ops.linear_forward(device, n, width, width, width, x, w, NULL, y);
  check_calls("linear_forward", name, &watch, work, threads);
  device->ops.linear_backward_input(device, n, width, width, width, y, w, x);
  check_calls("linear_backward_input", name, &watch, work, threads);
  device->ops.linear_backward_weight(device, n, width, width, width, y, x, w, NULL);
  check_calls("linear_backward_weight", name, &watch, work, threads);
  assert_int_equal(device_check(device, &(Error){0}), STATUS_OK);
  free(x);
  free(y);
  free(w);
  device_destroy(device);
}

/* One block of queries behind all its keys. */
static void check_attention_block(int threads, ElementType elements, int64_t queries, int64_t keys,
                                  int64_t heads, int64_t d) {
  Watch watch = {.calls = 0};
  Device *device = watched_device(threads, elements, &watch);
  const AttentionOps *ops = &device->ops.attention;
  const AttentionDims dims = {.heads = heads, .kv_heads = heads, .head_dim = d, .scale = 0.1F};
  const int64_t work = queries * keys * heads * d;
  const size_t q_bytes = (size_t)(queries * heads * d) * sizeof(float);
  const size_t k_bytes = (size_t)(keys * heads * d) * sizeof(float);
  int64_t *first_key = attention_memory((size_t)queries * sizeof *first_key);
  float *q = attention_memory(q_bytes);
  float *out = attention_memory(q_bytes);
  float *lse = attention_memory((size_t)(queries * heads) * sizeof *lse);
  float *k = attention_memory(k_bytes);
  void *kv = attention_memory(ops->kv_bytes(&dims, keys));
  void *dkv = attention_memory(ops->dkv_bytes(&dims, keys));
  void *forward = attention_memory(ops->forward_bytes(&dims, queries));
  void *backward = attention_memory(ops->backward_bytes(&dims, queries));
  ops->pack_kv(device, &dims, keys, k, k, heads * d, kv);
  ops->forward_begin(device, &dims, queries, q, heads * d, forward);
  (void)take_calls(&watch);
  ops->forward_block(device, &dims, queries, keys, first_key, forward, keys, 0, kv);
  check_calls("forward_block", ops->name, &watch, 2 * work, threads);
  ops->forward_end(device, &dims, queries, forward, out, heads * d, lse);
  ops->backward_begin(device, &dims, queries, q, heads * d, out, q, heads * d, lse, backward);
  (void)take_calls(&watch);
  ops->backward_block(device, &dims, queries, keys, first_key, backward, keys, 0, kv, dkv);
  check_calls("backward_block", ops->name, &watch, 5 * work, threads);
  void *const blocks[] = {first_key, q, out, lse, k, kv, dkv, forward, backward};
  for (size_t i = 0; i < sizeof blocks / sizeof blocks[0]; i++) free(blocks[i]);
  device_destroy(device);
}

/* ---------------------------------------------------------------- all of them */

static void check_implementation(int threads, ElementType elements) {
  Device *device = NULL;
  Error error = {0};
  check_operations(threads, elements);
  check_products(threads, elements);
  expect_ok(cpu_device_create(1, elements, &device, &error), &error);
  const bool fast = strncmp(device->ops.attention.name, "avx", 3) == 0;
  device_destroy(device);
  const int64_t keys = test_wants_small() ? 2048 : 8192;                     /* where it is fast */
  check_attention_block(threads, elements, 256, fast ? keys : 1024, 1, 128); /* one task of a thread */
  const int64_t length = !fast ? 128 : test_wants_small() ? 1024 : 2048;
  check_attention_block(threads, elements, length, length, 3, 64);
}

static void check_all(int threads) {
  static const char *const names[] = {"reference", "avx2", "avx512", NULL};
  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
    Device *device = NULL;
    Error error = {0};
    assert_int_equal(names[i] != NULL ? setenv("RINGGPT_ISA", names[i], 1) : unsetenv("RINGGPT_ISA"), 0);
    const bool present = cpu_device_create(1, ELEMENT_F32, &device, &error) == STATUS_OK;
    device_destroy(device);
    for (int type = ELEMENT_F32; type <= ELEMENT_BF16 && present; type++) {
      check_implementation(threads, (ElementType)type);
    }
  }
  assert_int_equal(unsetenv("RINGGPT_ISA"), 0);
}

static void test_long_operations_poll_often(void **state) {
  (void)state;
  check_all(1);
}

static void test_only_the_owner_polls(void **state) {
  (void)state;
  check_all(3);
}

static void *poll_from_outside(void *device) {
  device_poll(device);
  return NULL;
}

static void test_other_threads_and_no_hook(void **state) {
  (void)state;
  Watch watch = {.calls = 0};
  pthread_t thread;
  Device *device = watched_device(1, ELEMENT_F32, &watch);
  assert_int_equal(pthread_create(&thread, NULL, poll_from_outside, device), 0);
  assert_int_equal(pthread_join(thread, NULL), 0);
  assert_int_equal(take_calls(&watch), 0);
  device_poll(device);
  assert_int_equal(take_calls(&watch), 1);
  device->poll = NULL;
  device_poll(device);
  assert_int_equal(take_calls(&watch), 0);
  device_destroy(device);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_long_operations_poll_often),
      cmocka_unit_test(test_only_the_owner_polls),
      cmocka_unit_test(test_other_threads_and_no_hook),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
