/* GELU, SwiGLU, conversions and additions: every implementation against the float64 equations, gradients
 * against finite differences of them. */
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "tests/support/elements.h"
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

static void check_gelu(OpsRun *run, int64_t count) {
  const float *x = ops_random_elements(run, count, 2);
  const float *dy = ops_random_elements(run, count, 1);
  const elem *x_device = ops_to_elements(run, count, x);
  const elem *dy_device = ops_to_elements(run, count, dy);
  elem *y_device = ops_unset_elements(run, count);
  elem *dx_device = ops_unset_elements(run, count);
  elem *in_place_device = ops_to_elements(run, count, dy);
  run->ops->gelu_forward(run->device, count, x_device, y_device);
  run->ops->gelu_backward(run->device, count, x_device, dy_device, dx_device);
  run->ops->gelu_backward(run->device, count, x_device, in_place_device, in_place_device);
  const float *y = ops_from_elements(run, count, y_device);
  const float *dx = ops_from_elements(run, count, dx_device);
  const float *in_place = ops_from_elements(run, count, in_place_device);
  for (int64_t i = 0; i < count; i++) assert_true(dx[i] == in_place[i]);
  if (run->repeated) return;
  double *y64 = ops_zeros64(run, count);
  double *dx64 = ops_zeros64(run, count);
  for (int64_t i = 0; i < count; i++) {
    y64[i] = gelu64((double)x[i]);
    dx64[i] = (double)dy[i] * derivative(gelu64, (double)x[i]);
  }
  ops_within(run, "gelu_forward", count, ops_largest_error(run, count, y, y64), 2e-7);
  ops_within(run, "gelu_backward", count, ops_largest_error(run, count, dx, dx64), 3e-7);
}

static void check_gelus(OpsRun *run) {
  for (size_t i = 0; i < COUNTS; i++) check_gelu(run, counts[i]);
}

static void check_swiglu(OpsRun *run, int64_t n, int64_t f) {
  const float *gate_up = ops_random_elements(run, n * 2 * f, 2);
  const float *dy = ops_random_elements(run, n * f, 1);
  const elem *gate_up_device = ops_to_elements(run, n * 2 * f, gate_up);
  elem *y_device = ops_unset_elements(run, n * f);
  elem *dgate_up_device = ops_unset_elements(run, n * 2 * f);
  run->ops->swiglu_forward(run->device, n, f, gate_up_device, y_device);
  run->ops->swiglu_backward(run->device, n, f, gate_up_device, ops_to_elements(run, n * f, dy),
                            dgate_up_device);
  const float *y = ops_from_elements(run, n * f, y_device);
  const float *dgate_up = ops_from_elements(run, n * 2 * f, dgate_up_device);
  if (run->repeated) return;
  double *y64 = ops_zeros64(run, n * f);
  double *dgate_up64 = ops_zeros64(run, n * 2 * f);
  for (int64_t i = 0; i < n * f; i++) {
    const int64_t gate = i / f * 2 * f + i % f;
    y64[i] = silu64((double)gate_up[gate]) * (double)gate_up[gate + f];
    dgate_up64[gate] = (double)dy[i] * derivative(silu64, (double)gate_up[gate]) * (double)gate_up[gate + f];
    dgate_up64[gate + f] = (double)dy[i] * silu64((double)gate_up[gate]);
  }
  ops_within(run, "swiglu_forward", f, ops_largest_error(run, n * f, y, y64), 2e-7);
  ops_within(run, "swiglu_backward", f, ops_largest_error(run, n * 2 * f, dgate_up, dgate_up64), 3e-7);
}

static void check_swiglus(OpsRun *run) {
  for (size_t i = 0; i < COUNTS; i++) check_swiglu(run, i % 2 == 0 ? 5 : 1, counts[i]);
  check_swiglu(run, 0, 7);
}

/* gelu(x), gelu'(x), silu(x), silu'(x), and the gradient of silu(x) by its factor 1: silu(x) once more. */
enum { RESULTS = 5 };

static void run_activations(OpsRun *run, float x, float results[RESULTS]) {
  const float gate_up[2] = {x, 1};
  const elem *gate_up_device = ops_to_elements(run, 2, gate_up);
  const elem *one = ops_to_elements(run, 1, gate_up + 1);
  elem *gelu = ops_unset_elements(run, 1);
  elem *dgelu = ops_unset_elements(run, 1);
  elem *swiglu = ops_unset_elements(run, 1);
  elem *dswiglu = ops_unset_elements(run, 2);
  run->ops->gelu_forward(run->device, 1, gate_up_device, gelu);
  run->ops->gelu_backward(run->device, 1, gate_up_device, one, dgelu);
  run->ops->swiglu_forward(run->device, 1, 1, gate_up_device, swiglu);
  run->ops->swiglu_backward(run->device, 1, 1, gate_up_device, one, dswiglu);
  results[0] = *ops_from_elements(run, 1, gelu);
  results[1] = *ops_from_elements(run, 1, dgelu);
  results[2] = *ops_from_elements(run, 1, swiglu);
  const float *gradients = ops_from_elements(run, 2, dswiglu);
  results[3] = gradients[0];
  results[4] = gradients[1];
}

/* Each extreme value by itself: no result may be off by more than a rounding, and none may be NaN. */
static void check_extremes(OpsRun *run) {
  for (int64_t i = 0; i < EXTREMES; i++) {
    const float value = ops_rounded(run, extremes[i]);
    const double x = (double)value;
    const bool flat = fabs(x) > 60; /* beyond the reach of differences */
    const double expected[RESULTS] = {gelu64(x), flat ? (x > 0 ? 1 : 0) : derivative(gelu64, x), silu64(x),
                                      flat ? (x > 0 ? 1 : 0) : derivative(silu64, x), silu64(x)};
    float results[RESULTS];
    run_activations(run, value, results);
    for (int k = 0; k < RESULTS; k++) {
      const double nearest = element_nearest(run->elements, results[k], expected[k]);
      const double size = fmax(fabs(expected[k]), 1e-2);
      ops_within(run, "extreme value", i, fabs(nearest - expected[k]) / size, 3e-7);
    }
  }
}

/* NaN comes out as NaN: nothing hides it from the loss. */
static void check_nan(OpsRun *run) {
  float results[RESULTS];
  run_activations(run, NAN, results);
  for (int k = 0; k < RESULTS; k++) assert_true(isnan(results[k]));
}

/* Halfway between two elements, beyond the largest, and numbers that are none. */
static const float rounded_specially[] = {
    0x1.01p0F, 0x1.03p0F, -0x1.01p0F, 0x1.0100002p0F, 0x1.fffffep127F, -0x1.fffffep127F, INFINITY, -INFINITY,
    0.0F,      -0.0F,     NAN};
#define SPECIAL ((int64_t)(sizeof rounded_specially / sizeof rounded_specially[0]))

static void check_conversion(OpsRun *run, int64_t count, const float *x) {
  elem *y_device = ops_unset_elements(run, count);
  run->ops->from_floats(run->device, count, ops_to_floats(run, count, x), y_device);
  const float *y = ops_from_elements(run, count, y_device);
  for (int64_t i = 0; i < count; i++) {
    const float expected = ops_rounded(run, x[i]);
    if (y[i] == expected && signbit(y[i]) == signbit(expected)) continue;
    if (isnan(y[i]) && isnan(expected)) continue;
    fail_msg("%s: %a became %a, expected %a", run->implementation, (double)x[i], (double)y[i],
             (double)expected);
  }
}

static void check_conversions(OpsRun *run) {
  for (size_t i = 0; i < COUNTS; i++) check_conversion(run, counts[i], ops_random(run, counts[i], 1));
  check_conversion(run, SPECIAL, rounded_specially);
  /* The upper half of this NaN's bits is that of infinity. */
  const uint32_t bits = 0x7F800001;
  float hidden;
  memcpy(&hidden, &bits, sizeof hidden);
  check_conversion(run, 1, &hidden);
}

static void check_add(OpsRun *run, int64_t count) {
  const float *x = ops_random(run, count, 1);
  const float *start = ops_random(run, count, 1);
  float *y_device = ops_to_floats(run, count, start);
  run->ops->add_f32(run->device, count, ops_to_floats(run, count, x), y_device);
  const float *y = ops_from_floats(run, count, y_device);
  for (int64_t i = 0; i < count; i++) assert_true(y[i] == start[i] + x[i]);
}

static void check_adds(OpsRun *run) {
  for (size_t i = 0; i < COUNTS; i++) check_add(run, counts[i]);
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

static void test_from_floats(void **state) {
  (void)state;
  ops_check_all(check_conversions);
}

static void test_add(void **state) {
  (void)state;
  ops_check_all(check_adds);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_gelu), cmocka_unit_test(test_swiglu),      cmocka_unit_test(test_extremes),
      cmocka_unit_test(test_nan),  cmocka_unit_test(test_from_floats), cmocka_unit_test(test_add),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
