/* The sum of squares and AdamW: every implementation against the equations in float64. */
#include <math.h>
#include <stdint.h>

#include "tests/support/ops_check.h"
#include "tests/support/unit.h"

static const int64_t counts[] = {0, 1, 7, 17, 33, 100, 257, 1000, 100003};
#define COUNTS (sizeof counts / sizeof counts[0])

static void check_sums(OpsRun *run) {
  for (size_t i = 0; i < COUNTS; i++) {
    const float *x = ops_random(run, counts[i], 1e15);
    double expected = 0;
    for (int64_t j = 0; j < counts[i]; j++) expected += (double)x[j] * (double)x[j];
    double sum = NAN;
    run->ops->sum_of_squares(run->device, counts[i], x, &sum);
    const double error = expected > 0 ? fabs(sum - expected) / expected : fabs(sum);
    ops_within(run, "sum_of_squares", counts[i], error, 1e-13);
    ops_record(run, sizeof sum, &sum);
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
  float *w = ops_random(run, count, 1);
  float *m = ops_zeros(run, count);
  float *v = ops_zeros(run, count);
  double *w64 = ops_copy64(run, count, w);
  double *m64 = ops_zeros64(run, count);
  double *v64 = ops_zeros64(run, count);
  for (step.step = 1; step.step <= 4; step.step++) {
    const float *gradient = ops_random(run, count, 1);
    run->ops->adamw(run->device, &step, count, gradient, w, m, v);
    adamw64(&step, count, ops_copy64(run, count, gradient), w64, m64, v64);
  }
  ops_within(run, "adamw, first moment", count, relative_error(count, m, m64), 2e-7);
  ops_within(run, "adamw, second moment", count, relative_error(count, v, v64), 2e-7);
  ops_within(run, "adamw, weights", count, relative_error(count, w, w64), 6e-7);
  ops_record(run, (size_t)count * sizeof(float), w);
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
  const float gradient[3] = {0, 0, 1e-3F};
  float w[3] = {1, -2, 3};
  float m[3] = {0, 0, 1e-3F};
  float v[3] = {0, 0, 1e-6F};
  run->ops->adamw(run->device, &step, 3, gradient, w, m, v);
  assert_true(w[0] == 0.9375F && w[1] == -1.875F && m[0] == 0 && v[1] == 0);
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
