/* BGZF: what is written is what gunzip and random access read; every kind of damage is found. */
#include "data/bgzf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#include "data/little_endian.h"
#include "tests/support/compressed.h"
#include "tests/support/expect.h"
#include "tests/support/shards.h"
#include "tests/support/temp_dir.h"
#include "tests/support/unit.h"

#define HEADER 1024

/* A shard of `tokens` tokens as BGZF at `path`; its plain bytes. */
static uint8_t *make_file(const char *path, int64_t count, size_t *bytes) {
  int32_t *tokens = shards_tokens(count, 60000);
  uint8_t *data = shards_bytes(tokens, count, 2, bytes);
  shards_write_bytes(path, FORM_BGZF, data, *bytes);
  free(tokens);
  return data;
}

static void test_round_trip(void **state) {
  const char *path = temp_dir_path(*state, "a.bin.gz");
  /* Around one member, and more members than are compressed at once. */
  const int64_t counts[] = {0, 1, 32639, 32640, 32641, 65280, 1500000};
  for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
    Error error = {0};
    size_t bytes = 0;
    size_t expanded_bytes = 0;
    uint8_t *data = make_file(path, counts[i], &bytes);
    uint8_t *expanded = compressed_gunzip(path, &expanded_bytes);
    assert_int_equal(expanded_bytes, bytes);
    assert_memory_equal(expanded, data, bytes);
    expect_ok(compressed_check(path, BLOCK_BGZF, data, bytes, &error), &error);
    free(expanded);
    free(data);
  }
}

static void test_format(void **state) {
  const char *path = temp_dir_path(*state, "a.bin.gz");
  const uint8_t member[16] = {0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0xff, 6, 0, 0x42, 0x43, 2, 0};
  const uint8_t end[28] = {0x1f, 0x8b, 8,    4, 0, 0, 0, 0, 0, 0xff, 6, 0, 0x42, 0x43,
                           2,    0,    0x1b, 0, 3, 0, 0, 0, 0, 0,    0, 0, 0,    0};
  size_t bytes = 0;
  size_t file_bytes = 0;
  uint8_t *data = make_file(path, 100000, &bytes);
  uint8_t *file = temp_file_read(path, &file_bytes);
  /* The first member: the header of 1024 bytes, stored: 5 bytes of deflate before it. */
  assert_memory_equal(file, member, sizeof member);
  assert_int_equal(load_u16(file + 16) + 1, 18 + 5 + HEADER + 8);
  assert_memory_equal(file + 18 + 5, data, HEADER);
  assert_memory_equal(file + file_bytes - sizeof end, end, sizeof end);
  size_t at = 0;
  size_t members = 0;
  for (; at < file_bytes; at += (size_t)load_u16(file + at + 16) + 1) {
    assert_memory_equal(file + at, member, sizeof member);
    members++;
  }
  assert_int_equal(at, file_bytes);
  assert_int_equal(members, 1 + (200000 + BGZF_DATA_MAX - 1) / BGZF_DATA_MAX + 1);
  free(file);
  free(data);
}

static void test_data_that_cannot_shrink(void **state) {
  const char *path = temp_dir_path(*state, "a.bin.gz");
  const size_t bytes = HEADER + 300000;
  Error error = {0};
  uint8_t *data = malloc(bytes);
  uint64_t random = 1;
  assert_non_null(data);
  for (size_t i = 0; i < bytes; i++) {
    random = random * 6364136223846793005U + 1442695040888963407U;
    data[i] = (uint8_t)(random >> 56);
  }
  shards_write_bytes(path, FORM_BGZF, data, bytes);
  expect_ok(compressed_check(path, BLOCK_BGZF, data, bytes, &error), &error);
  free(data);
}

static void test_every_flipped_bit(void **state) {
  const char *path = temp_dir_path(*state, "a.bin.gz");
  size_t bytes = 0;
  size_t file_bytes = 0;
  uint8_t *data = make_file(path, 300, &bytes);
  uint8_t *file = temp_file_read(path, &file_bytes);
  /* Time, flags of the compressor and operating system of the two members with data say nothing (those of the
   * end-of-file member are fixed); neither do the bits that fill up a byte, and a few others of deflate. */
  const int64_t harmless = compressed_flip_bits(path, BLOCK_BGZF, file, file_bytes, data, bytes, 1);
  assert_true(harmless >= 2 * 6 * 8 && harmless <= 2 * 6 * 8 + 16);
  free(file);
  free(data);
}

static void test_every_truncation(void **state) {
  const char *path = temp_dir_path(*state, "a.bin.gz");
  size_t bytes = 0;
  size_t file_bytes = 0;
  uint8_t *data = make_file(path, 300, &bytes);
  uint8_t *file = temp_file_read(path, &file_bytes);
  compressed_truncate(path, BLOCK_BGZF, file, file_bytes, data, bytes);
  free(file);
  free(data);
}

static void test_something_appended(void **state) {
  const char *path = temp_dir_path(*state, "a.bin.gz");
  const uint8_t tails[][4] = {"abc", "\0\0\0", "\x1f\x8b\x08"};
  size_t bytes = 0;
  size_t file_bytes = 0;
  uint8_t *data = make_file(path, 3000, &bytes);
  uint8_t *file = temp_file_read(path, &file_bytes);
  uint8_t *longer = malloc(file_bytes + 100);
  assert_non_null(longer);
  for (size_t tail = 0; tail < 3; tail++) {
    for (size_t length = 1; length <= 100; length += 33) {
      Error error = {0};
      char place[32];
      memcpy(longer, file, file_bytes);
      memset(longer + file_bytes, 0, 100);
      memcpy(longer + file_bytes, tails[tail], 3);
      temp_file_write(path, longer, file_bytes + length);
      (void)snprintf(place, sizeof place, "byte %zu", file_bytes);
      expect_error(compressed_check(path, BLOCK_BGZF, data, bytes, &error), &error, STATUS_DATA, path, place);
    }
  }
  free(longer);
  free(file);
  free(data);
}

static void test_index_is_kept_beside(void **state) {
  const char *path = temp_dir_path(*state, "a.bin.gz");
  Error error = {0};
  size_t bytes = 0;
  File file = FILE_CLOSED;
  BlockIndex kept = {0};
  BlockIndex scanned = {0};
  free(make_file(path, 200000, &bytes));
  expect_ok(file_open_read(path, &file, &error), &error);
  assert_true(block_index_load(&file, BLOCK_BGZF, &kept));
  expect_ok(bgzf_scan(&file, &scanned, &error), &error);
  assert_int_equal(kept.count, scanned.count);
  assert_int_equal(kept.data_bytes, bytes);
  assert_int_equal(scanned.data_bytes, bytes);
  assert_int_equal(kept.file_bytes, scanned.file_bytes);
  assert_memory_equal(kept.points, scanned.points, (size_t)kept.count * sizeof *kept.points);
  for (int64_t at = 0; at < kept.data_bytes; at += 997) {
    const int64_t block = block_index_find(&kept, at);
    assert_true(kept.points[block].data_offset <= at);
    assert_true(at < kept.points[block].data_offset + block_index_bytes(&kept, block));
  }
  block_index_free(&kept);
  assert_false(block_index_load(&file, BLOCK_GZIP, &kept));
  block_index_free(&scanned);
  file_close(&file);
}

static void test_damaged_or_foreign_index_is_not_used(void **state) {
  const char *path = temp_dir_path(*state, "a.bin.gz");
  const char *index_path = temp_dir_path(*state, "a.bin.gz.index");
  Error error = {0};
  size_t bytes = 0;
  size_t index_bytes = 0;
  File file = FILE_CLOSED;
  BlockIndex index = {0};
  free(make_file(path, 50000, &bytes));
  uint8_t *good = temp_file_read(index_path, &index_bytes);
  expect_ok(file_open_read(path, &file, &error), &error);
  for (size_t bit = 0; bit < 8 * index_bytes; bit++) {
    const uint8_t flipped = (uint8_t)(good[bit / 8] ^ 1U << bit % 8);
    temp_file_patch(index_path, bit / 8, &flipped, 1);
    assert_false(block_index_load(&file, BLOCK_BGZF, &index));
    assert_null(index.points);
    temp_file_patch(index_path, bit / 8, &good[bit / 8], 1);
  }
  for (size_t length = index_bytes; length-- > 0;) {
    temp_file_cut(index_path, length);
    assert_false(block_index_load(&file, BLOCK_BGZF, &index));
  }
  assert_int_equal(unlink(index_path), 0);
  assert_false(block_index_load(&file, BLOCK_BGZF, &index));
  temp_file_write(index_path, good, index_bytes);
  assert_true(block_index_load(&file, BLOCK_BGZF, &index));
  block_index_free(&index);
  file_close(&file);
  free(good);
}

/* An index whose checksum is right and whose sizes are not, which only somebody who means it writes. */
static void test_crafted_index_is_not_used(void **state) {
  const char *path = temp_dir_path(*state, "a.bin.gz");
  const char *index_path = temp_dir_path(*state, "a.bin.gz.index");
  const struct {
    size_t offset; /* in the index: the bytes of data, and where the first blocks begin in them */
    int64_t value;
  } faults[] = {{32, INT64_MIN},
                {32, -1},
                {32, 0},
                {32, INT64_MAX},
                {56 + 8, INT64_MIN},
                {56 + 32 + 8, INT64_MIN},
                {56 + 32 + 8, -1},
                {56 + 32 + 8, 0},
                {56 + 32 + 8, INT64_MAX}};
  Error error = {0};
  size_t bytes = 0;
  size_t index_bytes = 0;
  File file = FILE_CLOSED;
  BlockIndex index = {0};
  free(make_file(path, 200000, &bytes));
  uint8_t *data = temp_file_read(index_path, &index_bytes);
  assert_true(load_u64(data + 40) >= 3);
  expect_ok(file_open_read(path, &file, &error), &error);
  for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++) {
    const uint64_t good = load_u64(data + faults[i].offset);
    store_u64(data + faults[i].offset, (uint64_t)faults[i].value);
    store_u32(data + index_bytes - 4, (uint32_t)crc32_z(0, data, index_bytes - 4));
    temp_file_write(index_path, data, index_bytes);
    assert_false(block_index_load(&file, BLOCK_BGZF, &index));
    assert_null(index.points);
    store_u64(data + faults[i].offset, good);
  }
  store_u32(data + index_bytes - 4, (uint32_t)crc32_z(0, data, index_bytes - 4));
  temp_file_write(index_path, data, index_bytes);
  assert_true(block_index_load(&file, BLOCK_BGZF, &index));
  block_index_free(&index);
  file_close(&file);
  free(data);
}

/* The index of a file that was replaced by another of the same size. */
static void test_stale_index_is_not_used(void **state) {
  const char *path = temp_dir_path(*state, "a.bin.gz");
  Error error = {0};
  size_t bytes = 0;
  size_t file_bytes = 0;
  File file = FILE_CLOSED;
  BlockIndex index = {0};
  free(make_file(path, 50000, &bytes));
  uint8_t *data = temp_file_read(path, &file_bytes);
  for (size_t end = 0; end < 2; end++) {
    const size_t at = end == 0 ? 40 : file_bytes - 40;
    data[at] ^= 1;
    temp_file_write(path, data, file_bytes);
    data[at] ^= 1;
    expect_ok(file_open_read(path, &file, &error), &error);
    assert_false(block_index_load(&file, BLOCK_BGZF, &index));
    file_close(&file);
  }
  free(data);
}

/* An index with sound checksums may still say what cannot be. */
static void test_absurd_index_is_not_used(void **state) {
  const char *path = temp_dir_path(*state, "a.bin.gz");
  Error error = {0};
  size_t bytes = 0;
  File file = FILE_CLOSED;
  BlockIndex good = {0};
  free(make_file(path, 50000, &bytes));
  expect_ok(file_open_read(path, &file, &error), &error);
  expect_ok(bgzf_scan(&file, &good, &error), &error);
  assert_true(good.count >= 3);
  for (int kind = 0; kind < 7; kind++) {
    BlockIndex index = {0};
    BlockIndex bad = good;
    BlockPoint points[8];
    assert_true(good.count <= 8);
    memcpy(points, good.points, (size_t)good.count * sizeof *points);
    bad.points = points;
    if (kind == 0) points[1].data_offset = 0;
    if (kind == 1) points[0].data_offset = 1;
    if (kind == 2) points[1].offset = bad.file_bytes;
    if (kind == 3) points[1].offset = -1;
    if (kind == 4) points[1].bits = 8;
    if (kind == 5) bad.data_bytes = INT64_C(1) << 40;
    if (kind == 6) points[1].offset = points[2].offset;
    expect_ok(block_index_save(&file, BLOCK_BGZF, &bad, &error), &error);
    assert_false(block_index_load(&file, BLOCK_BGZF, &index));
    assert_null(index.points);
  }
  block_index_free(&good);
  file_close(&file);
}

static void test_failing_writes(void **state) {
  const char *missing = temp_dir_path(*state, "missing/a.bin.gz");
  const char *full = temp_dir_path(*state, "full.bin.gz");
  const uint8_t header[HEADER] = {0};
  Error error = {0};
  BgzfWriter *writer = NULL;
  expect_error(bgzf_create(missing, header, sizeof header, &writer, &error), &error, STATUS_IO, missing);
  assert_null(writer);
  if (!file_exists("/dev/full")) skip();
  assert_int_equal(symlink("/dev/full", full), 0);
  expect_error(bgzf_create(full, header, sizeof header, &writer, &error), &error, STATUS_IO, full,
               "No space");
  assert_null(writer);
  assert_true(access(full, F_OK) != 0);
}

static void test_abandoned_file_is_gone(void **state) {
  const char *path = temp_dir_path(*state, "a.bin.gz");
  const uint8_t header[HEADER] = {0};
  Error error = {0};
  BgzfWriter *writer = NULL;
  expect_ok(bgzf_create(path, header, sizeof header, &writer, &error), &error);
  expect_ok(bgzf_write(writer, header, sizeof header, &error), &error);
  bgzf_abandon(writer);
  bgzf_abandon(NULL);
  assert_false(file_exists(path));
}

#define IN_TEMP_DIR(test) cmocka_unit_test_setup_teardown(test, temp_dir_set_up, temp_dir_tear_down)

int main(void) {
  const struct CMUnitTest tests[] = {
      IN_TEMP_DIR(test_round_trip),
      IN_TEMP_DIR(test_format),
      IN_TEMP_DIR(test_data_that_cannot_shrink),
      IN_TEMP_DIR(test_every_flipped_bit),
      IN_TEMP_DIR(test_every_truncation),
      IN_TEMP_DIR(test_something_appended),
      IN_TEMP_DIR(test_index_is_kept_beside),
      IN_TEMP_DIR(test_damaged_or_foreign_index_is_not_used),
      IN_TEMP_DIR(test_crafted_index_is_not_used),
      IN_TEMP_DIR(test_stale_index_is_not_used),
      IN_TEMP_DIR(test_absurd_index_is_not_used),
      IN_TEMP_DIR(test_failing_writes),
      IN_TEMP_DIR(test_abandoned_file_is_gone),
  };
  return cmocka_run_group_tests_name("bgzf", tests, NULL, NULL);
}
