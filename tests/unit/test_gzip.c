/* Ordinary gzip files read from the middle; damage, lies about the size and garbage are found. */
#include "data/gzip.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "kernels/base/clock.h"
#include "tests/support/compressed.h"
#include "tests/support/expect.h"
#include "tests/support/shards.h"
#include "tests/support/temp_dir.h"
#include "tests/support/unit.h"

/* Data of a shard with this many tokens. */
static uint8_t *make_data(int64_t count, size_t *bytes) {
  int32_t *tokens = shards_tokens(count, 50000);
  uint8_t *data = shards_bytes(tokens, count, 2, bytes);
  free(tokens);
  return data;
}

/* The number of blocks in the index of a good file. */
static int64_t count_blocks(const char *path, size_t data_bytes) {
  Error error = {0};
  File file = FILE_CLOSED;
  BlockIndex index = {0};
  expect_ok(file_open_read(path, &file, &error), &error);
  expect_ok(gzip_scan(&file, (int64_t)data_bytes, &index, &error), &error);
  const int64_t count = index.count;
  block_index_free(&index);
  file_close(&file);
  return count;
}

static void test_every_kind_of_block(void **state) {
  const char *path = temp_dir_path(*state, "a.gz");
  const struct {
    int level;
    int strategy;
  } kinds[] = {{0, Z_DEFAULT_STRATEGY}, {1, Z_DEFAULT_STRATEGY},
               {9, Z_DEFAULT_STRATEGY}, {6, Z_FIXED},
               {6, Z_HUFFMAN_ONLY},     {6, Z_RLE}};
  size_t bytes = 0;
  uint8_t *data = make_data(2500000, &bytes);
  for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
    Error error = {0};
    size_t packed_bytes = 0;
    uint8_t *packed = compressed_gzip(data, bytes, kinds[i].level, kinds[i].strategy, &packed_bytes);
    temp_file_write(path, packed, packed_bytes);
    expect_ok(compressed_check(path, BLOCK_GZIP, data, bytes, &error), &error);
    assert_int_equal(count_blocks(path, bytes), 5);
    free(packed);
  }
  free(data);
}

/* A file of many members, empty ones among them, as `cat a.gz b.gz` makes it. */
static void test_several_members(void **state) {
  const char *path = temp_dir_path(*state, "a.gz");
  Error error = {0};
  size_t bytes = 0;
  size_t packed_bytes = 0;
  uint8_t head[1024];
  uint8_t *data = make_data(900000, &bytes);
  uint8_t *file_bytes = malloc(2 * bytes);
  File file = FILE_CLOSED;
  assert_non_null(file_bytes);
  const size_t cuts[] = {0, 0, 100, 1024, 1024, 70000, 70001, 1500000, bytes, bytes};
  for (size_t i = 0; i + 1 < sizeof cuts / sizeof cuts[0]; i++) {
    size_t part = 0;
    uint8_t *packed = compressed_gzip(data + cuts[i], cuts[i + 1] - cuts[i], 6, Z_DEFAULT_STRATEGY, &part);
    memcpy(file_bytes + packed_bytes, packed, part);
    packed_bytes += part;
    free(packed);
  }
  temp_file_write(path, file_bytes, packed_bytes);
  expect_ok(compressed_check(path, BLOCK_GZIP, data, bytes, &error), &error);
  expect_ok(file_open_read(path, &file, &error), &error);
  expect_ok(gzip_head(&file, head, sizeof head, &error), &error);
  assert_memory_equal(head, data, sizeof head);
  file_close(&file);
  free(file_bytes);
  free(data);
}

static void test_file_of_the_gzip_program(void **state) {
  const char *plain = temp_dir_path(*state, "shard.bin");
  const char *path = temp_dir_path(*state, "shard.bin.gz");
  char command[512];
  Error error = {0};
  size_t bytes = 0;
  uint8_t *data = make_data(1200000, &bytes);
  temp_file_write(plain, data, bytes);
  assert_true(snprintf(command, sizeof command, "gzip -9 '%s'", plain) < (int)sizeof command);
  assert_int_equal(system(command), 0); /* its header holds the file's name */
  expect_ok(compressed_check(path, BLOCK_GZIP, data, bytes, &error), &error);
  free(data);
}

static void test_every_flipped_bit(void **state) {
  const char *path = temp_dir_path(*state, "a.gz");
  size_t bytes = 0;
  size_t packed_bytes = 0;
  uint8_t *data = make_data(250, &bytes);
  uint8_t *packed = compressed_gzip(data, bytes, 6, Z_DEFAULT_STRATEGY, &packed_bytes);
  /* Time, flags of the compressor and operating system (6 bytes) and the flag for text say nothing; neither
   * do the bits that fill up the last byte, and a few others of deflate. */
  const int64_t harmless = compressed_flip_bits(path, BLOCK_GZIP, packed, packed_bytes, data, bytes, 1);
  assert_true(harmless >= 6 * 8 + 1 && harmless <= 6 * 8 + 1 + 16);
  free(packed);
  free(data);
}

/* Damage far from both ends of a file with several access points. */
static void test_flipped_bits_of_a_larger_file(void **state) {
  const char *path = temp_dir_path(*state, "a.gz");
  size_t bytes = 0;
  size_t packed_bytes = 0;
  uint8_t *data = make_data(1500000, &bytes);
  uint8_t *packed = compressed_gzip(data, bytes, 1, Z_DEFAULT_STRATEGY, &packed_bytes);
  const size_t step = 8 * packed_bytes / 9 - 1;
  assert_int_equal(compressed_flip_bits(path, BLOCK_GZIP, packed, packed_bytes, data, bytes, step), 0);
  free(packed);
  free(data);
}

static void test_every_truncation(void **state) {
  const char *path = temp_dir_path(*state, "a.gz");
  size_t bytes = 0;
  size_t packed_bytes = 0;
  uint8_t *data = make_data(250, &bytes);
  uint8_t *packed = compressed_gzip(data, bytes, 6, Z_DEFAULT_STRATEGY, &packed_bytes);
  compressed_truncate(path, BLOCK_GZIP, packed, packed_bytes, data, bytes);
  free(packed);
  free(data);
}

static void test_garbage_behind(void **state) {
  const char *path = temp_dir_path(*state, "a.gz");
  const char *tails[] = {"x", "\x1f", "\x1fgarbage that is long enough", "\x1f\x8b"};
  size_t bytes = 0;
  size_t packed_bytes = 0;
  uint8_t *data = make_data(5000, &bytes);
  uint8_t *packed = compressed_gzip(data, bytes, 6, Z_DEFAULT_STRATEGY, &packed_bytes);
  uint8_t *longer = malloc(packed_bytes + 64);
  assert_non_null(longer);
  for (size_t i = 0; i < 4; i++) {
    Error error = {0};
    memcpy(longer, packed, packed_bytes);
    memcpy(longer + packed_bytes, tails[i], strlen(tails[i]));
    temp_file_write(path, longer, packed_bytes + strlen(tails[i]));
    expect_error(compressed_check(path, BLOCK_GZIP, data, bytes, &error), &error, STATUS_DATA, path, "byte");
  }
  memset(longer + packed_bytes, 0, 64);
  Error error = {0};
  temp_file_write(path, longer, packed_bytes + 64);
  expect_error(compressed_check(path, BLOCK_GZIP, data, bytes, &error), &error, STATUS_DATA, path,
               "not gzip");
  free(longer);
  free(packed);
  free(data);
}

/* A file of 100 kB that expands to 100 MB, of which its header promises little. */
static void test_bomb_is_refused_at_once(void **state) {
  const char *path = temp_dir_path(*state, "bomb.gz");
  const size_t bytes = 100000000;
  Error error = {0};
  size_t packed_bytes = 0;
  File file = FILE_CLOSED;
  BlockIndex index = {0};
  uint8_t *zeros = calloc(bytes, 1);
  assert_non_null(zeros);
  uint8_t *packed = compressed_gzip(zeros, bytes, 9, Z_DEFAULT_STRATEGY, &packed_bytes);
  free(zeros);
  temp_file_write(path, packed, packed_bytes);
  free(packed);
  expect_ok(file_open_read(path, &file, &error), &error);
  const double start = clock_seconds();
  expect_error(gzip_scan(&file, 1024 + 2000, &index, &error), &error, STATUS_DATA, path,
               "more than the 3024");
  assert_true(clock_seconds() - start < 0.1);
  expect_error(gzip_scan(&file, (int64_t)bytes - 1, &index, &error), &error, STATUS_DATA, "more than");
  expect_error(gzip_scan(&file, (int64_t)bytes + 1, &index, &error), &error, STATUS_DATA,
               "expands to 100000000");
  assert_null(index.points);
  file_close(&file);
}

typedef struct BitWriter {
  uint8_t *bytes;
  size_t bit;
} BitWriter;

/* Deflate packs numbers from the lowest bit on, Huffman codes from the highest. */
static void put_code(BitWriter *to, unsigned code, int length) {
  for (int i = length - 1; i >= 0; i--, to->bit++) {
    to->bytes[to->bit / 8] = (uint8_t)(to->bytes[to->bit / 8] | (code >> i & 1U) << to->bit % 8);
  }
}

/* One deflate block, with the fixed codes, of 1 + 258 x repeats zeros: some compressors make such files. Its
 * trailer is wrong, but the reader must not get there. */
static uint8_t *make_one_block(size_t repeats, size_t *bytes) {
  const uint8_t header[10] = {0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3};
  *bytes = 10 + (3 + 8 + 13 * repeats + 7 + 7) / 8 + 8;
  uint8_t *file = calloc(*bytes, 1);
  assert_non_null(file);
  memcpy(file, header, sizeof header);
  BitWriter to = {.bytes = file, .bit = 80};
  put_code(&to, 1, 1);    /* the last block */
  put_code(&to, 2, 2);    /* fixed codes: 01, lowest bit first */
  put_code(&to, 0x30, 8); /* a zero byte */
  for (size_t i = 0; i < repeats; i++) {
    put_code(&to, 0xc5, 8); /* length 258 */
    put_code(&to, 0, 5);    /* distance 1 */
  }
  put_code(&to, 0, 7);
  return file;
}

static void test_one_huge_piece_is_refused(void **state) {
  const char *path = temp_dir_path(*state, "piece.gz");
  const size_t repeats = (size_t)BLOCK_DATA_MAX / 258 + 300;
  Error error = {0};
  size_t bytes = 0;
  File file = FILE_CLOSED;
  BlockIndex index = {0};
  uint8_t *packed = make_one_block(repeats, &bytes);
  temp_file_write(path, packed, bytes);
  free(packed);
  expect_ok(file_open_read(path, &file, &error), &error);
  expect_error(gzip_scan(&file, 1 + 258 * (int64_t)repeats, &index, &error), &error, STATUS_DATA, path,
               "one piece", "byte 10");
  file_close(&file);
}

static void test_too_short_for_a_header(void **state) {
  const char *path = temp_dir_path(*state, "a.gz");
  Error error = {0};
  size_t packed_bytes = 0;
  uint8_t head[1024];
  File file = FILE_CLOSED;
  uint8_t *packed = compressed_gzip((const uint8_t *)"hello", 5, 6, Z_DEFAULT_STRATEGY, &packed_bytes);
  temp_file_write(path, packed, packed_bytes);
  free(packed);
  expect_ok(file_open_read(path, &file, &error), &error);
  expect_error(gzip_head(&file, head, sizeof head, &error), &error, STATUS_DATA, path, "5 bytes");
  file_close(&file);
}

#define IN_TEMP_DIR(test) cmocka_unit_test_setup_teardown(test, temp_dir_set_up, temp_dir_tear_down)

int main(void) {
  const struct CMUnitTest tests[] = {
      IN_TEMP_DIR(test_every_kind_of_block),
      IN_TEMP_DIR(test_several_members),
      IN_TEMP_DIR(test_file_of_the_gzip_program),
      IN_TEMP_DIR(test_every_flipped_bit),
      IN_TEMP_DIR(test_flipped_bits_of_a_larger_file),
      IN_TEMP_DIR(test_every_truncation),
      IN_TEMP_DIR(test_garbage_behind),
      IN_TEMP_DIR(test_bomb_is_refused_at_once),
      IN_TEMP_DIR(test_one_huge_piece_is_refused),
      IN_TEMP_DIR(test_too_short_for_a_header),
  };
  return cmocka_run_group_tests_name("gzip", tests, NULL, NULL);
}
