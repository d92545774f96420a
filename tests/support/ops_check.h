/* One list of operation tests for every implementation: each check runs on a device of every instruction set
 * that this CPU has, with one and with several threads, and twice; what it records must be the same bits each
 * time. */
#ifndef RINGGPT_SUPPORT_OPS_CHECK_H
#define RINGGPT_SUPPORT_OPS_CHECK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/device.h"
#include "tests/reference/equations64.h"
#include "tests/support/compare.h"

typedef struct OpsMemory OpsMemory;

/* One run of a check on one device. Random numbers start alike in every run. */
typedef struct OpsRun {
  Device *device;
  const Ops *ops;
  Random random;
  const char *implementation;
  bool repeated;     /* bits alone count: an earlier run of the same was compared with float64 */
  uint64_t digest;   /* of all that was recorded */
  OpsMemory *memory; /* of this run, released behind it */
} OpsRun;

/* Runs the check on every implementation. Fails the running test where recorded bits differ between numbers
 * of threads or between calls, or where an operation failed. */
void ops_check_all(void (*check)(OpsRun *run));

/* Records a result whose bits must not depend on the number of threads. */
void ops_record(OpsRun *run, size_t bytes, const void *result);

/* Fails the test, naming implementation, operation and size, unless error <= bound. */
void ops_within(const OpsRun *run, const char *what, int64_t size, double error, double bound);

/* Memory of the run without a byte to spare: NaN everywhere; zeros; random numbers of mean 0 and
 * variance scale^2, evenly spread; those of `x`; and in double. */
float *ops_unset(OpsRun *run, int64_t count);
float *ops_zeros(OpsRun *run, int64_t count);
float *ops_random(OpsRun *run, int64_t count, double scale);
float *ops_copy(OpsRun *run, int64_t count, const float *x);
double *ops_zeros64(OpsRun *run, int64_t count);
double *ops_copy64(OpsRun *run, int64_t count, const float *x);
void *ops_bytes(OpsRun *run, size_t bytes);

/* The matrix (rows, cols) of the doubles at `at`. */
RefMatrix ops_matrix(double *at, int64_t rows, int64_t cols);

/* The largest difference over the largest magnitude expected. NaN in `got` gives NaN. */
double largest_error(int64_t count, const float *got, const double *expected);

/* The sum of weights (count) times values (count): a loss whose gradient by the values is the weights. */
double ops_weighted_sum(int64_t count, const double *weights, const double *values);

/* gradient (count) += that of loss(context) by x (count), by central differences of fourth order; x, which
 * the loss reads through its context, is changed and put back. */
void ops_differences(int64_t count, double *x, double (*loss)(void *context), void *context,
                     double *gradient);

#endif
