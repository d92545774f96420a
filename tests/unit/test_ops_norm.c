/* LayerNorm and RMSNorm: every implementation against the float64 equations, gradients against finite
 * differences of them. */
#include <math.h>
#include <stdint.h>

#include "tests/support/ops_check.h"
#include "tests/support/unit.h"

static const int64_t rows[] = {1, 3, 40, 65};
static const int64_t columns[] = {1, 2, 7, 16, 17, 33, 64, 100, 257, 1000};
#define ROWS (sizeof rows / sizeof rows[0])
#define COLUMNS (sizeof columns / sizeof columns[0])

/* One norm's arrays; mean and bias are NULL for RMSNorm. */
typedef struct Norm {
  int64_t n, c;
  float eps;
  float *x;      /* (n, c) */
  float *weight; /* (c) */
  float *bias;   /* (c) or NULL */
  float *y;      /* (n, c) */
  float *mean;   /* (n) or NULL */
  float *rstd;   /* (n) */
} Norm;

/* Rows of unit variance around `centre`. */
static Norm make_norm(OpsRun *run, int64_t n, int64_t c, bool centred, double centre, float eps) {
  Norm norm = {.n = n, .c = c, .eps = eps, .x = ops_random(run, n * c, 1), .weight = ops_random(run, c, 1)};
  for (int64_t i = 0; i < n * c; i++) norm.x[i] += (float)centre;
  norm.y = ops_unset(run, n * c);
  norm.rstd = ops_unset(run, n);
  if (centred) {
    norm.bias = ops_random(run, c, 1);
    norm.mean = ops_unset(run, n);
  }
  return norm;
}

static void run_forward(OpsRun *run, const Norm *norm) {
  if (norm->bias != NULL) {
    run->ops->layernorm_forward(run->device, norm->n, norm->c, norm->eps, norm->x, norm->weight, norm->bias,
                                norm->y, norm->mean, norm->rstd);
  } else {
    run->ops->rmsnorm_forward(run->device, norm->n, norm->c, norm->eps, norm->x, norm->weight, norm->y,
                              norm->rstd);
  }
}

static RefNorm norm64(OpsRun *run, const Norm *norm) {
  return (RefNorm){.weight = ops_copy64(run, norm->c, norm->weight),
                   .bias = norm->bias != NULL ? ops_copy64(run, norm->c, norm->bias) : NULL,
                   .eps = (double)norm->eps,
                   .centred = norm->bias != NULL};
}

/* The statistics by their definition. */
static void check_statistics(OpsRun *run, const Norm *norm) {
  double *mean = ops_zeros64(run, norm->n);
  double *rstd = ops_zeros64(run, norm->n);
  for (int64_t i = 0; i < norm->n; i++) {
    const float *row = norm->x + i * norm->c;
    double squares = 0;
    for (int64_t j = 0; norm->mean != NULL && j < norm->c; j++) mean[i] += (double)row[j] / (double)norm->c;
    for (int64_t j = 0; j < norm->c; j++) squares += pow((double)row[j] - mean[i], 2) / (double)norm->c;
    rstd[i] = 1 / sqrt(squares + (double)norm->eps);
  }
  ops_within(run, "rstd", norm->c, largest_error(norm->n, norm->rstd, rstd), 2e-7);
  if (norm->mean != NULL) ops_within(run, "mean", norm->c, largest_error(norm->n, norm->mean, mean), 2e-7);
}

static void check_forward(OpsRun *run, int64_t n, int64_t c, bool centred, double centre) {
  const Norm norm = make_norm(run, n, c, centred, centre, 1e-5F);
  run_forward(run, &norm);
  const RefNorm reference = norm64(run, &norm);
  double *expected = ops_zeros64(run, n * c);
  ref_norm_forward(&reference, ops_matrix(ops_copy64(run, n * c, norm.x), n, c), ops_matrix(expected, n, c));
  /* A row of one element is its own mean: y is the bias, whatever rstd is. */
  ops_within(run, centred ? "layernorm_forward" : "rmsnorm_forward", c,
             largest_error(n * c, norm.y, expected), 5e-7);
  check_statistics(run, &norm);
  ops_record(run, (size_t)(n * c) * sizeof(float), norm.y);
  ops_record(run, (size_t)n * sizeof(float), norm.rstd);
}

static void check_forwards(OpsRun *run) {
  for (size_t i = 0; i < ROWS; i++) {
    for (size_t j = 0; j < COLUMNS; j++) {
      check_forward(run, rows[i], columns[j], true, 0);
      check_forward(run, rows[i], columns[j], false, 0);
    }
  }
  /* Rows far from zero keep their digits. */
  check_forward(run, 9, 257, true, 1000);
  check_forward(run, 9, 1000, true, -30);
}

/* The loss sum(dy * y) of one row, for finite differences. */
typedef struct RowLoss {
  const RefNorm *norm;
  int64_t c;
  const double *dy; /* (c) */
  double *x;        /* (c) */
  double *y;        /* (c), scratch */
} RowLoss;

static double row_loss(void *context) {
  const RowLoss *loss = context;
  ref_norm_forward(loss->norm, ops_matrix(loss->x, 1, loss->c), ops_matrix(loss->y, 1, loss->c));
  return ops_weighted_sum(loss->c, loss->dy, loss->y);
}

/* Adds to the gradients the finite differences of every row's loss. */
static void differences(OpsRun *run, const Norm *norm, const float *dy, double *dx, double *dweight,
                        double *dbias) {
  const int64_t c = norm->c;
  double *x = ops_copy64(run, norm->n * c, norm->x);
  double *dy64 = ops_copy64(run, norm->n * c, dy);
  double *y = ops_zeros64(run, c);
  double *weight = ops_copy64(run, c, norm->weight);
  double *bias = norm->bias != NULL ? ops_copy64(run, c, norm->bias) : NULL;
  const RefNorm reference = {
      .weight = weight, .bias = bias, .eps = (double)norm->eps, .centred = bias != NULL};
  for (int64_t i = 0; i < norm->n; i++) {
    RowLoss loss = {&reference, c, dy64 + i * c, x + i * c, y};
    ops_differences(c, x + i * c, row_loss, &loss, dx + i * c);
    ops_differences(c, weight, row_loss, &loss, dweight);
    if (bias != NULL) ops_differences(c, bias, row_loss, &loss, dbias);
  }
}

/* Every gradient is added to what is there. */
static void check_backward(OpsRun *run, int64_t n, int64_t c, bool centred) {
  const Norm norm = make_norm(run, n, c, centred, 0.5, 0.1F); /* eps: smooth enough for differences */
  run_forward(run, &norm);
  const float *dy = ops_random(run, n * c, 1);
  float *dx = ops_random(run, n * c, 1);
  float *dweight = ops_random(run, c, 1);
  float *dbias = ops_random(run, c, 1);
  double *dx64 = ops_copy64(run, n * c, dx);
  double *dweight64 = ops_copy64(run, c, dweight);
  double *dbias64 = ops_copy64(run, c, dbias);
  if (centred) {
    run->ops->layernorm_backward(run->device, n, c, dy, norm.x, norm.weight, norm.mean, norm.rstd, dx,
                                 dweight, dbias);
  } else {
    run->ops->rmsnorm_backward(run->device, n, c, dy, norm.x, norm.weight, norm.rstd, dx, dweight);
  }
  ops_record(run, (size_t)(n * c) * sizeof(float), dx);
  ops_record(run, (size_t)c * sizeof(float), dweight);
  ops_record(run, (size_t)c * sizeof(float), dbias);
  if (run->repeated) return;
  differences(run, &norm, dy, dx64, dweight64, dbias64);
  ops_within(run, centred ? "layernorm dx" : "rmsnorm dx", c, relative_error(n * c, dx, dx64), 5e-7);
  ops_within(run, centred ? "layernorm dweight" : "rmsnorm dweight", c, relative_error(c, dweight, dweight64),
             5e-7);
  ops_within(run, "dbias", c, relative_error(c, dbias, dbias64), 2e-7);
}

static void check_backwards(OpsRun *run) {
  for (size_t j = 0; j < COLUMNS; j++) {
    /* One row of one or two elements has next to no gradient by x for LayerNorm: rounding is all of it. */
    const int64_t n = columns[j] > 100 ? 2 : 35;
    if (columns[j] > 2) check_backward(run, n, columns[j], true);
    check_backward(run, n, columns[j], false);
  }
}

static void check_zero_sizes(OpsRun *run) {
  float one[1] = {1};
  float sums[2] = {3, 4};
  run->ops->layernorm_forward(run->device, 0, 1, 1e-5F, one, one, one, one, one, one);
  run->ops->rmsnorm_forward(run->device, 0, 1, 1e-5F, one, one, one, one);
  run->ops->layernorm_backward(run->device, 0, 1, one, one, one, one, one, one, sums, sums + 1);
  run->ops->rmsnorm_backward(run->device, 0, 1, one, one, one, one, one, sums);
  assert_true(one[0] == 1 && sums[0] == 3 && sums[1] == 4);
}

static void test_forward(void **state) {
  (void)state;
  ops_check_all(check_forwards);
}

static void test_backward(void **state) {
  (void)state;
  ops_check_all(check_backwards);
}

static void test_zero_sizes(void **state) {
  (void)state;
  ops_check_all(check_zero_sizes);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_forward),
      cmocka_unit_test(test_backward),
      cmocka_unit_test(test_zero_sizes),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
