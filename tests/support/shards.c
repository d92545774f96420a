/* Token shards for tests. */
#include "tests/support/shards.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "data/bgzf.h"
#include "data/little_endian.h"
#include "data/shard.h"
#include "kernels/base/philox.h"
#include "tests/support/expect.h"
#include "tests/support/temp_dir.h"
#include "tests/support/unit.h"

int32_t *shards_tokens(int64_t count, int32_t vocab_size) {
  int32_t *tokens = malloc((size_t)count * sizeof *tokens + 1);
  assert_true(tokens != NULL);
  for (int64_t i = 0; i < count; i++) {
    uint32_t words[4];
    philox_draw(7, PHILOX_WEIGHTS, 0, (uint64_t)i, words);
    /* Every fourth token is a new one, the others repeat an earlier one. */
    const int64_t back = 1 + words[1] % 512;
    tokens[i] = words[2] % 4 == 0 || back > i ? (int32_t)(words[0] % (uint32_t)vocab_size) : tokens[i - back];
  }
  return tokens;
}

uint8_t *shards_bytes(const int32_t *tokens, int64_t count, int token_bytes, size_t *bytes) {
  *bytes = SHARD_HEADER_BYTES + (size_t)count * (size_t)token_bytes;
  uint8_t *data = malloc(*bytes);
  assert_true(data != NULL);
  shard_header(count, token_bytes, data);
  for (int64_t i = 0; i < count; i++) {
    uint8_t *to = data + SHARD_HEADER_BYTES + i * token_bytes;
    if (token_bytes == 2) {
      store_u16(to, (uint16_t)tokens[i]);
    } else {
      store_u32(to, (uint32_t)tokens[i]);
    }
  }
  return data;
}

static void write_bgzf(const char *path, const uint8_t *data, size_t bytes) {
  Error error = {0};
  BgzfWriter *writer = NULL;
  const uint8_t header[SHARD_HEADER_BYTES] = {0};
  assert_true(bytes >= sizeof header);
  expect_ok(bgzf_create(path, header, sizeof header, &writer, &error), &error);
  expect_ok(bgzf_write(writer, data + sizeof header, bytes - sizeof header, &error), &error);
  expect_ok(bgzf_finish(writer, data, &error), &error);
}

void shards_write_bytes(const char *path, ShardForm form, const uint8_t *data, size_t bytes) {
  if (form == FORM_PLAIN) {
    temp_file_write(path, data, bytes);
  } else if (form == FORM_BGZF) {
    write_bgzf(path, data, bytes);
  } else {
    gzFile file = gzopen(path, "wb6");
    assert_true(file != NULL);
    assert_true(gzwrite(file, data, (unsigned)bytes) == (int)bytes);
    assert_true(gzclose(file) == Z_OK);
  }
}

void shards_write(const char *path, ShardForm form, const int32_t *tokens, int64_t count, int token_bytes) {
  size_t bytes = 0;
  uint8_t *data = shards_bytes(tokens, count, token_bytes, &bytes);
  shards_write_bytes(path, form, data, bytes);
  free(data);
}
