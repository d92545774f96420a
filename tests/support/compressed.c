/* Helpers for tests of compressed files. */
#define ZLIB_CONST

#include "tests/support/compressed.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "data/bgzf.h"
#include "data/gzip.h"
#include "tests/support/expect.h"
#include "tests/support/temp_dir.h"
#include "tests/support/unit.h"

uint8_t *compressed_gunzip(const char *path, size_t *bytes) {
  char command[512];
  size_t capacity = 1 << 16;
  uint8_t *data = malloc(capacity);
  *bytes = 0;
  assert_true(data != NULL &&
              snprintf(command, sizeof command, "gunzip -c '%s'", path) < (int)sizeof command);
  FILE *pipe = popen(command, "r");
  assert_true(pipe != NULL);
  for (size_t got = 1; got > 0; *bytes += got) {
    if (*bytes == capacity) {
      capacity *= 2;
      data = realloc(data, capacity);
      assert_true(data != NULL);
    }
    got = fread(data + *bytes, 1, capacity - *bytes, pipe);
  }
  assert_true(pclose(pipe) == 0);
  return data;
}

uint8_t *compressed_gzip(const uint8_t *data, size_t data_bytes, int level, int strategy, size_t *bytes) {
  z_stream stream = {.next_in = data, .avail_in = (uInt)data_bytes};
  assert_true(deflateInit2(&stream, level, Z_DEFLATED, 16 + MAX_WBITS, 8, strategy) == Z_OK);
  *bytes = deflateBound(&stream, (uLong)data_bytes);
  uint8_t *packed = malloc(*bytes);
  assert_true(packed != NULL);
  stream.next_out = packed;
  stream.avail_out = (uInt)*bytes;
  assert_true(deflate(&stream, Z_FINISH) == Z_STREAM_END);
  *bytes = (size_t)stream.total_out;
  assert_true(deflateEnd(&stream) == Z_OK);
  return packed;
}

static Status expand_all(const File *file, BlockKind kind, const BlockIndex *index, const uint8_t *data,
                         size_t data_bytes, Error *error) {
  for (int64_t i = 0; i < index->count; i++) {
    const size_t bytes = (size_t)block_index_bytes(index, i);
    uint8_t *block = malloc(bytes);
    assert_true(block != NULL);
    const Status status = kind == BLOCK_BGZF ? bgzf_expand(file, index, i, block, error)
                                             : gzip_expand(file, index, i, block, error);
    if (status == STATUS_OK) {
      assert_true(index->points[i].data_offset + (int64_t)bytes <= (int64_t)data_bytes);
      assert_true(memcmp(block, data + index->points[i].data_offset, bytes) == 0);
    }
    free(block);
    TRY(status);
  }
  assert_true(index->data_bytes == (int64_t)data_bytes);
  return STATUS_OK;
}

Status compressed_check(const char *path, BlockKind kind, const uint8_t *data, size_t data_bytes,
                        Error *error) {
  File file = FILE_CLOSED;
  BlockIndex index = {0};
  expect_ok(file_open_read(path, &file, error), error);
  Status status = kind == BLOCK_BGZF ? bgzf_scan(&file, &index, error)
                                     : gzip_scan(&file, (int64_t)data_bytes, &index, error);
  if (status == STATUS_OK) status = expand_all(&file, kind, &index, data, data_bytes, error);
  block_index_free(&index);
  file_close(&file);
  return status;
}

int64_t compressed_flip_bits(const char *path, BlockKind kind, const uint8_t *file, size_t file_bytes,
                             const uint8_t *data, size_t data_bytes, size_t step) {
  int64_t harmless = 0;
  temp_file_write(path, file, file_bytes);
  for (size_t bit = 0; bit < 8 * file_bytes; bit += step) {
    Error error = {0};
    const uint8_t flipped = (uint8_t)(file[bit / 8] ^ 1U << bit % 8);
    temp_file_patch(path, bit / 8, &flipped, 1);
    const Status status = compressed_check(path, kind, data, data_bytes, &error);
    if (status != STATUS_OK) expect_error(status, &error, STATUS_DATA, path, "byte");
    harmless += status == STATUS_OK;
    temp_file_patch(path, bit / 8, &file[bit / 8], 1);
  }
  return harmless;
}

void compressed_truncate(const char *path, BlockKind kind, const uint8_t *file, size_t file_bytes,
                         const uint8_t *data, size_t data_bytes) {
  temp_file_write(path, file, file_bytes);
  for (size_t bytes = file_bytes; bytes-- > 0;) {
    Error error = {0};
    temp_file_cut(path, bytes);
    expect_error(compressed_check(path, kind, data, data_bytes, &error), &error, STATUS_DATA, path,
                 "truncated", "byte");
  }
}
