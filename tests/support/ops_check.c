/* One list of operation tests for every implementation: see the header. */
#include "tests/support/ops_check.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/elements.h"
#include "tests/support/implementations.h"
#include "tests/support/unit.h"

struct OpsMemory {
  OpsMemory *next;
  void *bytes;
  bool of_device; /* from device_alloc */
};

static void *keep(OpsRun *run, void *bytes, bool of_device) {
  OpsMemory *memory = malloc(sizeof *memory);
  assert_non_null(memory);
  *memory = (OpsMemory){.next = run->memory, .bytes = bytes, .of_device = of_device};
  run->memory = memory;
  return bytes;
}

static void release(OpsRun *run) {
  while (run->memory != NULL) {
    OpsMemory *memory = run->memory;
    run->memory = memory->next;
    if (memory->of_device) {
      device_free(run->device, memory->bytes);
    } else {
      free(memory->bytes);
    }
    free(memory);
  }
}

/* ---------------------------------------------------------------- memory of the host */

/* A block of its own for each array, so that a sanitizer sees every step beyond it. */
void *ops_bytes(OpsRun *run, size_t bytes) {
  void *memory = malloc(bytes > 0 ? bytes : 1);
  assert_non_null(memory);
  return keep(run, memory, false);
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

float *ops_random_elements(OpsRun *run, int64_t count, double scale) {
  float *x = ops_random(run, count, scale);
  ops_round(run, count, x);
  return x;
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

float ops_rounded(const OpsRun *run, float x) {
  return element_round(run->elements, x);
}

void ops_round(const OpsRun *run, int64_t count, float *x) {
  for (int64_t i = 0; i < count; i++) x[i] = ops_rounded(run, x[i]);
}

RefMatrix ops_matrix(double *at, int64_t rows, int64_t cols) {
  return (RefMatrix){.at = at, .rows = rows, .cols = cols, .stride = cols};
}

/* ---------------------------------------------------------------- memory of the device */

/* Fails the test with the reason of an operation's failure. */
static void check_device(const OpsRun *run) {
  Error error = {0};
  if (device_check(run->device, &error) != STATUS_OK) fail_msg("%s: %s", run->implementation, error.text);
}

/* Where device memory is the host's it comes from malloc: a sanitizer sees the first byte beyond it, which
 * device_alloc would round up to a whole cache line. */
static char *device_bytes(OpsRun *run, size_t bytes) {
  if (implementation_on_host(run->device)) return ops_bytes(run, bytes);
  Error error = {0};
  void *memory = NULL;
  if (device_alloc(run->device, bytes > 0 ? bytes : 1, "test array", &memory, &error) != STATUS_OK) {
    fail_msg("%s: %s", run->implementation, error.text);
  }
  return keep(run, memory, true);
}

/* An array of elements of `size` bytes. */
static void *to_device(OpsRun *run, size_t size, size_t bytes, const void *host) {
  if (host == NULL) return NULL;
  const size_t shift = run->unaligned ? size : 0;
  void *memory = device_bytes(run, bytes + shift) + shift;
  if (bytes > 0) device_write(run->device, memory, host, bytes);
  return memory;
}

void *ops_to_device(OpsRun *run, size_t bytes, const void *host) {
  return to_device(run, sizeof(int64_t), bytes, host);
}

/* All ones is a NaN as float and as bf16. */
static void *unset_device(OpsRun *run, size_t size, size_t bytes) {
  void *ones = malloc(bytes > 0 ? bytes : 1);
  assert_non_null(ones);
  void *memory = to_device(run, size, bytes, memset(ones, 0xFF, bytes));
  free(ones);
  return memory;
}

/* FNV-1a of 64 bits (G. Fowler, L. Noll and K.-P. Vo, 1991). */
static void record(OpsRun *run, size_t bytes, const void *result) {
  const unsigned char *at = result;
  for (size_t i = 0; i < bytes; i++) run->digest = (run->digest ^ at[i]) * 0x100000001b3U;
}

void ops_from_device(OpsRun *run, size_t bytes, const void *device, void *host) {
  memset(host, 0xFF, bytes);
  if (bytes > 0) device_read(run->device, host, device, bytes);
  check_device(run);
  record(run, bytes, host);
}

float *ops_to_floats(OpsRun *run, int64_t count, const float *x) {
  return to_device(run, sizeof(float), (size_t)count * sizeof(float), x);
}

float *ops_unset_floats(OpsRun *run, int64_t count) {
  return unset_device(run, sizeof(float), (size_t)count * sizeof(float));
}

float *ops_from_floats(OpsRun *run, int64_t count, const float *device) {
  float *x = ops_bytes(run, (size_t)count * sizeof(float));
  ops_from_device(run, (size_t)count * sizeof(float), device, x);
  return x;
}

elem *ops_to_elements(OpsRun *run, int64_t count, const float *x) {
  if (x == NULL) return NULL;
  const size_t bytes = elements_bytes(run->elements, count);
  void *packed = malloc(bytes > 0 ? bytes : 1);
  assert_non_null(packed);
  elements_pack(run->elements, count, x, packed);
  elem *memory = to_device(run, run->ops->elem_size, bytes, packed);
  free(packed);
  return memory;
}

elem *ops_unset_elements(OpsRun *run, int64_t count) {
  return unset_device(run, run->ops->elem_size, elements_bytes(run->elements, count));
}

float *ops_from_elements(OpsRun *run, int64_t count, const elem *device) {
  const size_t bytes = elements_bytes(run->elements, count);
  float *x = ops_bytes(run, (size_t)count * sizeof(float));
  void *packed = ops_bytes(run, bytes);
  ops_from_device(run, bytes, device, packed);
  elements_unpack(run->elements, count, packed, x);
  return x;
}

/* Elements from the first to the last of the rows: none behind it. */
static int64_t extent(int64_t rows, int64_t width, int64_t stride) {
  return rows > 0 ? (rows - 1) * stride + width : 0;
}

elem *ops_to_rows(OpsRun *run, int64_t rows, int64_t width, int64_t stride, const float *x) {
  const int64_t count = extent(rows, width, stride);
  if (x == NULL) return ops_unset_elements(run, count);
  float *apart = ops_bytes(run, (size_t)count * sizeof(float));
  for (int64_t at = 0; at < count; at++) {
    const int64_t column = at % stride;
    apart[at] = column < width ? x[at / stride * width + column] : NAN;
  }
  return ops_to_elements(run, count, apart);
}

float *ops_from_rows(OpsRun *run, int64_t rows, int64_t width, int64_t stride, const elem *device) {
  const int64_t count = extent(rows, width, stride);
  const float *apart = ops_from_elements(run, count, device);
  float *x = ops_bytes(run, (size_t)(rows * width) * sizeof(float));
  for (int64_t at = 0; at < count; at++) {
    const int64_t column = at % stride;
    if (column < width) x[at / stride * width + column] = apart[at];
    if (column >= width && !isnan(apart[at])) {
      fail_msg("%s: element %lld between rows of %lld was written to", run->implementation, (long long)column,
               (long long)width);
    }
  }
  return x;
}

/* ---------------------------------------------------------------- errors */

void ops_within(const OpsRun *run, const char *what, int64_t size, double error, double bound) {
  char name[160];
  (void)snprintf(name, sizeof name, "%s, %d threads%s: %s, size %lld", run->implementation,
                 run->device->threads, run->unaligned ? ", unaligned" : "", what, (long long)size);
  check_within(name, error, bound);
}

static double largest(ElementType type, int64_t count, const float *got, const double *expected) {
  double difference = 0;
  double magnitude = 0;
  for (int64_t i = 0; i < count; i++) {
    const double d = fabs(element_nearest(type, got[i], expected[i]) - expected[i]);
    if (!(d <= difference)) difference = d;
    if (isnan(difference)) return difference;
    magnitude = fmax(magnitude, fabs(expected[i]));
  }
  return magnitude > 0 ? difference / magnitude : difference;
}

double largest_error(int64_t count, const float *got, const double *expected) {
  return largest(ELEMENT_F32, count, got, expected);
}

double ops_largest_error(const OpsRun *run, int64_t count, const float *got, const double *expected) {
  return largest(run->elements, count, got, expected);
}

double ops_relative_error(const OpsRun *run, int64_t count, const float *got, const double *expected) {
  double *nearest = malloc(((size_t)count + 1) * sizeof *nearest);
  assert_non_null(nearest);
  for (int64_t i = 0; i < count; i++) nearest[i] = element_nearest(run->elements, got[i], expected[i]);
  const double error = relative_error64(count, nearest, expected);
  free(nearest);
  return error;
}

/* ---------------------------------------------------------------- finite differences */

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

/* Fills in and releases what a run needs, and does it; false where this machine lacks the implementation. */
static bool run_once(const Implementation *implementation, int threads, void (*check)(OpsRun *run),
                     OpsRun *run) {
  run->implementation = implementation->name;
  run->random = (Random){1};
  run->device = implementation_device(implementation, threads);
  if (run->device == NULL) return false;
  run->ops = &run->device->ops;
  run->elements = elements_of(run->ops);
  assert_int_equal(run->elements, implementation->elements);
  check(run);
  check_device(run);
  release(run);
  device_destroy(run->device);
  return true;
}

/* False where this machine lacks the implementation. */
static bool run_all(const Implementation *implementation, void (*check)(OpsRun *run)) {
  static const int threads[] = {1, 1, 3};
  const size_t runs = implementation->isa != NULL ? 3 : 2;
  uint64_t first = 0;
  for (size_t i = 0; i < runs; i++) {
    OpsRun run = {.repeated = i > 0};
    if (!run_once(implementation, threads[i], check, &run)) return false;
    if (i == 0) first = run.digest;
    if (run.digest != first) {
      fail_msg("%s: run %zu, %d threads: other bits than the first", implementation->name, i, threads[i]);
    }
  }
  OpsRun unaligned = {.unaligned = true};
  return run_once(implementation, 1, check, &unaligned);
}

void ops_check_all(void (*check)(OpsRun *run)) {
  char names[160] = "";
  for (size_t i = 0; implementation_at(i) != NULL; i++) {
    if (!run_all(implementation_at(i), check)) continue;
    const size_t used = strlen(names);
    (void)snprintf(names + used, sizeof names - used, "%s%s", used > 0 ? ", " : "",
                   implementation_at(i)->name);
  }
  print_message("on %s\n", names);
}
