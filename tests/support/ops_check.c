/* One list of operation tests for every implementation: see the header. */
#include "tests/support/ops_check.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/unit.h"

struct OpsMemory {
  OpsMemory *next;
  void *bytes;
};

/* Bytes of one block; a block of its own for each array, so that a sanitizer sees every step beyond it. */
void *ops_bytes(OpsRun *run, size_t bytes) {
  OpsMemory *memory = malloc(sizeof *memory);
  assert_non_null(memory);
  memory->bytes = malloc(bytes > 0 ? bytes : 1);
  assert_non_null(memory->bytes);
  memory->next = run->memory;
  run->memory = memory;
  return memory->bytes;
}

static void release(OpsRun *run) {
  while (run->memory != NULL) {
    OpsMemory *memory = run->memory;
    run->memory = memory->next;
    free(memory->bytes);
    free(memory);
  }
}

float *ops_unset(OpsRun *run, int64_t count) {
  float *x = ops_bytes(run, (size_t)count * sizeof(float));
  for (int64_t i = 0; i < count; i++) x[i] = NAN;
  return x;
}

float *ops_zeros(OpsRun *run, int64_t count) {
  float *x = ops_bytes(run, (size_t)count * sizeof(float));
  for (int64_t i = 0; i < count; i++) x[i] = 0;
  return x;
}

float *ops_random(OpsRun *run, int64_t count, double scale) {
  float *x = ops_bytes(run, (size_t)count * sizeof(float));
  const double width = scale * sqrt(12);
  for (int64_t i = 0; i < count; i++) x[i] = (float)(width * (random_uniform(&run->random) - 0.5));
  return x;
}

float *ops_copy(OpsRun *run, int64_t count, const float *x) {
  float *copy = ops_bytes(run, (size_t)count * sizeof(float));
  for (int64_t i = 0; i < count; i++) copy[i] = x[i];
  return copy;
}

double *ops_zeros64(OpsRun *run, int64_t count) {
  double *x = ops_bytes(run, (size_t)count * sizeof(double));
  for (int64_t i = 0; i < count; i++) x[i] = 0;
  return x;
}

double *ops_copy64(OpsRun *run, int64_t count, const float *x) {
  double *copy = ops_bytes(run, (size_t)count * sizeof(double));
  for (int64_t i = 0; i < count; i++) copy[i] = (double)x[i];
  return copy;
}

RefMatrix ops_matrix(double *at, int64_t rows, int64_t cols) {
  return (RefMatrix){.at = at, .rows = rows, .cols = cols, .stride = cols};
}

/* FNV-1a of 64 bits (G. Fowler, L. Noll and K.-P. Vo, 1991). */
void ops_record(OpsRun *run, size_t bytes, const void *result) {
  const unsigned char *at = result;
  for (size_t i = 0; i < bytes; i++) run->digest = (run->digest ^ at[i]) * 0x100000001b3U;
}

void ops_within(const OpsRun *run, const char *what, int64_t size, double error, double bound) {
  char name[160];
  (void)snprintf(name, sizeof name, "%s, %d threads: %s, size %lld", run->implementation,
                 run->device->threads, what, (long long)size);
  check_within(name, error, bound);
}

double largest_error(int64_t count, const float *got, const double *expected) {
  double difference = 0;
  double largest = 0;
  for (int64_t i = 0; i < count; i++) {
    const double d = fabs((double)got[i] - expected[i]);
    if (!(d <= difference)) difference = d;
    if (isnan(difference)) return difference;
    largest = fmax(largest, fabs(expected[i]));
  }
  return largest > 0 ? difference / largest : difference;
}

double ops_weighted_sum(int64_t count, const double *weights, const double *values) {
  double sum = 0;
  for (int64_t i = 0; i < count; i++) sum += weights[i] * values[i];
  return sum;
}

void ops_differences(int64_t count, double *x, double (*loss)(void *context), void *context,
                     double *gradient) {
  for (int64_t i = 0; i < count; i++) {
    const double at = x[i];
    const double step = 1e-3;
    double values[4]; /* at -2, -1, 1 and 2 steps */
    for (int k = 0; k < 4; k++) {
      x[i] = at + step * (k < 2 ? k - 2 : k - 1);
      values[k] = loss(context);
    }
    x[i] = at;
    gradient[i] += (8 * (values[2] - values[1]) - (values[3] - values[0])) / (12 * step);
  }
}

/* ---------------------------------------------------------------- every implementation */

/* What RINGGPT_ISA may be; the widest first, since the first limits the products of the whole process. */
static const char *const implementations[] = {
    "reference",
#if defined(__x86_64__)
    "avx512",
    "avx2",
#endif
};
#define IMPLEMENTATIONS (sizeof implementations / sizeof implementations[0])

/* Stores the digest of a run; false where this CPU lacks the instruction set. */
static bool run_once(const char *implementation, int threads, bool repeated, void (*check)(OpsRun *run),
                     uint64_t *digest) {
  Error error = {0};
  OpsRun run = {.implementation = implementation, .random = {1}, .repeated = repeated};
  assert_int_equal(setenv("RINGGPT_ISA", implementation, 1), 0);
  const Status status = device_create(threads, &run.device, &error);
  assert_int_equal(unsetenv("RINGGPT_ISA"), 0);
  if (status == STATUS_CONFIG) return false;
  assert_int_equal(status, STATUS_OK);
  run.ops = &run.device->ops;
  check(&run);
  if (device_check(run.device, &error) != STATUS_OK) fail_msg("%s: %s", implementation, error.text);
  device_destroy(run.device);
  release(&run);
  *digest = run.digest;
  return true;
}

void ops_check_all(void (*check)(OpsRun *run)) {
  static const int threads[] = {1, 1, 3};
  for (size_t i = 0; i < IMPLEMENTATIONS; i++) {
    uint64_t first = 0;
    for (size_t t = 0; t < sizeof threads / sizeof threads[0]; t++) {
      uint64_t digest = 0;
      if (!run_once(implementations[i], threads[t], t > 0, check, &digest)) break;
      if (t == 0) first = digest;
      if (digest != first) {
        fail_msg("%s: other bits with %d threads than with one", implementations[i], threads[t]);
      }
    }
  }
}
