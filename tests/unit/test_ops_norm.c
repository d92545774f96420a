/* LayerNorm and RMSNorm: every implementation against the float64 equations, gradients against finite
 * differences of them; with a residual, bit for bit against the norm of the sum. */
#include <math.h>
#include <stdint.h>

#include "tests/support/implementations.h"
#include "tests/support/ops_check.h"
#include "tests/support/unit.h"

static const int64_t rows[] = {1, 3, 40, 65};
static const int64_t columns[] = {1, 2, 7, 16, 17, 33, 64, 100, 257, 1000, 1030};
#define ROWS (sizeof rows / sizeof rows[0])
#define COLUMNS (sizeof columns / sizeof columns[0])

/* A norm's inputs, and its results once run_forward has run; those without mean and bias are RMSNorms. */
typedef struct Norm {
  int64_t n, c;
  float eps;
  float *x;      /* (n, c) */
  float *weight; /* (c) */
  float *bias;   /* (c) or NULL */
  elem *x_device;
  const elem *residual_device; /* (n, c) or NULL */
  const elem *weight_device;
  float *mean_device;   /* (n) or NULL */
  float *rstd_device;   /* (n) */
  const float *x_after; /* (n, c) */
  const float *y;       /* (n, c) */
  const float *mean;    /* (n) or NULL */
  const float *rstd;    /* (n) */
} Norm;

/* Rows of unit variance around `centre`. */
static Norm make_norm(OpsRun *run, int64_t n, int64_t c, bool centred, double centre, float eps) {
  Norm norm = {.n = n, .c = c, .eps = eps, .x = ops_random(run, n * c, 1)};
  for (int64_t i = 0; i < n * c; i++) norm.x[i] += (float)centre;
  ops_round(run, n * c, norm.x);
  norm.weight = ops_random_elements(run, c, 1);
  norm.x_device = ops_to_elements(run, n * c, norm.x);
  norm.weight_device = ops_to_elements(run, c, norm.weight);
  if (centred) norm.bias = ops_random_elements(run, c, 1);
  return norm;
}

static void run_forward(OpsRun *run, Norm *norm) {
  elem *y = ops_unset_elements(run, norm->n * norm->c);
  norm->rstd_device = ops_unset_floats(run, norm->n);
  if (norm->bias != NULL) {
    norm->mean_device = ops_unset_floats(run, norm->n);
    run->ops->layernorm_forward(
        run->device, norm->n, norm->c, norm->eps, norm->residual_device, norm->x_device, norm->weight_device,
        ops_to_elements(run, norm->c, norm->bias), y, norm->mean_device, norm->rstd_device);
    norm->mean = ops_from_floats(run, norm->n, norm->mean_device);
  } else {
    run->ops->rmsnorm_forward(run->device, norm->n, norm->c, norm->eps, norm->residual_device, norm->x_device,
                              norm->weight_device, y, norm->rstd_device);
  }
  norm->rstd = ops_from_floats(run, norm->n, norm->rstd_device);
  norm->x_after = ops_from_elements(run, norm->n * norm->c, norm->x_device);
  norm->y = ops_from_elements(run, norm->n * norm->c, y);
}

static RefNorm norm64(OpsRun *run, const Norm *norm) {
  return (RefNorm){.weight = ops_copy64(run, norm->c, norm->weight),
                   .bias = norm->bias != NULL ? ops_copy64(run, norm->c, norm->bias) : NULL,
                   .eps = (double)norm->eps,
                   .centred = norm->bias != NULL};
}

/* The statistics, floats in every table, by their definition. */
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

/* All results, which are those of norm->x. */
static void check_results(OpsRun *run, const Norm *norm) {
  const int64_t n = norm->n;
  const int64_t c = norm->c;
  assert_memory_equal(norm->x_after, norm->x, (size_t)(n * c) * sizeof(float));
  if (run->repeated) return;
  const RefNorm reference = norm64(run, norm);
  double *expected = ops_zeros64(run, n * c);
  ref_norm_forward(&reference, ops_matrix(ops_copy64(run, n * c, norm->x), n, c), ops_matrix(expected, n, c));
  /* A row of one element is its own mean: y is the bias, whatever rstd is. */
  ops_within(run, norm->bias != NULL ? "layernorm_forward" : "rmsnorm_forward", c,
             ops_largest_error(run, n * c, norm->y, expected), 5e-7);
  check_statistics(run, norm);
}

/* The bits of both norms' results are the same. */
static void check_same(const Norm *a, const Norm *b) {
  assert_memory_equal(a->y, b->y, (size_t)(a->n * a->c) * sizeof(float));
  assert_memory_equal(a->rstd, b->rstd, (size_t)a->n * sizeof(float));
  if (a->mean != NULL) assert_memory_equal(a->mean, b->mean, (size_t)a->n * sizeof(float));
}

/* Without a residual x stays as it is; with one it becomes their rounded sum, and the norm is that of it. */
static void check_forward(OpsRun *run, int64_t n, int64_t c, bool centred, double centre) {
  Norm norm = make_norm(run, n, c, centred, centre, 1e-5F);
  const float *residual = ops_random_elements(run, n * c, 1);
  Norm fused = norm;
  fused.x_device = ops_to_elements(run, n * c, norm.x);
  fused.residual_device = ops_to_elements(run, n * c, residual);
  run_forward(run, &norm);
  check_results(run, &norm);
  for (int64_t i = 0; i < n * c; i++) norm.x[i] += residual[i];
  ops_round(run, n * c, norm.x);
  norm.x_device = ops_to_elements(run, n * c, norm.x);
  run_forward(run, &norm);
  run_forward(run, &fused);
  check_results(run, &fused);
  check_same(&fused, &norm);
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

/* Every gradient is added to what is there; dx + its old value is rounded to the elements once. */
static void check_backward(OpsRun *run, int64_t n, int64_t c, bool centred) {
  Norm norm = make_norm(run, n, c, centred, 0.5, 0.1F); /* eps: smooth enough for differences */
  run_forward(run, &norm);
  const float *dy = ops_random_elements(run, n * c, 1);
  const float *dx_start = ops_random_elements(run, n * c, 1);
  const float *dweight_start = ops_random(run, c, 1);
  const float *dbias_start = ops_random(run, c, 1);
  const elem *dy_device = ops_to_elements(run, n * c, dy);
  elem *dx_device = ops_to_elements(run, n * c, dx_start);
  float *dweight_device = ops_to_floats(run, c, dweight_start);
  float *dbias_device = ops_to_floats(run, c, dbias_start);
  if (centred) {
    run->ops->layernorm_backward(run->device, n, c, dy_device, norm.x_device, norm.weight_device,
                                 norm.mean_device, norm.rstd_device, dx_device, dweight_device, dbias_device);
  } else {
    run->ops->rmsnorm_backward(run->device, n, c, dy_device, norm.x_device, norm.weight_device,
                               norm.rstd_device, dx_device, dweight_device);
  }
  const float *dx = ops_from_elements(run, n * c, dx_device);
  const float *dweight = ops_from_floats(run, c, dweight_device);
  const float *dbias = ops_from_floats(run, c, dbias_device);
  if (run->repeated) return;
  double *dx64 = ops_copy64(run, n * c, dx_start);
  double *dweight64 = ops_copy64(run, c, dweight_start);
  double *dbias64 = ops_copy64(run, c, dbias_start);
  differences(run, &norm, dy, dx64, dweight64, dbias64);
  ops_within(run, centred ? "layernorm dx" : "rmsnorm dx", c, ops_relative_error(run, n * c, dx, dx64), 5e-7);
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
  /* Many rows, which are summed in parts: some, of which the last has a row alone, and as many as there may
   * be.
   */
  check_backward(run, 129, 17, true);
  check_backward(run, 129, 33, false);
  if (!implementation_wants_small(run->device)) check_backward(run, 8300, 3, true);
}

/* Without rows nothing is touched. */
static void check_zero_sizes(OpsRun *run) {
  static const float one[1] = {1};
  static const float sums_start[2] = {3, 4};
  const elem *row = ops_to_elements(run, 1, one);
  elem *out = ops_to_elements(run, 1, one);
  float *statistic = ops_to_floats(run, 1, one);
  float *sums = ops_to_floats(run, 2, sums_start);
  run->ops->layernorm_forward(run->device, 0, 1, 1e-5F, row, out, row, row, out, statistic, statistic);
  run->ops->rmsnorm_forward(run->device, 0, 1, 1e-5F, row, out, row, out, statistic);
  run->ops->layernorm_backward(run->device, 0, 1, row, row, row, statistic, statistic, out, sums, sums + 1);
  run->ops->rmsnorm_backward(run->device, 0, 1, row, row, row, statistic, out, sums);
  assert_true(ops_from_elements(run, 1, out)[0] == 1 && ops_from_floats(run, 1, statistic)[0] == 1);
  assert_memory_equal(ops_from_floats(run, 2, sums), sums_start, sizeof sums_start);
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
