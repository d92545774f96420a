/* Sizes beyond 2^31: operations on tensors of more elements than that, sums, copies, shards of more tokens
 * in all, files of more bytes. What lies at the far end is compared with what the same operation gives on
 * those rows alone, bit for bit; the operations themselves are compared with float64 by the tests of each.
 * Skipped, saying so, where the machine has too little memory or disk space. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "checkpoints/safetensors.h"
#include "data/dataset.h"
#include "data/little_endian.h"
#include "data/loader.h"
#include "data/shard.h"
#include "kernels/base/memory.h"
#include "tests/support/expect.h"
#include "tests/support/temp_dir.h"
#include "tests/support/test_device.h"
#include "tests/support/unit.h"

#define FAR ((int64_t)1 << 31)

/* ---------------------------------------------------------------- operations */

enum {
  COLUMNS = 2048,
  TAIL = 3, /* rows that lie beyond FAR elements, and are computed again alone */
  NARROW = 16
};
#define ROWS (FAR / COLUMNS + TAIL)
#define ELEMENTS (ROWS * COLUMNS)

/* Two tensors (ROWS, COLUMNS) of bf16, one behind the other: a block of as many floats, too. */
typedef struct Large {
  Device *device;
  uint16_t *x;
  uint16_t *y;
} Large;

static void *take(size_t bytes) {
  Error error = {0};
  void *memory = NULL;
  const Status status = memory_alloc(bytes, 1, "a test of large tensors", &memory, &error);
  if (status == STATUS_OK) return memory;
  print_message("skipped: %s\n", error.text);
  skip();
  return NULL;
}

/* bf16 numbers of both signs between 2^-7 and 2 that say where they are, the same for the same `i`. */
static uint16_t number_of(int64_t i) {
  const uint64_t mixed = (uint64_t)i * 0x9E3779B97F4A7C15U;
  return (uint16_t)((mixed >> 48 & 0x8000U) | (0x3C00U + (mixed >> 40 & 0x3FFU)));
}

/* Every row of x is one of 1,024, but for those at the far end, which are like none of them. */
static void fill(Large *large) {
  const int64_t repeated = 1024;
  for (int64_t i = 0; i < repeated * COLUMNS; i++) large->x[i] = number_of(i);
  for (int64_t row = repeated; row < ROWS; row += repeated) {
    const int64_t count = ROWS - row < repeated ? ROWS - row : repeated;
    memcpy(large->x + row * COLUMNS, large->x, (size_t)(count * COLUMNS) * sizeof *large->x);
  }
  for (int64_t i = (ROWS - TAIL) * COLUMNS; i < ELEMENTS; i++) large->x[i] = number_of(i);
}

static int large_set_up(void **state) {
  static Large large;
  Error error = {0};
  expect_ok(test_device_create(TEST_CPU_BF16, 2, &large.device, &error), &error);
  *state = &large;
  return 0;
}

static int large_tear_down(void **state) {
  Large *large = *state;
  free(large->x);
  device_destroy(large->device);
  return 0;
}

/* The memory is taken by the first test that needs it: a set-up cannot skip. */
static Large *large_of(void **state) {
  Large *large = *state;
  if (large->x == NULL) {
    large->x = take((size_t)ELEMENTS * 2 * sizeof *large->x);
    large->y = large->x + ELEMENTS;
  }
  fill(large);
  return large;
}

/* A row-wise operation from x (n, COLUMNS) to y (n, width); `first` is the number of the first row. */
typedef void (*RowOperation)(Device *device, int64_t first, int64_t n, uint16_t *x, uint16_t *y,
                             const uint16_t *weights);

/* Runs the operation on all rows and on the tail alone: the same bits in the tail's rows of y and of x. */
static void check_rows(void **state, const char *name, int64_t width, RowOperation operation) {
  Large *large = large_of(state);
  Error error = {0};
  static uint16_t weights[COLUMNS * NARROW];
  static uint16_t x[TAIL * COLUMNS], y[TAIL * COLUMNS];
  const int64_t first = ROWS - TAIL;
  uint16_t *far_x = large->x + first * COLUMNS, *far_y = large->y + first * width;
  for (int64_t i = 0; i < COLUMNS * NARROW; i++) weights[i] = number_of(7 * i + 3);
  memcpy(x, far_x, sizeof x);
  memset(y, 0x7F, sizeof y);
  memset(far_y, 0x55, (size_t)(TAIL * width) * sizeof *far_y);
  operation(large->device, 0, ROWS, large->x, large->y, weights);
  operation(large->device, first, TAIL, x, y, weights);
  expect_ok(device_check(large->device, &error), &error);
  if (memcmp(far_y, y, (size_t)(TAIL * width) * sizeof *y) != 0 || memcmp(far_x, x, sizeof x) != 0) {
    fail_msg("%s: other bits beyond 2^31 elements than on those rows alone", name);
  }
  (void)printf("figures: %s over %lld elements of bf16: the far end has its bits\n", name,
               (long long)(ROWS * COLUMNS));
}

/* The rows' numbers, tokens and targets that an operation over n rows from `first` on reads. */
static int64_t *numbers(int64_t first, int64_t n) {
  int64_t *list = take((size_t)n * sizeof *list);
  for (int64_t i = 0; i < n; i++) list[i] = first + i;
  return list;
}

static int32_t *tokens(int64_t first, int64_t n) {
  int32_t *list = take((size_t)n * sizeof *list);
  for (int64_t i = 0; i < n; i++) list[i] = (int32_t)((first + i) * 7919 % NARROW);
  return list;
}

static void rmsnorm(Device *device, int64_t first, int64_t n, uint16_t *x, uint16_t *y,
                    const uint16_t *weights) {
  float *rstd = take((size_t)n * sizeof *rstd);
  (void)first;
  device->ops.rmsnorm_forward(device, n, COLUMNS, 1e-5F, NULL, x, weights, y, rstd);
  free(rstd);
}

static void embedding(Device *device, int64_t first, int64_t n, uint16_t *x, uint16_t *y,
                      const uint16_t *weights) {
  int32_t *list = tokens(first, n);
  (void)x;
  device->ops.embedding_forward(device, n, COLUMNS, list, NULL, weights, NULL, y);
  free(list);
}

static void gelu(Device *device, int64_t first, int64_t n, uint16_t *x, uint16_t *y,
                 const uint16_t *weights) {
  (void)first;
  (void)weights;
  device->ops.gelu_forward(device, n * COLUMNS, x, y);
}

static void dropout(Device *device, int64_t first, int64_t n, uint16_t *x, uint16_t *y,
                    const uint16_t *weights) {
  const DropoutKey key = {.seed = 5, .stream = 1, .threshold = 1U << 30, .scale = 4.0F / 3.0F};
  int64_t *list = numbers(first, n);
  (void)weights;
  device->ops.dropout(device, n, COLUMNS, &key, list, x, y);
  free(list);
}

/* In place: the logits become their gradient. */
static void cross_entropy(Device *device, int64_t first, int64_t n, uint16_t *x, uint16_t *y,
                          const uint16_t *weights) {
  int32_t *list = tokens(first, n);
  float *nll = take((size_t)n * sizeof *nll);
  (void)weights;
  device->ops.cross_entropy(device, n, COLUMNS, COLUMNS, x, list, true, nll);
  for (int64_t i = n - TAIL; i < n; i++) memcpy(y + i * 2, nll + i, sizeof *nll); /* compared, too */
  free(nll);
  free(list);
}

/* Inputs beyond 2^31 elements. */
static void product_in(Device *device, int64_t first, int64_t n, uint16_t *x, uint16_t *y,
                       const uint16_t *weights) {
  (void)first;
  device->ops.linear_forward(device, n, COLUMNS, NARROW, NARROW, x, weights, NULL, y);
}

/* Results beyond 2^31 elements, of the first columns of x taken as (n, NARROW). */
static void product_out(Device *device, int64_t first, int64_t n, uint16_t *x, uint16_t *y,
                        const uint16_t *weights) {
  uint16_t *inputs = take((size_t)(n * NARROW) * sizeof *inputs);
  for (int64_t i = 0; i < n * NARROW; i++) inputs[i] = number_of(first * NARROW + i);
  (void)x;
  device->ops.linear_forward(device, n, NARROW, COLUMNS, COLUMNS, inputs, weights, NULL, y);
  free(inputs);
}

static void copy_rows(Device *device, int64_t first, int64_t n, uint16_t *x, uint16_t *y,
                      const uint16_t *weights) {
  const size_t row = COLUMNS * sizeof *x;
  (void)first;
  (void)weights;
  device_copy_rows(device, y, row, x, row, row, n);
}

static void test_rmsnorm(void **state) {
  check_rows(state, "RMSNorm", COLUMNS, rmsnorm);
}

static void test_embedding(void **state) {
  check_rows(state, "embedding", COLUMNS, embedding);
}

static void test_gelu(void **state) {
  check_rows(state, "GELU", COLUMNS, gelu);
}

static void test_dropout(void **state) {
  check_rows(state, "dropout", COLUMNS, dropout);
}

static void test_cross_entropy(void **state) {
  check_rows(state, "cross-entropy", 2, cross_entropy);
}

static void test_products(void **state) {
  check_rows(state, "product from", NARROW, product_in);
  check_rows(state, "product to", COLUMNS, product_out);
}

static void test_copies(void **state) {
  check_rows(state, "copy of rows", COLUMNS, copy_rows);
}

/* Sums of more than 2^31 floats, of which all but a few are zero. */
static void test_sum(void **state) {
  Large *large = large_of(state);
  Error error = {0};
  double sum = 0.5;
  double squares = 0.0;
  float *x = (float *)(void *)large->x;
  device_zero(large->device, x, (size_t)ELEMENTS * sizeof *x);
  x[0] = 1.0F;
  x[FAR] = 2.0F;
  x[ELEMENTS - 1] = 4.0F;
  large->device->ops.sum(large->device, ELEMENTS, x, &sum);
  large->device->ops.sum_of_squares(large->device, ELEMENTS, x, &squares);
  expect_ok(device_check(large->device, &error), &error);
  assert_true(sum == 7.5);
  assert_true(squares == 21.0);
  (void)printf("figures: sums over %lld floats: exact\n", (long long)ELEMENTS);
}

/* ---------------------------------------------------------------- files */

/* A file of `bytes` that takes room only where something is written. */
static int sparse_file(const char *path, int64_t bytes) {
  const int file = open(path, O_RDWR | O_CREAT | O_EXCL, 0600);
  assert_true(file >= 0);
  if (ftruncate(file, bytes) != 0) {
    print_message("skipped: no sparse file of %lld bytes here\n", (long long)bytes);
    (void)close(file);
    skip();
  }
  return file;
}

static void write_at(int file, int64_t offset, const void *data, size_t bytes) {
  assert_true(pwrite(file, data, bytes, offset) == (ssize_t)bytes);
}

enum { SHARD_TOKENS = 1200000000, WINDOW = 64 };

/* The tokens of the set: zero but for a window at each place that is read. */
static int32_t token_at(int64_t window, int64_t i) {
  return (int32_t)(1 + (window * 1000003 + i * 7919) % 60000);
}

static void write_shard(const char *path, const int64_t windows[], int count, int64_t first) {
  uint8_t header[SHARD_HEADER_BYTES];
  const int file = sparse_file(path, SHARD_HEADER_BYTES + (int64_t)SHARD_TOKENS * 4);
  shard_header(SHARD_TOKENS, 4, header);
  write_at(file, 0, header, sizeof header);
  for (int w = 0; w < count; w++) {
    for (int64_t i = 0; i < WINDOW; i++) {
      const int64_t place = windows[w] + i - first;
      uint8_t word[4];
      if (place < 0 || place >= SHARD_TOKENS) continue;
      store_u32(word, (uint32_t)token_at(windows[w], i));
      write_at(file, SHARD_HEADER_BYTES + place * 4, word, sizeof word);
    }
  }
  assert_int_equal(close(file), 0);
}

/* Windows in two shards of 4.8 GB: at the start, over the boundary of the shards, beyond 2^31 tokens, at the
 * end; in the files they lie on both sides of 2^31 and 2^32 bytes. */
static void test_shards(void **state) {
  TempDir *directory = *state;
  const int64_t windows[] = {0,
                             (int64_t)1 << 29,
                             ((int64_t)1 << 30) + 9,
                             SHARD_TOKENS - WINDOW / 2,
                             FAR - 32,
                             FAR + 64,
                             (int64_t)2 * SHARD_TOKENS - WINDOW};
  enum { WINDOWS = sizeof windows / sizeof windows[0] };
  Error error = {0};
  Dataset *dataset = NULL;
  int32_t got[WINDOW];
  write_shard(temp_dir_path(directory, "large_000000.bin"), windows, WINDOWS, 0);
  write_shard(temp_dir_path(directory, "large_000001.bin"), windows, WINDOWS, SHARD_TOKENS);
  const char *pattern = temp_dir_path(directory, "large_*.bin");
  expect_ok(dataset_open(pattern, 100000, &dataset, &error), &error);
  assert_true(dataset_tokens(dataset) == (int64_t)2 * SHARD_TOKENS);
  for (int w = 0; w < WINDOWS; w++) {
    expect_ok(dataset_read(dataset, windows[w], WINDOW, got, &error), &error);
    for (int64_t i = 0; i < WINDOW; i++) assert_int_equal(got[i], token_at(windows[w], i));
  }
  dataset_close(dataset);
  /* The loader's samples of 32 tokens: the one at FAR + 64, on the second rank of a ring of two. */
  const LoaderOptions options = {.pattern = pattern,
                                 .vocab_size = 100000,
                                 .end_of_document = -1,
                                 .sequence_length = 32,
                                 .micro_batch = 1,
                                 .ring_rank = 1,
                                 .ring_size = 2,
                                 .data_size = 1,
                                 .first_sample = (FAR + 64) / 32,
                                 .read_ahead = 1};
  Loader *loader = NULL;
  const Batch *batch = NULL;
  expect_ok(loader_open(&options, &loader, &error), &error);
  expect_ok(loader_next(loader, &batch, &error), &error);
  assert_true(batch->samples[0] == (FAR + 64) / 32);
  for (int64_t i = 0; i < 16; i++) { /* chunks 1 and 2 of four */
    assert_int_equal(batch->tokens[i], token_at(FAR + 64, 8 + i));
    assert_int_equal(batch->targets[i], token_at(FAR + 64, 9 + i));
  }
  loader_close(loader);
  (void)printf("figures: %lld tokens in two shards of %lld bytes: read right at %d places\n",
               (long long)SHARD_TOKENS * 2, (long long)SHARD_TOKENS * 4 + SHARD_HEADER_BYTES, WINDOWS);
}

/* A tensor of more than 2^31 elements, and one that begins beyond 2^33 bytes. */
static void test_safetensors(void **state) {
  TempDir *directory = *state;
  const int64_t elements = FAR + 1024;
  const float far[] = {1.5F, -2.25F, 3.0F, 0.125F};
  Error error = {0};
  Safetensors tensors = SAFETENSORS_CLOSED;
  char text[512];
  float got[4];
  uint8_t header[8] = {0};
  const char *path = temp_dir_path(directory, "large.safetensors");
  int length = snprintf(text, sizeof text,
                        "{\"a\":{\"dtype\":\"F32\",\"shape\":[%lld,1024],\"data_offsets\":[0,%lld]},"
                        "\"b\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[%lld,%lld]}}",
                        (long long)(elements / 1024), (long long)elements * 4, (long long)elements * 4,
                        (long long)elements * 4 + 16);
  while (length % 8 != 0) text[length++] = ' ';
  store_u32(header, (uint32_t)length);
  const int64_t data = 8 + length;
  const int file = sparse_file(path, data + elements * 4 + (int64_t)sizeof far);
  write_at(file, 0, header, sizeof header);
  write_at(file, 8, text, (size_t)length);
  write_at(file, data + (FAR + 100) * 4, far, sizeof far);
  write_at(file, data + elements * 4, far + 1, sizeof far - sizeof far[0]);
  assert_int_equal(close(file), 0);
  expect_ok(safetensors_open(path, &tensors, &error), &error);
  const SafetensorsEntry *a = safetensors_find(&tensors, "a");
  const SafetensorsEntry *b = safetensors_find(&tensors, "b");
  assert_true(a != NULL && a->count == elements && b != NULL && b->begin == data + elements * 4);
  expect_ok(safetensors_read(&tensors, a, FAR + 100, 4, got, &error), &error);
  assert_memory_equal(got, far, sizeof far);
  expect_ok(safetensors_read(&tensors, b, 0, 4, got, &error), &error);
  assert_memory_equal(got, far + 1, sizeof far - sizeof far[0]);
  safetensors_close(&tensors);
  (void)printf("figures: a tensor of %lld elements and one behind it in safetensors: read right\n",
               (long long)elements);
}

int main(void) {
  const struct CMUnitTest operations[] = {
      cmocka_unit_test(test_rmsnorm), cmocka_unit_test(test_embedding),     cmocka_unit_test(test_gelu),
      cmocka_unit_test(test_dropout), cmocka_unit_test(test_cross_entropy), cmocka_unit_test(test_products),
      cmocka_unit_test(test_copies),  cmocka_unit_test(test_sum),
  };
  const struct CMUnitTest files[] = {cmocka_unit_test(test_shards), cmocka_unit_test(test_safetensors)};
  const int failed = cmocka_run_group_tests(operations, large_set_up, large_tear_down);
  return failed + cmocka_run_group_tests(files, temp_dir_set_up, temp_dir_tear_down);
}
