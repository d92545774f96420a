/* One list of operation tests for every implementation (tests/support/implementations.h): each check runs on
 * a device of each that this machine has, several times and on the CPU with several threads; what it reads
 * back must be the same bits each time. One more run has arrays that are not aligned, whose sums may be added
 * in another order.
 *
 * A check holds its arrays twice: as floats or doubles of the host, and as memory of the device, which no
 * host code touches. Arrays of elements hold numbers that the run's element type has, so that the float64
 * equations start from the very numbers of the device. */
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
  ElementType elements;
  Random random;
  const char *implementation;
  bool repeated;     /* bits alone count: an earlier run of the same was compared with float64 */
  bool unaligned;    /* arrays of the device begin one element beyond what they could be aligned to */
  uint64_t digest;   /* of all that was read from the device */
  OpsMemory *memory; /* of this run, released behind it */
} OpsRun;

/* Runs the check on every implementation and prints which those were. Fails the running test where the bits
 * that it reads differ between numbers of threads or between calls on aligned arrays, or where an operation
 * failed. */
void ops_check_all(void (*check)(OpsRun *run));

/* Fails the test, naming implementation, operation and size, unless error <= bound. */
void ops_within(const OpsRun *run, const char *what, int64_t size, double error, double bound);

/* ---------------------------------------------------------------- memory of the host */

/* Memory of the run: bytes; zeros; random numbers of mean 0 and variance scale^2, evenly spread, as floats
 * and rounded to the run's elements; and in double zeros and the numbers of x. */
void *ops_bytes(OpsRun *run, size_t bytes);
float *ops_zeros(OpsRun *run, int64_t count);
float *ops_random(OpsRun *run, int64_t count, double scale);
float *ops_random_elements(OpsRun *run, int64_t count, double scale);
double *ops_zeros64(OpsRun *run, int64_t count);
double *ops_copy64(OpsRun *run, int64_t count, const float *x);

/* x rounded to the run's elements, and the numbers of an array rounded in their place. */
float ops_rounded(const OpsRun *run, float x);
void ops_round(const OpsRun *run, int64_t count, float *x);

/* The matrix (rows, cols) of the doubles at `at`. */
RefMatrix ops_matrix(double *at, int64_t rows, int64_t cols);

/* ---------------------------------------------------------------- memory of the device */

/* Memory of the device, of the run, without a byte to spare: what is in `host`, NULL for NULL. */
void *ops_to_device(OpsRun *run, size_t bytes, const void *host);

/* Copies device memory to the host and records it: its bits must not depend on the number of threads. Fails
 * the test when an operation has failed. */
void ops_from_device(OpsRun *run, size_t bytes, const void *device, void *host);

/* The same for arrays of floats and of elements; unset ones are NaN everywhere. */
float *ops_to_floats(OpsRun *run, int64_t count, const float *x);
float *ops_unset_floats(OpsRun *run, int64_t count);
float *ops_from_floats(OpsRun *run, int64_t count, const float *device);
elem *ops_to_elements(OpsRun *run, int64_t count, const float *x);
elem *ops_unset_elements(OpsRun *run, int64_t count);
float *ops_from_elements(OpsRun *run, int64_t count, const elem *device);

/* The same for rows (rows, width) whose beginnings are `stride` elements apart: with NaN between them, where
 * ops_from_rows fails the test if anything else is there. NULL for x: unset. */
elem *ops_to_rows(OpsRun *run, int64_t rows, int64_t width, int64_t stride, const float *x);
float *ops_from_rows(OpsRun *run, int64_t rows, int64_t width, int64_t stride, const elem *device);

/* ---------------------------------------------------------------- errors */

/* The largest difference over the largest magnitude expected. NaN in `got` gives NaN. */
double largest_error(int64_t count, const float *got, const double *expected);

/* largest_error and relative_error of elements that an operation rounds once, with that rounding taken out
 * where it is one to bf16: of the numbers that round to an element the nearest to the expected one counts.
 * So one bound serves both types: that of the float which the operation computes. */
double ops_largest_error(const OpsRun *run, int64_t count, const float *got, const double *expected);
double ops_relative_error(const OpsRun *run, int64_t count, const float *got, const double *expected);

/* ---------------------------------------------------------------- finite differences */

/* The sum of weights (count) times values (count): a loss whose gradient by the values is the weights. */
double ops_weighted_sum(int64_t count, const double *weights, const double *values);

/* gradient (count) += that of loss(context) by x (count), by central differences of fourth order; x, which
 * the loss reads through its context, is changed and put back. */
void ops_differences(int64_t count, double *x, double (*loss)(void *context), void *context,
                     double *gradient);

#endif
