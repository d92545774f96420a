/* Products with a weight matrix: every implementation against float64. */
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "tests/support/implementations.h"
#include "tests/support/ops_check.h"
#include "tests/support/unit.h"

typedef struct Sizes {
  int64_t n, inputs, outputs;
} Sizes;

/* From row to row of y and its gradient: often with something in between. */
static int64_t stride_of(const Sizes *s) {
  return s->outputs + s->outputs % 3;
}

/* Odd sizes, single rows and columns, shapes whose inner size is long, and those of the models. */
static const Sizes sizes[] = {
    {1, 1, 1},       {1, 7, 17},      {7, 1, 33},      {17, 33, 7},      {33, 100, 257}, {100, 257, 33},
    {7, 1000, 100},  {1000, 7, 3},    {1, 512, 317},   {3, 5000, 1},     {46, 1024, 39}, {2000, 17, 9},
    {256, 128, 384}, {257, 128, 257}, {700, 130, 600}, {129, 1024, 362},
};
#define COUNT (sizeof sizes / sizeof sizes[0])

/* The float64 layer of the same numbers; gradients start at those of `dw` and `dbias`. */
static RefLinear layer64(OpsRun *run, const Sizes *s, const float *w, const float *bias, const float *dw,
                         const float *dbias) {
  const int64_t count = s->inputs * s->outputs;
  return (RefLinear){.weight = ops_matrix(ops_copy64(run, count, w), s->outputs, s->inputs),
                     .dweight = ops_matrix(ops_copy64(run, count, dw), s->outputs, s->inputs),
                     .bias = bias != NULL ? ops_copy64(run, s->outputs, bias) : NULL,
                     .dbias = dbias != NULL ? ops_copy64(run, s->outputs, dbias) : NULL};
}

static void check_forward(OpsRun *run, const Sizes *s, bool with_bias) {
  const float *x = ops_random_elements(run, s->n * s->inputs, 1);
  const float *w = ops_random_elements(run, s->outputs * s->inputs, 1);
  const float *bias = with_bias ? ops_random_elements(run, s->outputs, 1) : NULL;
  elem *y_device = ops_to_rows(run, s->n, s->outputs, stride_of(s), NULL);
  run->ops->linear_forward(
      run->device, s->n, s->inputs, s->outputs, stride_of(s), ops_to_elements(run, s->n * s->inputs, x),
      ops_to_elements(run, s->outputs * s->inputs, w), ops_to_elements(run, s->outputs, bias), y_device);
  const float *y = ops_from_rows(run, s->n, s->outputs, stride_of(s), y_device);
  if (run->repeated) return;
  const RefLinear layer = layer64(run, s, w, bias, w, NULL);
  const RefMatrix expected = ops_matrix(ops_zeros64(run, s->n * s->outputs), s->n, s->outputs);
  ref_linear_forward(&layer, ops_matrix(ops_copy64(run, s->n * s->inputs, x), s->n, s->inputs), expected);
  ops_within(run, "linear_forward", s->inputs, ops_largest_error(run, s->n * s->outputs, y, expected.at),
             1e-6);
}

/* Under a checker nothing that has so many terms: it would take half a minute. */
static bool affordable(const Sizes *s) {
  return !test_wants_small() || s->n * s->inputs * s->outputs < 20000000;
}

static void check_forwards(OpsRun *run) {
  for (size_t i = 0; i < COUNT; i++) {
    if (affordable(&sizes[i])) check_forward(run, &sizes[i], i % 2 == 0);
  }
}

/* Weight gradients are floats in every table: nothing of theirs is rounded to elements. */
static void check_backward(OpsRun *run, const Sizes *s, bool with_bias) {
  const int64_t x_count = s->n * s->inputs;
  const int64_t w_count = s->inputs * s->outputs;
  const float *x = ops_random_elements(run, x_count, 1);
  const float *w = ops_random_elements(run, w_count, 1);
  const float *dy = ops_random_elements(run, s->n * s->outputs, 1);
  const float *dw_start = ops_random(run, w_count, 1);
  const float *dbias_start = with_bias ? ops_random(run, s->outputs, 1) : NULL;
  const elem *dy_device = ops_to_rows(run, s->n, s->outputs, stride_of(s), dy);
  elem *dx_device = ops_unset_elements(run, x_count);
  float *dw_device = ops_to_floats(run, w_count, dw_start);
  float *dbias_device = ops_to_floats(run, s->outputs, dbias_start);
  run->ops->linear_backward_input(run->device, s->n, s->inputs, s->outputs, stride_of(s), dy_device,
                                  ops_to_elements(run, w_count, w), dx_device);
  run->ops->linear_backward_weight(run->device, s->n, s->inputs, s->outputs, stride_of(s), dy_device,
                                   ops_to_elements(run, x_count, x), dw_device, dbias_device);
  const float *dx = ops_from_elements(run, x_count, dx_device);
  const float *dw = ops_from_floats(run, w_count, dw_device);
  const float *dbias = with_bias ? ops_from_floats(run, s->outputs, dbias_device) : NULL;
  if (run->repeated) return;
  const RefLinear layer = layer64(run, s, w, NULL, dw_start, dbias_start);
  const RefMatrix dx64 = ops_matrix(ops_zeros64(run, x_count), s->n, s->inputs);
  ref_linear_backward(&layer, ops_matrix(ops_copy64(run, x_count, x), s->n, s->inputs),
                      ops_matrix(ops_copy64(run, s->n * s->outputs, dy), s->n, s->outputs), dx64);
  ops_within(run, "linear dx", s->outputs, ops_relative_error(run, x_count, dx, dx64.at), 1e-6);
  ops_within(run, "linear dw", s->n, relative_error(w_count, dw, layer.dweight.at), 1e-6);
  if (!with_bias) return;
  ops_within(run, "linear dbias", s->n, relative_error(s->outputs, dbias, layer.dbias), 2e-7);
}

static void check_backwards(OpsRun *run) {
  for (size_t i = 0; i < COUNT; i++) {
    if (affordable(&sizes[i])) check_backward(run, &sizes[i], i % 2 == 0);
  }
}

/* The loss sum(dy * y), for finite differences. */
typedef struct LinearLoss {
  RefLinear layer;
  RefMatrix x, y;
  const double *dy;
} LinearLoss;

static double linear_loss(void *context) {
  const LinearLoss *loss = context;
  ref_set_zero(loss->y);
  ref_linear_forward(&loss->layer, loss->x, loss->y);
  return ops_weighted_sum(loss->y.rows * loss->y.cols, loss->dy, loss->y.at);
}

static void check_differences(OpsRun *run) {
  const Sizes s = {5, 7, 3};
  const float *x = ops_random_elements(run, 35, 1);
  const float *w = ops_random_elements(run, 21, 1);
  const float *bias = ops_random_elements(run, 3, 1);
  const float *dy = ops_random_elements(run, 15, 1);
  double *bias64 = ops_copy64(run, 3, bias);
  LinearLoss loss = {.layer = layer64(run, &s, w, NULL, w, NULL),
                     .x = ops_matrix(ops_copy64(run, 35, x), 5, 7),
                     .y = ops_matrix(ops_zeros64(run, 15), 5, 3),
                     .dy = ops_copy64(run, 15, dy)};
  loss.layer.bias = bias64;
  double *dx64 = ops_zeros64(run, 35);
  double *dw64 = ops_zeros64(run, 21);
  double *dbias64 = ops_zeros64(run, 3);
  ops_differences(35, loss.x.at, linear_loss, &loss, dx64);
  ops_differences(21, loss.layer.weight.at, linear_loss, &loss, dw64);
  ops_differences(3, bias64, linear_loss, &loss, dbias64);
  const elem *dy_device = ops_to_elements(run, 15, dy);
  elem *dx = ops_unset_elements(run, 35);
  float *dw = ops_to_floats(run, 21, ops_zeros(run, 21));
  float *dbias = ops_to_floats(run, 3, ops_zeros(run, 3));
  run->ops->linear_backward_input(run->device, 5, 7, 3, 3, dy_device, ops_to_elements(run, 21, w), dx);
  run->ops->linear_backward_weight(run->device, 5, 7, 3, 3, dy_device, ops_to_elements(run, 35, x), dw,
                                   dbias);
  ops_within(run, "differences of linear, dx", 35,
             ops_relative_error(run, 35, ops_from_elements(run, 35, dx), dx64), 2e-7);
  ops_within(run, "differences of linear, dw", 21, relative_error(21, ops_from_floats(run, 21, dw), dw64),
             2e-7);
  ops_within(run, "differences of linear, dbias", 3,
             relative_error(3, ops_from_floats(run, 3, dbias), dbias64), 2e-7);
}

/* With nothing to sum, forward gives the bias and backward zeros. */
static void check_nothing_to_sum(OpsRun *run) {
  static const float bias[2] = {3, 4};
  static const float rows_of_bias[4] = {3, 4, 3, 4};
  static const float zeros[4] = {0};
  const elem *bias_device = ops_to_elements(run, 2, bias);
  const elem *nothing = ops_unset_elements(run, 0);
  elem *y = ops_unset_elements(run, 4);
  run->ops->linear_forward(run->device, 2, 0, 2, 2, nothing, nothing, bias_device, y);
  assert_memory_equal(ops_from_elements(run, 4, y), rows_of_bias, sizeof rows_of_bias);
  run->ops->linear_forward(run->device, 2, 0, 2, 2, nothing, nothing, NULL, y);
  assert_memory_equal(ops_from_elements(run, 4, y), zeros, sizeof zeros);
  elem *dx = ops_unset_elements(run, 4);
  run->ops->linear_backward_input(run->device, 2, 2, 0, 0, nothing, nothing, dx);
  assert_memory_equal(ops_from_elements(run, 4, dx), zeros, sizeof zeros);
}

/* Without rows weight gradients stay as they are; with nothing to give, nothing is touched. */
static void check_nothing_to_give(OpsRun *run) {
  static const float dw_start[4] = {1, 2, 3, 4};
  static const float dbias_start[2] = {5, 6};
  const elem *w = ops_to_elements(run, 4, dw_start);
  const elem *bias = ops_to_elements(run, 2, dbias_start);
  const elem *nothing = ops_unset_elements(run, 0);
  elem *out = ops_to_elements(run, 2, dbias_start);
  float *dw = ops_to_floats(run, 4, dw_start);
  float *dbias = ops_to_floats(run, 2, dbias_start);
  run->ops->linear_backward_weight(run->device, 0, 2, 2, 2, nothing, nothing, dw, dbias);
  run->ops->linear_forward(run->device, 0, 2, 2, 2, nothing, w, bias, out);
  run->ops->linear_forward(run->device, 2, 2, 0, 0, w, nothing, nothing, out);
  run->ops->linear_backward_input(run->device, 0, 2, 2, 2, nothing, w, out);
  run->ops->linear_backward_input(run->device, 2, 0, 2, 2, w, nothing, out);
  run->ops->linear_backward_weight(run->device, 2, 0, 2, 2, w, nothing, dw, NULL);
  assert_memory_equal(ops_from_floats(run, 4, dw), dw_start, sizeof dw_start);
  assert_memory_equal(ops_from_floats(run, 2, dbias), dbias_start, sizeof dbias_start);
  assert_memory_equal(ops_from_elements(run, 2, out), dbias_start, sizeof dbias_start);
}

static void check_zero_sizes(OpsRun *run) {
  check_nothing_to_sum(run);
  check_nothing_to_give(run);
}

/* More sizes than an implementation may keep something for; some of them again. */
enum { MANY_SIZES = 700, SIZES_AGAIN = 100 };

static void check_many_sizes(OpsRun *run) {
  const int64_t inputs = 8;
  if (implementation_wants_small(run->device)) return;
  float ones[MANY_SIZES * 8];
  for (int64_t i = 0; i < MANY_SIZES * inputs; i++) ones[i] = 1;
  const elem *x = ops_to_elements(run, MANY_SIZES * inputs, ones);
  const elem *w = ops_to_elements(run, inputs, ones);
  for (int64_t i = 0; i < MANY_SIZES + SIZES_AGAIN; i++) {
    const int64_t n = i % MANY_SIZES + 1;
    elem *y_device = ops_unset_elements(run, n);
    run->ops->linear_forward(run->device, n, inputs, 1, 1, x, w, NULL, y_device);
    const float *y = ops_from_elements(run, n, y_device);
    for (int64_t k = 0; k < n; k++) assert_true(y[k] == (float)inputs);
  }
}

static void test_forward(void **state) {
  (void)state;
  ops_check_all(check_forwards);
}

static void test_backward(void **state) {
  (void)state;
  ops_check_all(check_backwards);
}

static void test_differences(void **state) {
  (void)state;
  ops_check_all(check_differences);
}

static void test_many_sizes(void **state) {
  (void)state;
  ops_check_all(check_many_sizes);
}

static void test_zero_sizes(void **state) {
  (void)state;
  ops_check_all(check_zero_sizes);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_forward),     cmocka_unit_test(test_backward),
      cmocka_unit_test(test_differences), cmocka_unit_test(test_zero_sizes),
      cmocka_unit_test(test_many_sizes),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
