/* Cross-entropy: every implementation against the float64 equations, the gradient against finite differences.
 */
#include <math.h>
#include <stdint.h>

#include "tests/support/ops_check.h"
#include "tests/support/unit.h"

/* Rows of logits with their targets. */
typedef struct Logits {
  int64_t n, vocab;
  float *at;        /* (n, vocab) */
  int32_t *targets; /* (n) */
} Logits;

static Logits make_logits(OpsRun *run, int64_t n, int64_t vocab, double scale) {
  Logits logits = {.n = n, .vocab = vocab, .at = ops_random(run, n * vocab, scale)};
  logits.targets = ops_bytes(run, (size_t)n * sizeof(int32_t));
  for (int64_t i = 0; i < n; i++) logits.targets[i] = (int32_t)random_below(&run->random, vocab);
  return logits;
}

/* The largest relative error of a loss; below 1e-3 a rounding of the logits is all that is left of it. */
static double nll_error(int64_t n, const float *nll, const double *expected) {
  double largest = 0;
  for (int64_t i = 0; i < n; i++) {
    const double error = fabs((double)nll[i] - expected[i]) / fmax(expected[i], 1e-3);
    if (!(error <= largest)) largest = error;
    if (isnan(largest)) return largest;
  }
  return largest;
}

/* The largest relative error of a row's gradient. */
static double gradient_error(const Logits *logits, const float *gradient, const double *expected) {
  double largest = 0;
  for (int64_t i = 0; i < logits->n; i++) {
    const int64_t at = i * logits->vocab;
    const double error = relative_error(logits->vocab, gradient + at, expected + at);
    if (!(error <= largest)) largest = error;
    if (isnan(largest)) return largest;
  }
  return largest;
}

/* Loss and gradient against the equations, and that the loss is the same without its gradient, which leaves
 * the logits alone. */
static void check_logits(OpsRun *run, const Logits *logits, double gradient_bound, const char *what) {
  const int64_t count = logits->n * logits->vocab;
  float *nll = ops_unset(run, logits->n);
  float *nll_alone = ops_unset(run, logits->n);
  float *gradient = ops_copy(run, count, logits->at);
  float *untouched = ops_copy(run, count, logits->at);
  run->ops->cross_entropy(run->device, logits->n, logits->vocab, gradient, logits->targets, true, nll);
  run->ops->cross_entropy(run->device, logits->n, logits->vocab, untouched, logits->targets, false,
                          nll_alone);
  double *gradient64 = ops_copy64(run, count, logits->at);
  double *nll64 = ops_zeros64(run, logits->n);
  (void)ref_cross_entropy(ops_matrix(gradient64, logits->n, logits->vocab), logits->targets, 1, true, nll64);
  ops_within(run, what, logits->vocab, nll_error(logits->n, nll, nll64), 2e-7);
  ops_within(run, what, logits->vocab, gradient_error(logits, gradient, gradient64), gradient_bound);
  for (int64_t i = 0; i < logits->n; i++) assert_true(nll[i] == nll_alone[i]);
  for (int64_t i = 0; i < count; i++) assert_true(gradient64[i] != 0 || gradient[i] == 0);
  for (int64_t i = 0; i < count; i++) assert_true(untouched[i] == logits->at[i]);
  ops_record(run, (size_t)logits->n * sizeof(float), nll);
  ops_record(run, (size_t)count * sizeof(float), gradient);
}

static void check_sizes(OpsRun *run) {
  static const int64_t vocabs[] = {1, 2, 7, 17, 33, 100, 257, 1000, 2047, 2049, 50257};
  for (size_t i = 0; i < sizeof vocabs / sizeof vocabs[0]; i++) {
    const Logits logits = make_logits(run, vocabs[i] < 2000 ? 33 : 3, vocabs[i], 3);
    check_logits(run, &logits, 3e-7, "cross_entropy");
  }
  float empty = 1;
  run->ops->cross_entropy(run->device, 0, 7, &empty, NULL, true, &empty);
  assert_true(empty == 1);
}

/* Logits of any size: as they come, with the target on top, far below, and with a maximum that comes late. */
static void check_extremes(OpsRun *run) {
  static const double scales[] = {0, 1e-3, 30, 1e3, 1e4};
  for (size_t i = 0; i < sizeof scales / sizeof scales[0]; i++) {
    const Logits logits = make_logits(run, 17, 5000, scales[i]);
    for (int64_t row = 0; row < logits.n; row++) {
      float *target = logits.at + row * logits.vocab + logits.targets[row];
      if (row % 3 == 1) *target = 12.0F;
      if (row % 3 == 2) *target = -1e4F;
      if (row % 4 == 1) logits.at[row * logits.vocab + 4999] = 1e4F;
    }
    check_logits(run, &logits, 3e-7, "large logits");
  }
  /* The gradient of a confident row is small and made of small ones: no digits are lost on its way from 1. */
  const Logits confident = make_logits(run, 8, 257, 1);
  for (int64_t row = 0; row < confident.n; row++) {
    confident.at[row * 257 + confident.targets[row]] = 4 + 2 * (float)row;
  }
  check_logits(run, &confident, 2e-6, "confident logits");
}

static void check_ignored(OpsRun *run) {
  const Logits logits = make_logits(run, 9, 33, 1);
  for (int64_t i = 0; i < logits.n; i += 2) logits.targets[i] = IGNORED_TARGET;
  logits.at[0] = NAN; /* a row that nobody looks at may hold anything */
  float *nll = ops_unset(run, logits.n);
  float *gradient = ops_copy(run, logits.n * logits.vocab, logits.at);
  run->ops->cross_entropy(run->device, logits.n, logits.vocab, gradient, logits.targets, true, nll);
  for (int64_t i = 0; i < logits.n * logits.vocab; i++) {
    const bool ignored = logits.targets[i / logits.vocab] == IGNORED_TARGET;
    assert_true((gradient[i] == 0) == ignored);
    assert_true((nll[i / logits.vocab] == 0) == ignored);
  }
  run->ops->cross_entropy(run->device, logits.n, logits.vocab, logits.at, logits.targets, false, nll);
  assert_true(isnan(logits.at[0]) && nll[0] == 0 && nll[1] > 0);
}

/* What is not finite shows in the loss, wherever it stands: the training loop relies on it. */
static void check_not_finite(OpsRun *run) {
  static const int64_t places[] = {0, 5, 16, 31, 2048, 2070};
  for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
    for (int infinite = 0; infinite < 2; infinite++) {
      const Logits logits = make_logits(run, 1, 2071, 1);
      logits.at[places[i]] = infinite ? INFINITY : NAN;
      float nll = 0;
      run->ops->cross_entropy(run->device, 1, logits.vocab, logits.at, logits.targets, false, &nll);
      if (isfinite(nll)) fail_msg("the loss hides the logit at %lld", (long long)places[i]);
    }
  }
}

/* The loss of one row, for finite differences. */
typedef struct RowLoss {
  int64_t vocab;
  const double *logits;
  double *scratch;
  int32_t target;
} RowLoss;

static double row_loss(void *context) {
  const RowLoss *loss = context;
  for (int64_t j = 0; j < loss->vocab; j++) loss->scratch[j] = loss->logits[j];
  return ref_cross_entropy(ops_matrix(loss->scratch, 1, loss->vocab), &loss->target, 1, false, NULL);
}

static void check_differences(OpsRun *run) {
  const Logits logits = make_logits(run, 4, 100, 2);
  double *x = ops_copy64(run, 400, logits.at);
  double *expected = ops_zeros64(run, 400);
  float *nll = ops_unset(run, logits.n);
  run->ops->cross_entropy(run->device, 4, 100, logits.at, logits.targets, true, nll);
  for (int64_t i = 0; i < 4; i++) {
    RowLoss loss = {100, x + 100 * i, ops_zeros64(run, 100), logits.targets[i]};
    ops_differences(100, x + 100 * i, row_loss, &loss, expected + 100 * i);
  }
  ops_within(run, "gradient of cross_entropy", 100, relative_error(400, logits.at, expected), 3e-7);
}

static void test_sizes(void **state) {
  (void)state;
  ops_check_all(check_sizes);
}

static void test_extremes(void **state) {
  (void)state;
  ops_check_all(check_extremes);
}

static void test_ignored(void **state) {
  (void)state;
  ops_check_all(check_ignored);
}

static void test_not_finite(void **state) {
  (void)state;
  ops_check_all(check_not_finite);
}

static void test_differences(void **state) {
  (void)state;
  ops_check_all(check_differences);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_sizes),      cmocka_unit_test(test_extremes),    cmocka_unit_test(test_ignored),
      cmocka_unit_test(test_not_finite), cmocka_unit_test(test_differences),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
