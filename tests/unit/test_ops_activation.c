/* GELU, SwiGLU and the additions: every implementation against the float64 equations, gradients against
 * finite differences of them. */
#include <math.h>
#include <stdint.h>

#include "tests/support/ops_check.h"
#include "tests/support/unit.h"

static const int64_t counts[] = {0, 1, 7, 16, 17, 33, 100, 257, 1000, 9001};
#define COUNTS (sizeof counts / sizeof counts[0])

/* Values where exponentials over- and underflow, and those around them. */
static const float extremes[] = {0.0F,   -0.0F,   1e-30F, -1e-30F, 1e-3F,  -1e-3F, 5.0F,   -5.0F, 9.0F,
                                 -9.0F,  12.0F,   -12.0F, 50.0F,   -50.0F, 88.0F,  -88.0F, 89.0F, -89.0F,
                                 104.0F, -104.0F, 200.0F, -200.0F, 1e4F,   -1e4F,  1e8F,   -1e8F};
#define EXTREMES ((int64_t)(sizeof extremes / sizeof extremes[0]))

/* The derivative at x of f by central differences of fourth order. */
static double derivative(double (*f)(double x), double x) {
  const double step = 1e-3;
  return (8 * (f(x + step) - f(x - step)) - (f(x + 2 * step) - f(x - 2 * step))) / (12 * step);
}

static double gelu64(double x) {
  double y = 0;
  ref_gelu_forward(ops_matrix(&x, 1, 1), ops_matrix(&y, 1, 1));
  return y;
}

static double silu64(double x) {
  double y = 0;
  double one = 1;
  ref_swiglu_forward(ops_matrix(&x, 1, 1), ops_matrix(&one, 1, 1), ops_matrix(&y, 1, 1));
  return y;
}

static void check_gelu(OpsRun *run, int64_t count, const float *x) {
  const float *dy = ops_random(run, count, 1);
  float *y = ops_unset(run, count);
  float *dx = ops_unset(run, count);
  float *in_place = ops_copy(run, count, dy);
  run->ops->gelu_forward(run->device, count, x, y);
  run->ops->gelu_backward(run->device, count, x, dy, dx);
  run->ops->gelu_backward(run->device, count, x, in_place, in_place);
  for (int64_t i = 0; i < count; i++) assert_true(dx[i] == in_place[i]);
  ops_record(run, (size_t)count * sizeof(float), y);
  ops_record(run, (size_t)count * sizeof(float), dx);
  if (run->repeated) return;
  double *y64 = ops_zeros64(run, count);
  double *dx64 = ops_zeros64(run, count);
  for (int64_t i = 0; i < count; i++) {
    y64[i] = gelu64((double)x[i]);
    dx64[i] = (double)dy[i] * derivative(gelu64, (double)x[i]);
  }
  ops_within(run, "gelu_forward", count, largest_error(count, y, y64), 2e-7);
  ops_within(run, "gelu_backward", count, largest_error(count, dx, dx64), 3e-7);
}

static void check_gelus(OpsRun *run) {
  for (size_t i = 0; i < COUNTS; i++) check_gelu(run, counts[i], ops_random(run, counts[i], 2));
}

static void check_swiglu(OpsRun *run, int64_t n, int64_t f, const float *gate_up) {
  const float *dy = ops_random(run, n * f, 1);
  float *y = ops_unset(run, n * f);
  float *dgate_up = ops_unset(run, n * 2 * f);
  run->ops->swiglu_forward(run->device, n, f, gate_up, y);
  run->ops->swiglu_backward(run->device, n, f, gate_up, dy, dgate_up);
  ops_record(run, (size_t)(n * f) * sizeof(float), y);
  ops_record(run, (size_t)(n * 2 * f) * sizeof(float), dgate_up);
  if (run->repeated) return;
  double *y64 = ops_zeros64(run, n * f);
  double *dgate_up64 = ops_zeros64(run, n * 2 * f);
  for (int64_t i = 0; i < n * f; i++) {
    const int64_t gate = i / f * 2 * f + i % f;
    y64[i] = silu64((double)gate_up[gate]) * (double)gate_up[gate + f];
    dgate_up64[gate] = (double)dy[i] * derivative(silu64, (double)gate_up[gate]) * (double)gate_up[gate + f];
    dgate_up64[gate + f] = (double)dy[i] * silu64((double)gate_up[gate]);
  }
  ops_within(run, "swiglu_forward", f, largest_error(n * f, y, y64), 2e-7);
  ops_within(run, "swiglu_backward", f, largest_error(n * 2 * f, dgate_up, dgate_up64), 3e-7);
}

static void check_swiglus(OpsRun *run) {
  for (size_t i = 0; i < COUNTS; i++) {
    const int64_t n = i % 2 == 0 ? 5 : 1;
    check_swiglu(run, n, counts[i], ops_random(run, n * 2 * counts[i], 2));
  }
  check_swiglu(run, 0, 7, NULL);
}

/* Each extreme value by itself: no result may be off by more than a rounding, and none may be NaN. */
static void check_extremes(OpsRun *run) {
  for (int64_t i = 0; i < EXTREMES; i++) {
    const float one = 1;
    const float gate_up[2] = {extremes[i], 1};
    float results[5] = {NAN, NAN, NAN, NAN, NAN};
    run->ops->gelu_forward(run->device, 1, gate_up, results);
    run->ops->gelu_backward(run->device, 1, gate_up, &one, results + 1);
    run->ops->swiglu_forward(run->device, 1, 1, gate_up, results + 2);
    run->ops->swiglu_backward(run->device, 1, 1, gate_up, &one, results + 3);
    const double x = (double)extremes[i];
    const bool flat = fabs(x) > 60; /* beyond the reach of differences */
    const double expected[5] = {gelu64(x), flat ? (x > 0 ? 1 : 0) : derivative(gelu64, x), silu64(x),
                                flat ? (x > 0 ? 1 : 0) : derivative(silu64, x), silu64(x)};
    for (int k = 0; k < 5; k++) {
      const double size = fmax(fabs(expected[k]), 1e-2);
      ops_within(run, "extreme value", i, fabs((double)results[k] - expected[k]) / size, 3e-7);
    }
  }
}

/* NaN comes out as NaN: nothing hides it from the loss. */
static void check_nan(OpsRun *run) {
  const float one = 1;
  const float gate_up[2] = {NAN, 1};
  float results[5] = {0};
  run->ops->gelu_forward(run->device, 1, gate_up, results);
  run->ops->gelu_backward(run->device, 1, gate_up, &one, results + 1);
  run->ops->swiglu_forward(run->device, 1, 1, gate_up, results + 2);
  run->ops->swiglu_backward(run->device, 1, 1, gate_up, &one, results + 3);
  for (int k = 0; k < 5; k++) assert_true(isnan(results[k]));
}

static void check_adds(OpsRun *run) {
  for (size_t i = 0; i < COUNTS; i++) {
    const int64_t count = counts[i];
    const float *x = ops_random(run, count, 1);
    const float *start = ops_random(run, count, 1);
    float *y = ops_copy(run, count, start);
    float *y_f32 = ops_copy(run, count, start);
    run->ops->add(run->device, count, x, y);
    run->ops->add_f32(run->device, count, x, y_f32);
    for (int64_t j = 0; j < count; j++) assert_true(y[j] == start[j] + x[j] && y_f32[j] == y[j]);
  }
}

static void test_gelu(void **state) {
  (void)state;
  ops_check_all(check_gelus);
}

static void test_swiglu(void **state) {
  (void)state;
  ops_check_all(check_swiglus);
}

static void test_extremes(void **state) {
  (void)state;
  ops_check_all(check_extremes);
}

static void test_nan(void **state) {
  (void)state;
  ops_check_all(check_nan);
}

static void test_add(void **state) {
  (void)state;
  ops_check_all(check_adds);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_gelu), cmocka_unit_test(test_swiglu), cmocka_unit_test(test_extremes),
      cmocka_unit_test(test_nan),  cmocka_unit_test(test_add),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
