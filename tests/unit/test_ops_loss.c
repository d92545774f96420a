/* Cross-entropy: every implementation against the float64 equations, the gradient against finite differences.
 */
#include <math.h>
#include <stdint.h>

#include "tests/support/ops_check.h"
#include "tests/support/unit.h"

/* Rows of logits, numbers of the run's elements, with their targets. */
typedef struct Logits {
  int64_t n, vocab;
  float *at;        /* (n, vocab) */
  int32_t *targets; /* (n) */
} Logits;

static Logits make_logits(OpsRun *run, int64_t n, int64_t vocab, double scale) {
  Logits logits = {.n = n, .vocab = vocab, .at = ops_random_elements(run, n * vocab, scale)};
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
static double gradient_error(const OpsRun *run, const Logits *logits, const float *gradient,
                             const double *expected) {
  double largest = 0;
  for (int64_t i = 0; i < logits->n; i++) {
    const int64_t at = i * logits->vocab;
    const double error = ops_relative_error(run, logits->vocab, gradient + at, expected + at);
    if (!(error <= largest)) largest = error;
    if (isnan(largest)) return largest;
  }
  return largest;
}

/* What the operation leaves behind. */
typedef struct Losses {
  const float *logits; /* (n, vocab) */
  const float *nll;    /* (n) */
} Losses;

static Losses run_loss(OpsRun *run, const Logits *logits, bool gradient) {
  const int64_t n = logits->n;
  const int64_t vocab = logits->vocab;
  const int64_t stride = vocab + vocab % 3;
  elem *at = ops_to_rows(run, n, vocab, stride, logits->at);
  const int32_t *targets = ops_to_device(run, (size_t)n * sizeof(int32_t), logits->targets);
  float *nll = ops_unset_floats(run, n);
  run->ops->cross_entropy(run->device, n, vocab, stride, at, targets, gradient, nll);
  return (Losses){.logits = ops_from_rows(run, n, vocab, stride, at), .nll = ops_from_floats(run, n, nll)};
}

/* Loss and gradient against the equations, and that the loss is the same without its gradient, which leaves
 * the logits alone. */
static void check_logits(OpsRun *run, const Logits *logits, double gradient_bound, const char *what) {
  const int64_t count = logits->n * logits->vocab;
  const Losses with = run_loss(run, logits, true);
  const Losses without = run_loss(run, logits, false);
  double *gradient64 = ops_copy64(run, count, logits->at);
  double *nll64 = ops_zeros64(run, logits->n);
  (void)ref_cross_entropy(ops_matrix(gradient64, logits->n, logits->vocab), logits->targets, 1, true, nll64);
  ops_within(run, what, logits->vocab, nll_error(logits->n, with.nll, nll64), 2e-7);
  ops_within(run, what, logits->vocab, gradient_error(run, logits, with.logits, gradient64), gradient_bound);
  for (int64_t i = 0; i < logits->n; i++) assert_true(with.nll[i] == without.nll[i]);
  for (int64_t i = 0; i < count; i++) assert_true(gradient64[i] != 0 || with.logits[i] == 0);
  for (int64_t i = 0; i < count; i++) assert_true(without.logits[i] == logits->at[i]);
}

static void check_sizes(OpsRun *run) {
  static const int64_t vocabs[] = {1, 2, 7, 17, 33, 100, 257, 1000, 2047, 2049, 50257};
  for (size_t i = 0; i < sizeof vocabs / sizeof vocabs[0]; i++) {
    const Logits logits = make_logits(run, vocabs[i] < 2000 ? 33 : 3, vocabs[i], 3);
    check_logits(run, &logits, 3e-7, "cross_entropy");
  }
  const Logits none = make_logits(run, 0, 7, 1);
  (void)run_loss(run, &none, true);
}

/* Rows as they come, with the target on top, far below, and with a maximum that comes late. */
static void check_large(OpsRun *run, double scale) {
  const int64_t vocab = 5000;
  const Logits logits = make_logits(run, 17, vocab, scale);
  for (int64_t row = 0; row < logits.n; row++) {
    float *target = logits.at + row * vocab + logits.targets[row];
    if (row % 3 == 1) *target = 12.0F;
    if (row % 3 == 2) *target = -1e4F;
    if (row % 4 == 1) logits.at[row * vocab + vocab - 1] = 1e4F;
  }
  ops_round(run, logits.n * vocab, logits.at);
  check_logits(run, &logits, 3e-7, "large logits");
}

/* Logits of any size. */
static void check_extremes(OpsRun *run) {
  static const double scales[] = {0, 1e-3, 30, 1e3, 1e4};
  for (size_t i = 0; i < sizeof scales / sizeof scales[0]; i++) check_large(run, scales[i]);
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
  const Losses with = run_loss(run, &logits, true);
  for (int64_t i = 0; i < logits.n * logits.vocab; i++) {
    const bool ignored = logits.targets[i / logits.vocab] == IGNORED_TARGET;
    assert_true((with.logits[i] == 0) == ignored);
    assert_true((with.nll[i / logits.vocab] == 0) == ignored);
  }
  const Losses without = run_loss(run, &logits, false);
  assert_true(isnan(without.logits[0]) && without.nll[0] == 0 && without.nll[1] > 0);
}

/* What is not finite shows in the loss, wherever it stands: the training loop relies on it. */
static void check_not_finite(OpsRun *run) {
  static const int64_t places[] = {0, 5, 16, 31, 2048, 2070};
  for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
    for (int infinite = 0; infinite < 2; infinite++) {
      const Logits logits = make_logits(run, 1, 2071, 1);
      logits.at[places[i]] = infinite ? INFINITY : NAN;
      if (!isfinite(run_loss(run, &logits, false).nll[0])) continue;
      fail_msg("%s: the loss hides the logit at %lld", run->implementation, (long long)places[i]);
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
  const Losses losses = run_loss(run, &logits, true);
  for (int64_t i = 0; i < 4; i++) {
    RowLoss loss = {100, x + 100 * i, ops_zeros64(run, 100), logits.targets[i]};
    ops_differences(100, x + 100 * i, row_loss, &loss, expected + 100 * i);
  }
  ops_within(run, "gradient of cross_entropy", 100, ops_relative_error(run, 400, losses.logits, expected),
             3e-7);
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
