/* Products of the CUDA device by both of its ways, cuBLASLt and the plain kernel behind it, at all
 * alignments: against sums in double, and the same bits from call to call. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/load.h"
#include "tests/support/elements.h"
#include "tests/support/test_device.h"
#include "tests/support/unit.h"

/* Arrays begin up to this many elements behind what cudaMalloc gives. */
#define SHIFT_MAX 9

typedef struct Case {
  int64_t n, inputs, outputs;
  int shift; /* elements by which the arrays are shifted */
} Case;

/* For bf16, cuBLASLt takes sizes that are multiples of 8 in arrays that are aligned to 16 bytes; others are
 * up to the version and the GPU. */
static const Case cases[] = {{1, 1, 1, 0},     {5, 7, 3, 0},     {16, 32, 24, 0}, {16, 32, 24, 8},
                             {16, 32, 24, 1},  {33, 64, 40, 0},  {32, 64, 40, 4}, {1, 8, 8, 0},
                             {301, 24, 16, 0}, {40, 200, 17, 0}, {17, 16, 33, 3}, {601, 8, 72, 9},
                             {48, 48, 48, 0}};
#define CASES (sizeof cases / sizeof cases[0])

/* From row to row of y and its gradient. */
static int64_t stride_of(const Case *s) {
  return s->outputs + s->shift;
}

/* An array of `count` numbers, on the host and shifted on the device. */
typedef struct Array {
  Device *device;
  ElementType type;
  int64_t count;
  float *host;
  void *memory;
  unsigned char *at; /* in memory */
} Array;

static void send(const Array *array) {
  void *packed = malloc(elements_bytes(array->type, array->count) + 1);
  assert_non_null(packed);
  elements_pack(array->type, array->count, array->host, packed);
  device_write(array->device, array->at, packed, elements_bytes(array->type, array->count));
  free(packed);
}

/* Numbers that the type has, of mean 0. */
static Array make_array(Device *device, ElementType type, int64_t count, int shift, uint32_t seed) {
  Error error = {0};
  Array array = {
      .device = device, .type = type, .count = count, .host = malloc((size_t)count * sizeof(float))};
  assert_non_null(array.host);
  for (int64_t i = 0; i < count; i++) {
    seed = seed * 1664525U + 1013904223U;
    array.host[i] = element_round(type, (float)(seed >> 8) / 8388608.0F - 1.0F);
  }
  if (device_alloc(device, elements_bytes(type, count + SHIFT_MAX), "a test", &array.memory, &error) !=
      STATUS_OK) {
    fail_msg("%s", error.text);
  }
  array.at = (unsigned char *)array.memory + elements_bytes(type, shift);
  send(&array);
  return array;
}

static void release(Array *array) {
  device_free(array->device, array->memory);
  free(array->host);
}

static float *fetch(const Array *array) {
  void *packed = malloc(elements_bytes(array->type, array->count) + 1);
  float *values = malloc((size_t)array->count * sizeof *values);
  assert_non_null(packed);
  assert_non_null(values);
  device_read(array->device, packed, array->at, elements_bytes(array->type, array->count));
  elements_unpack(array->type, array->count, packed, values);
  free(packed);
  return values;
}

/* Two matrices to be multiplied: a (m, k) and b (k, n) with the distances between neighbours, and those of
 * rows of the product. */
typedef struct Factors {
  int64_t m, n, k;
  const float *a, *b;
  int64_t a_row, a_column, b_row, b_column, c_row;
} Factors;

/* Checks c (m, n) = a b + start, where start is a row (bias) or a whole matrix. */
static void expect_product(const char *what, const Case *at, const Factors *f, const float *start,
                           int64_t start_row, const Array *c) {
  float *got = fetch(c);
  for (int64_t i = 0; i < f->m; i++) {
    for (int64_t j = 0; j < f->n; j++) {
      double sum = start != NULL ? (double)start[i * start_row + j] : 0;
      double size = fabs(sum);
      for (int64_t l = 0; l < f->k; l++) {
        const double product =
            (double)f->a[i * f->a_row + l * f->a_column] * (double)f->b[l * f->b_row + j * f->b_column];
        sum += product;
        size += fabs(product);
      }
      /* One rounding to the type, and those of sums in float. */
      const double bound = fabs(sum) * (c->type == ELEMENT_BF16 ? 0x1p-8 : 0x1p-23) + size * 5e-7;
      const double error = fabs((double)got[i * f->c_row + j] - sum);
      if (!(error <= bound)) {
        fail_msg("%s (%lld, %lld, %lld) shifted by %d: element (%lld, %lld) is %g, not %g", what,
                 (long long)at->n, (long long)at->inputs, (long long)at->outputs, at->shift, (long long)i,
                 (long long)j, (double)got[i * f->c_row + j], sum);
      }
    }
  }
  free(got);
}

/* The operations of a case, twice from the same start, with the same bits. */
typedef struct Layer {
  const Case *size;
  Array x, w, bias, dy, y, dx, dw, dbias;
} Layer;

static void run(Device *device, const Layer *l, bool bias) {
  const Case *s = l->size;
  device->ops.linear_forward(device, s->n, s->inputs, s->outputs, stride_of(s), l->x.at, l->w.at,
                             bias ? l->bias.at : NULL, l->y.at);
  device->ops.linear_backward_input(device, s->n, s->inputs, s->outputs, stride_of(s), l->dy.at, l->w.at,
                                    l->dx.at);
  device->ops.linear_backward_weight(device, s->n, s->inputs, s->outputs, stride_of(s), l->dy.at, l->x.at,
                                     (float *)(void *)l->dw.at, bias ? (float *)(void *)l->dbias.at : NULL);
}

static void expect_same(Device *device, const Layer *l, bool bias) {
  const Array *const results[] = {&l->y, &l->dx, &l->dw, &l->dbias};
  float *first[4];
  for (int i = 0; i < 4; i++) first[i] = fetch(results[i]);
  for (int i = 0; i < 4; i++) send(results[i]);
  run(device, l, bias);
  for (int i = 0; i < 4; i++) {
    float *second = fetch(results[i]);
    assert_memory_equal(second, first[i], (size_t)results[i]->count * sizeof(float));
    free(second);
    free(first[i]);
  }
}

static void check_layer(const Layer *l, bool bias) {
  const Case *s = l->size;
  const int64_t n = s->n;
  const int64_t inputs = s->inputs;
  const int64_t outputs = s->outputs;
  const int64_t stride = stride_of(s);
  const Factors forward = {n, outputs, inputs, l->x.host, l->w.host, inputs, 1, 1, inputs, stride};
  expect_product("linear_forward", s, &forward, bias ? l->bias.host : NULL, 0, &l->y);
  const Factors input = {n, inputs, outputs, l->dy.host, l->w.host, stride, 1, inputs, 1, inputs};
  expect_product("linear_backward_input", s, &input, NULL, 0, &l->dx);
  const Factors weight = {outputs, inputs, n, l->dy.host, l->x.host, 1, stride, inputs, 1, inputs};
  expect_product("linear_backward_weight", s, &weight, l->dw.host, inputs, &l->dw);
  const float one = 1;
  const Factors columns = {1, outputs, bias ? n : 0, &one, l->dy.host, 0, 0, stride, 1, outputs};
  expect_product("gradient of the bias", s, &columns, l->dbias.host, 0, &l->dbias);
}

static void check_case(Device *device, ElementType type, const Case *s, bool bias) {
  const int shift = s->shift;
  Layer l = {.size = s,
             .x = make_array(device, type, s->n * s->inputs, shift, 1),
             .w = make_array(device, type, s->outputs * s->inputs, shift, 2),
             .bias = make_array(device, type, s->outputs, shift, 3),
             .dy = make_array(device, type, s->n * stride_of(s), shift, 4),
             .y = make_array(device, type, s->n * stride_of(s), shift, 5),
             .dx = make_array(device, type, s->n * s->inputs, shift, 6),
             .dw = make_array(device, ELEMENT_F32, s->outputs * s->inputs, shift, 7),
             .dbias = make_array(device, ELEMENT_F32, s->outputs, shift, 8)};
  run(device, &l, bias);
  check_layer(&l, bias);
  expect_same(device, &l, bias);
  Array *const arrays[] = {&l.x, &l.w, &l.bias, &l.dy, &l.y, &l.dx, &l.dw, &l.dbias};
  for (size_t i = 0; i < sizeof arrays / sizeof arrays[0]; i++) release(arrays[i]);
}

static void check_all(ElementType type) {
  Error error = {0};
  Device *device = NULL;
  if (cuda_device_create(0, type, &device, &error) != STATUS_OK) fail_msg("%s", error.text);
  for (size_t i = 0; i < CASES; i++) {
    check_case(device, type, &cases[i], i % 2 == 0);
    check_case(device, type, &cases[i], i % 2 != 0);
  }
  if (device_check(device, &error) != STATUS_OK) fail_msg("%s", error.text);
  device_destroy(device);
}

/* EMULATED_BLAS=refuse: the emulated cuBLASLt refuses every product. */
static void check_both_ways(ElementType type) {
  test_device_need_cuda();
  check_all(type);
  assert_int_equal(setenv("EMULATED_BLAS", "refuse", 1), 0);
  check_all(type);
  assert_int_equal(unsetenv("EMULATED_BLAS"), 0);
}

static void test_f32(void **state) {
  (void)state;
  check_both_ways(ELEMENT_F32);
}

static void test_bf16(void **state) {
  (void)state;
  check_both_ways(ELEMENT_BF16);
}

/* More forms than a device keeps plans of, twice: those given up are made again. */
static void test_many_forms(void **state) {
  (void)state;
  test_device_need_cuda();
  Error error = {0};
  Device *device = NULL;
  if (cuda_device_create(0, ELEMENT_BF16, &device, &error) != STATUS_OK) fail_msg("%s", error.text);
  for (int turn = 0; turn < 2; turn++) {
    for (int64_t n = 8; n <= 8 * 60; n += 8) {
      const Case size = {n, 8, 8, 0};
      check_case(device, ELEMENT_BF16, &size, false);
    }
  }
  if (device_check(device, &error) != STATUS_OK) fail_msg("%s", error.text);
  device_destroy(device);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_f32),
      cmocka_unit_test(test_bf16),
      cmocka_unit_test(test_many_forms),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
