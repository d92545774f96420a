/* The sum of squares and AdamW, which work on floats in every table: every implementation against the
 * equations in float64. */
#include <math.h>
#include <stdint.h>

#include "tests/support/ops_check.h"
#include "tests/support/unit.h"

static const int64_t counts[] = {0, 1, 7, 17, 33, 100, 257, 1000, 100003};
#define COUNTS (sizeof counts / sizeof counts[0])

/* The sum is added to what is there. */
static void check_sum(OpsRun *run, int64_t count) {
  static const double start = 3e29;
  const float *x = ops_random(run, count, 1e15);
  double expected = start;
  for (int64_t j = 0; j < count; j++) expected += (double)x[j] * (double)x[j];
  double *sum_device = ops_to_device(run, sizeof start, &start);
  run->ops->sum_of_squares(run->device, count, ops_to_floats(run, count, x), sum_device);
  double sum = 0;
  ops_from_device(run, sizeof sum, sum_device, &sum);
  ops_within(run, "sum_of_squares", count, fabs(sum - expected) / expected, 1e-13);
}

/* The same of the numbers themselves, whose sum in float would lose digits. */
static void check_plain_sum(OpsRun *run, int64_t count) {
  static const double start = 0.25;
  float *x = ops_random(run, count, 1);
  double expected = start;
  for (int64_t j = 0; j < count; j++) x[j] += 8;
  for (int64_t j = 0; j < count; j++) expected += (double)x[j];
  double *sum_device = ops_to_device(run, sizeof start, &start);
  run->ops->sum(run->device, count, ops_to_floats(run, count, x), sum_device);
  double sum = 0;
  ops_from_device(run, sizeof sum, sum_device, &sum);
  ops_within(run, "sum", count, fabs(sum - expected) / expected, 1e-13);
}

static void check_sums(OpsRun *run) {
  for (size_t i = 0; i < COUNTS; i++) {
    check_sum(run, counts[i]);
    check_plain_sum(run, counts[i]);
  }
}

/* One update by the definition (I. Loshchilov and F. Hutter, 2019, algorithm 2). */
static void adamw64(const AdamwStep *step, int64_t count, const double *gradient, double *w, double *m,
                    double *v) {
  const double beta1 = (double)step->beta1;
  const double beta2 = (double)step->beta2;
  for (int64_t i = 0; i < count; i++) {
    const double g = gradient[i] * (double)step->gradient_scale;
    m[i] = beta1 * m[i] + (1 - beta1) * g;
    v[i] = beta2 * v[i] + (1 - beta2) * g * g;
    const double m_hat = m[i] / (1 - pow(beta1, (double)step->step));
    const double v_hat = v[i] / (1 - pow(beta2, (double)step->step));
    w[i] -= (double)step->learning_rate *
            (m_hat / (sqrt(v_hat) + (double)step->eps) + (double)step->weight_decay * w[i]);
  }
}

/* Several updates in a row, from zero moments; the change of the weights is what must be right. */
static void check_updates(OpsRun *run, int64_t count, float weight_decay) {
  AdamwStep step = {.learning_rate = 0.5F,
                    .beta1 = 0.9F,
                    .beta2 = 0.95F,
                    .eps = 1e-4F,
                    .weight_decay = weight_decay,
                    .gradient_scale = 0.25F};
  const float *start = ops_random(run, count, 1);
  float *w = ops_to_floats(run, count, start);
  float *m = ops_to_floats(run, count, ops_zeros(run, count));
  float *v = ops_to_floats(run, count, ops_zeros(run, count));
  double *w64 = ops_copy64(run, count, start);
  double *m64 = ops_zeros64(run, count);
  double *v64 = ops_zeros64(run, count);
  for (step.step = 1; step.step <= 4; step.step++) {
    const float *gradient = ops_random(run, count, 1);
    run->ops->adamw(run->device, &step, count, ops_to_floats(run, count, gradient), w, m, v);
    adamw64(&step, count, ops_copy64(run, count, gradient), w64, m64, v64);
  }
  ops_within(run, "adamw, first moment", count, relative_error(count, ops_from_floats(run, count, m), m64),
             2e-7);
  ops_within(run, "adamw, second moment", count, relative_error(count, ops_from_floats(run, count, v), v64),
             2e-7);
  ops_within(run, "adamw, weights", count, relative_error(count, ops_from_floats(run, count, w), w64), 6e-7);
}

/* A late step, where the corrections are all but 1, and gradients of nothing: the weights only decay. */
static void check_late_step(OpsRun *run) {
  const AdamwStep step = {.learning_rate = 0.125F,
                          .beta1 = 0.9F,
                          .beta2 = 0.999F,
                          .eps = 1e-8F,
                          .weight_decay = 0.5F,
                          .gradient_scale = 1,
                          .step = 100000};
  static const float gradient[3] = {0, 0, 1e-3F};
  static const float w_start[3] = {1, -2, 3};
  static const float m_start[3] = {0, 0, 1e-3F};
  static const float v_start[3] = {0, 0, 1e-6F};
  float *w_device = ops_to_floats(run, 3, w_start);
  float *m_device = ops_to_floats(run, 3, m_start);
  float *v_device = ops_to_floats(run, 3, v_start);
  run->ops->adamw(run->device, &step, 3, ops_to_floats(run, 3, gradient), w_device, m_device, v_device);
  const float *w = ops_from_floats(run, 3, w_device);
  assert_true(w[0] == 0.9375F && w[1] == -1.875F);
  assert_true(ops_from_floats(run, 3, m_device)[0] == 0 && ops_from_floats(run, 3, v_device)[1] == 0);
  assert_true(fabs((double)w[2] - (3 - 0.125 * (1 + 1.5))) < 1e-5);
}

static void check_adamw(OpsRun *run) {
  for (size_t i = 0; i < COUNTS; i++) {
    check_updates(run, counts[i], 0.1F);
    check_updates(run, counts[i], 0);
  }
  check_late_step(run);
}

static void test_sum_of_squares(void **state) {
  (void)state;
  ops_check_all(check_sums);
}

static void test_adamw(void **state) {
  (void)state;
  ops_check_all(check_adamw);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_sum_of_squares),
      cmocka_unit_test(test_adamw),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
