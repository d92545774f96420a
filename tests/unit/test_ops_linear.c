/* Products with a weight matrix: every implementation against float64. */
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "tests/support/ops_check.h"
#include "tests/support/unit.h"

typedef struct Sizes {
  int64_t n, inputs, outputs;
} Sizes;

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

static void check_forward(OpsRun *run) {
  for (size_t i = 0; i < COUNT; i++) {
    const Sizes *s = &sizes[i];
    const float *x = ops_random(run, s->n * s->inputs, 1);
    const float *w = ops_random(run, s->outputs * s->inputs, 1);
    const float *bias = i % 2 == 0 ? ops_random(run, s->outputs, 1) : NULL;
    float *y = ops_unset(run, s->n * s->outputs);
    run->ops->linear_forward(run->device, s->n, s->inputs, s->outputs, x, w, bias, y);
    ops_record(run, (size_t)(s->n * s->outputs) * sizeof(float), y);
    if (run->repeated) continue;
    const RefLinear layer = layer64(run, s, w, bias, w, NULL);
    const RefMatrix expected = ops_matrix(ops_zeros64(run, s->n * s->outputs), s->n, s->outputs);
    ref_linear_forward(&layer, ops_matrix(ops_copy64(run, s->n * s->inputs, x), s->n, s->inputs), expected);
    ops_within(run, "linear_forward", (int64_t)i, largest_error(s->n * s->outputs, y, expected.at), 1e-6);
  }
}

static void check_backward(OpsRun *run) {
  for (size_t i = 0; i < COUNT; i++) {
    const Sizes *s = &sizes[i];
    const int64_t count = s->inputs * s->outputs;
    const float *x = ops_random(run, s->n * s->inputs, 1);
    const float *w = ops_random(run, count, 1);
    const float *dy = ops_random(run, s->n * s->outputs, 1);
    float *dx = ops_unset(run, s->n * s->inputs);
    float *dw = ops_random(run, count, 1);
    float *dbias = i % 2 == 0 ? ops_random(run, s->outputs, 1) : NULL;
    const RefLinear layer = layer64(run, s, w, NULL, dw, dbias); /* before dw and dbias are added to */
    run->ops->linear_backward_input(run->device, s->n, s->inputs, s->outputs, dy, w, dx);
    run->ops->linear_backward_weight(run->device, s->n, s->inputs, s->outputs, dy, x, dw, dbias);
    ops_record(run, (size_t)(s->n * s->inputs) * sizeof(float), dx);
    ops_record(run, (size_t)count * sizeof(float), dw);
    if (dbias != NULL) ops_record(run, (size_t)s->outputs * sizeof(float), dbias);
    if (run->repeated) continue;
    const RefMatrix dx64 = ops_matrix(ops_zeros64(run, s->n * s->inputs), s->n, s->inputs);
    ref_linear_backward(&layer, ops_matrix(ops_copy64(run, s->n * s->inputs, x), s->n, s->inputs),
                        ops_matrix(ops_copy64(run, s->n * s->outputs, dy), s->n, s->outputs), dx64);
    ops_within(run, "linear dx", (int64_t)i, relative_error(s->n * s->inputs, dx, dx64.at), 1e-6);
    ops_within(run, "linear dw", (int64_t)i, relative_error(count, dw, layer.dweight.at), 1e-6);
    if (dbias == NULL) continue;
    ops_within(run, "linear dbias", (int64_t)i, relative_error(s->outputs, dbias, layer.dbias), 2e-7);
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
  const float *x = ops_random(run, 35, 1);
  const float *w = ops_random(run, 21, 1);
  const float *bias = ops_random(run, 3, 1);
  const float *dy = ops_random(run, 15, 1);
  double *bias64 = ops_copy64(run, 3, bias);
  LinearLoss loss = {.layer = layer64(run, &s, w, NULL, w, NULL),
                     .x = ops_matrix(ops_copy64(run, 35, x), 5, 7),
                     .y = ops_matrix(ops_zeros64(run, 15), 5, 3),
                     .dy = ops_copy64(run, 15, dy)};
  loss.layer.bias = bias64;
  double *expected = ops_zeros64(run, 35 + 21 + 3);
  ops_differences(35, loss.x.at, linear_loss, &loss, expected);
  ops_differences(21, loss.layer.weight.at, linear_loss, &loss, expected + 35);
  ops_differences(3, bias64, linear_loss, &loss, expected + 56);
  float *got = ops_zeros(run, 35 + 21 + 3);
  run->ops->linear_backward_input(run->device, 5, 7, 3, dy, w, got);
  run->ops->linear_backward_weight(run->device, 5, 7, 3, dy, x, got + 35, got + 56);
  ops_within(run, "differences of linear", 59, relative_error(59, got, expected), 2e-7);
}

/* With nothing to sum, forward gives the bias, backward zeros, and weight gradients stay as they are; with
 * nothing to give, nothing is touched. */
static void check_zero_sizes(OpsRun *run) {
  const float bias[2] = {3, 4};
  float y[4] = {NAN, NAN, NAN, NAN};
  run->ops->linear_forward(run->device, 2, 0, 2, bias, bias, bias, y);
  const float rows_of_bias[4] = {3, 4, 3, 4};
  assert_memory_equal(y, rows_of_bias, sizeof y);
  const float zeros[4] = {0};
  run->ops->linear_forward(run->device, 2, 0, 2, bias, bias, NULL, y);
  assert_memory_equal(y, zeros, sizeof y);
  y[0] = NAN;
  run->ops->linear_backward_input(run->device, 2, 2, 0, bias, bias, y);
  assert_memory_equal(y, zeros, sizeof y);
  float dw[4] = {1, 2, 3, 4};
  float dbias[2] = {5, 6};
  run->ops->linear_backward_weight(run->device, 0, 2, 2, bias, bias, dw, dbias);
  run->ops->linear_forward(run->device, 0, 2, 2, bias, dw, bias, dbias);
  run->ops->linear_forward(run->device, 2, 2, 0, dw, dw, bias, dbias);
  run->ops->linear_backward_input(run->device, 0, 2, 2, bias, dw, dbias);
  run->ops->linear_backward_input(run->device, 2, 0, 2, dw, dw, dbias);
  run->ops->linear_backward_weight(run->device, 2, 0, 2, dw, dw, dbias, NULL);
  const float dw_kept[4] = {1, 2, 3, 4};
  const float dbias_kept[2] = {5, 6};
  assert_memory_equal(dw, dw_kept, sizeof dw);
  assert_memory_equal(dbias, dbias_kept, sizeof dbias);
}

static void test_forward(void **state) {
  (void)state;
  ops_check_all(check_forward);
}

static void test_backward(void **state) {
  (void)state;
  ops_check_all(check_backward);
}

static void test_differences(void **state) {
  (void)state;
  ops_check_all(check_differences);
}

static void test_zero_sizes(void **state) {
  (void)state;
  ops_check_all(check_zero_sizes);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_forward),
      cmocka_unit_test(test_backward),
      cmocka_unit_test(test_differences),
      cmocka_unit_test(test_zero_sizes),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
