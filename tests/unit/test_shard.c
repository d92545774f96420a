/* One shard in its three forms: what is read, and what every kind of damage says. */
#include "data/shard.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "data/bgzf.h"
#include "data/little_endian.h"
#include "kernels/base/clock.h"
#include "kernels/base/file.h"
#include "tests/support/compressed.h"
#include "tests/support/expect.h"
#include "tests/support/shards.h"
#include "tests/support/temp_dir.h"
#include "tests/support/unit.h"

static const char *const form_names[FORM_COUNT] = {"plain.bin", "bgzf.bin.gz", "gzip.bin.gz"};

/* Reads all of a shard: opening or reading may fail. */
static Status read_all(const char *path, int64_t vocab_size, Error *error) {
  Shard *shard = NULL;
  TRY(shard_open(path, vocab_size, &shard, error));
  int32_t *tokens = malloc((size_t)shard_tokens(shard) * sizeof *tokens + 1);
  assert_non_null(tokens);
  const Status status = shard_read(shard, 0, shard_tokens(shard), tokens, error);
  free(tokens);
  shard_close(shard);
  return status;
}

/* A random number below `bound` from a state. */
static int64_t pick(uint64_t *state, int64_t bound) {
  *state = *state * 6364136223846793005U + 1442695040888963407U;
  return (int64_t)(*state >> 33) % bound;
}

static void check_random_reads(Shard *shard, const int32_t *tokens, int64_t count) {
  Error error = {0};
  uint64_t random = 3;
  int32_t *piece = malloc(200000 * sizeof *piece);
  assert_non_null(piece);
  for (int i = 0; i < 300; i++) {
    const int64_t first = pick(&random, count);
    const int64_t most = i % 10 == 0 ? 200000 : 300;
    const int64_t length = pick(&random, most < count - first ? most : count - first + 1);
    expect_ok(shard_read(shard, first, length, piece, &error), &error);
    if (length > 0) assert_memory_equal(piece, tokens + first, (size_t)length * sizeof *piece);
    if (i % 50 == 0) shard_rest(shard);
  }
  free(piece);
}

static void test_random_against_sequential(void **state) {
  const int64_t count = 1300001;
  for (int token_bytes = 2; token_bytes <= 4; token_bytes += 2) {
    const int32_t vocab_size = token_bytes == 2 ? 65536 : 128256;
    int32_t *tokens = shards_tokens(count, vocab_size);
    int32_t *read = malloc((size_t)count * sizeof *read);
    assert_non_null(read);
    for (ShardForm form = FORM_PLAIN; form < FORM_COUNT; form++) {
      const char *path = temp_dir_path(*state, form_names[form]);
      Error error = {0};
      Shard *shard = NULL;
      shards_write(path, form, tokens, count, token_bytes);
      expect_ok(shard_open(path, vocab_size, &shard, &error), &error);
      assert_int_equal(shard_tokens(shard), count);
      assert_int_equal(shard_token_bytes(shard), token_bytes);
      memset(read, 0xff, (size_t)count * sizeof *read);
      expect_ok(shard_read(shard, 0, count, read, &error), &error);
      assert_memory_equal(read, tokens, (size_t)count * sizeof *read);
      check_random_reads(shard, tokens, count);
      shard_close(shard);
    }
    free(read);
    free(tokens);
  }
}

/* Without the index beside it a BGZF shard is read all the same. */
static void test_missing_index(void **state) {
  const int64_t count = 200000;
  const char *path = temp_dir_path(*state, "a.bin.gz");
  Error error = {0};
  Shard *shard = NULL;
  int32_t *tokens = shards_tokens(count, 500);
  shards_write(path, FORM_BGZF, tokens, count, 2);
  assert_int_equal(unlink(temp_dir_path(*state, "a.bin.gz.index")), 0);
  expect_ok(shard_open(path, 500, &shard, &error), &error);
  check_random_reads(shard, tokens, count);
  shard_close(shard);
  free(tokens);
}

static void test_empty_shard(void **state) {
  for (ShardForm form = FORM_PLAIN; form < FORM_COUNT; form++) {
    const char *path = temp_dir_path(*state, form_names[form]);
    Error error = {0};
    Shard *shard = NULL;
    shards_write(path, form, NULL, 0, 2);
    expect_ok(shard_open(path, 10, &shard, &error), &error);
    assert_int_equal(shard_tokens(shard), 0);
    expect_ok(shard_read(shard, 0, 0, NULL, &error), &error);
    shard_close(shard);
  }
}

/* Nothing is read of a shard without tokens, so opening it must find what is wrong. */
static void test_empty_shard_with_something_in_it(void **state) {
  uint8_t data[SHARD_HEADER_BYTES + 8] = {0};
  shard_header(0, 2, data);
  for (ShardForm form = FORM_PLAIN; form < FORM_COUNT; form++) {
    const char *path = temp_dir_path(*state, form_names[form]);
    Error error = {0};
    Shard *shard = NULL;
    shards_write_bytes(path, form, data, sizeof data);
    expect_error(shard_open(path, 10, &shard, &error), &error, STATUS_DATA, path);
  }
}

static void test_wrong_headers(void **state) {
  const struct {
    size_t offset;
    uint32_t value;
    const char *text;
  } faults[] = {
      {0, 12345, "magic"},
      {0, 20240801, "version"},
      {4, 2, "version"},
      {8, 1001, "1001 tokens of 2 bytes, 3026 bytes in all, but there are 3024"},
      {8, 999, "there are 3024"},
      {8, 0x80000000U, "negative"},
      {8, 0x7fffffffU, "promises"},
  };
  int32_t *tokens = shards_tokens(1000, 100);
  size_t bytes = 0;
  uint8_t *data = shards_bytes(tokens, 1000, 2, &bytes);
  for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++) {
    const uint32_t good = load_u32(data + faults[i].offset);
    store_u32(data + faults[i].offset, faults[i].value);
    for (ShardForm form = FORM_PLAIN; form < FORM_COUNT; form++) {
      const char *path = temp_dir_path(*state, form_names[form]);
      Error error = {0};
      shards_write_bytes(path, form, data, bytes);
      /* How much a gzip file holds is found by expanding it: the texts differ. */
      const bool by_size = form == FORM_GZIP && i >= 3 && i != 5;
      expect_error(read_all(path, 100, &error), &error, STATUS_DATA, path,
                   by_size ? "promises" : faults[i].text);
    }
    store_u32(data + faults[i].offset, good);
  }
  free(data);
  free(tokens);
}

static void test_what_is_no_shard(void **state) {
  const char *path = temp_dir_path(*state, "a.bin");
  char text[3000];
  Error error = {0};
  expect_error(read_all(path, 100, &error), &error, STATUS_NO_INPUT, path, "No such file");
  temp_file_write(path, "", 0);
  expect_error(read_all(path, 100, &error), &error, STATUS_DATA, path, "is empty");
  temp_file_write(path, "0123", 4);
  expect_error(read_all(path, 100, &error), &error, STATUS_DATA, path, "4 bytes");
  memset(text, 'a', sizeof text);
  temp_file_write(path, text, sizeof text);
  expect_error(read_all(path, 100, &error), &error, STATUS_DATA, path, "magic", "prepare");
  shards_write_bytes(path, FORM_GZIP, (const uint8_t *)"hello", 5);
  expect_error(read_all(path, 100, &error), &error, STATUS_DATA, path, "5 bytes");
  temp_file_write(path, "\x1f\x8b", 2);
  expect_error(read_all(path, 100, &error), &error, STATUS_DATA, path, "truncated");
}

static void test_truncated_at_every_kind_of_place(void **state) {
  int32_t *tokens = shards_tokens(100000, 5000);
  for (ShardForm form = FORM_PLAIN; form < FORM_COUNT; form++) {
    const char *path = temp_dir_path(*state, form_names[form]);
    size_t bytes = 0;
    shards_write(path, form, tokens, 100000, 2);
    free(temp_file_read(path, &bytes));
    /* Inside the end-of-file member and before it, inside a trailer, in the middle, in the header. */
    const size_t cuts[] = {bytes - 1, bytes - 27, bytes - 28, bytes - 29, bytes - 36, bytes / 2, 1500,
                           1055,      1040,       900,        30,         17,         3,         2};
    for (size_t i = 0; i < sizeof cuts / sizeof cuts[0]; i++) {
      Error error = {0};
      temp_file_cut(path, cuts[i]);
      expect_error(read_all(path, 5000, &error), &error, STATUS_DATA, path);
    }
  }
  free(tokens);
}

static void test_token_out_of_range(void **state) {
  const int64_t count = 70000;
  const int64_t at = 54321;
  int32_t *tokens = shards_tokens(count, 5000);
  for (int token_bytes = 2; token_bytes <= 4; token_bytes += 2) {
    for (ShardForm form = FORM_PLAIN; form < FORM_COUNT; form++) {
      const char *path = temp_dir_path(*state, form_names[form]);
      char place[64];
      Error error = {0};
      Shard *shard = NULL;
      int32_t around[4];
      tokens[at] = 5000;
      shards_write(path, form, tokens, count, token_bytes);
      (void)snprintf(place, sizeof place, "token %d, at byte %d", (int)at, 1024 + (int)at * token_bytes);
      expect_error(read_all(path, 5000, &error), &error, STATUS_DATA, path, place, "is 5000", "5000 entries");
      expect_ok(read_all(path, 5001, &error), &error);
      /* The tokens before and behind it can be read. */
      expect_ok(shard_open(path, 5000, &shard, &error), &error);
      expect_ok(shard_read(shard, at - 4, 4, around, &error), &error);
      expect_ok(shard_read(shard, at + 1, 4, around, &error), &error);
      expect_error(shard_read(shard, at, 1, around, &error), &error, STATUS_DATA, place);
      shard_close(shard);
    }
  }
  tokens[at] = -5; /* 2^32 - 5 as u32 */
  const char *path = temp_dir_path(*state, "a.bin");
  Error error = {0};
  shards_write(path, FORM_PLAIN, tokens, count, 4);
  expect_error(read_all(path, 128256, &error), &error, STATUS_DATA, path, "is 4294967291");
  free(tokens);
}

/* With an index in place only the block that is damaged fails, also where the ends of the file are sound. */
static void test_damage_is_local(void **state) {
  const int64_t count = 1500000;
  int32_t *tokens = shards_tokens(count, 60000);
  for (ShardForm form = FORM_BGZF; form < FORM_COUNT; form++) {
    const char *path = temp_dir_path(*state, form_names[form]);
    Error error = {0};
    Shard *shard = NULL;
    int32_t piece[100];
    size_t bytes = 0;
    int failures = 0;
    shards_write(path, form, tokens, count, 2);
    expect_ok(read_all(path, 60000, &error), &error); /* a gzip shard now has its index, too */
    uint8_t *file = temp_file_read(path, &bytes);
    file[bytes / 2] ^= 0x10;
    temp_file_patch(path, bytes / 2, &file[bytes / 2], 1);
    free(file);
    expect_ok(shard_open(path, 60000, &shard, &error), &error);
    for (int64_t first = 0; first + 100 <= count; first += 10000) {
      if (shard_read(shard, first, 100, piece, &error) == STATUS_OK) {
        assert_memory_equal(piece, tokens + first, sizeof piece);
      } else {
        expect_error(error.status, &error, STATUS_DATA, path, "byte");
        failures++;
      }
    }
    /* A member of BGZF holds 3 of the places that are read, a block between two access points 52 or more. */
    if (form == FORM_BGZF) assert_true(failures >= 3 && failures <= 4);
    if (form == FORM_GZIP) assert_true(failures >= 52 && failures < 100);
    shard_close(shard);
  }
  free(tokens);
}

static void test_gzip_index_is_kept_and_used(void **state) {
  const int64_t count = 3000000;
  const char *path = temp_dir_path(*state, "a.bin.gz");
  const char *index = temp_dir_path(*state, "a.bin.gz.index");
  Error error = {0};
  Shard *shard = NULL;
  int32_t piece[1000];
  int32_t *tokens = shards_tokens(count, 60000);
  shards_write(path, FORM_GZIP, tokens, count, 2);
  assert_false(file_exists(index));
  for (int round = 0; round < 2; round++) {
    expect_ok(shard_open(path, 60000, &shard, &error), &error);
    assert_int_equal(file_exists(index), round); /* opening does not expand the file */
    expect_ok(shard_read(shard, count - 1000, 1000, piece, &error), &error);
    assert_memory_equal(piece, tokens + count - 1000, sizeof piece);
    assert_true(file_exists(index));
    shard_close(shard);
  }
  free(tokens);
}

/* A shard at rest has given up the index that its file keeps, and gets it from there, or makes it again. */
static void test_gzip_index_is_released_at_rest(void **state) {
  const int64_t count = 100000;
  const char *path = temp_dir_path(*state, "a.bin.gz");
  const char *index = temp_dir_path(*state, "a.bin.gz.index");
  Error error = {0};
  Shard *shard = NULL;
  int32_t piece[1000];
  int32_t *tokens = shards_tokens(count, 60000);
  shards_write(path, FORM_GZIP, tokens, count, 2);
  expect_ok(shard_open(path, 60000, &shard, &error), &error);
  for (int round = 0; round < 4; round++) {
    expect_ok(shard_read(shard, count - 1000, 1000, piece, &error), &error);
    assert_memory_equal(piece, tokens + count - 1000, sizeof piece);
    assert_true(file_exists(index));
    shard_rest(shard);
    if (round % 2 == 0) assert_int_equal(unlink(index), 0);
  }
  shard_close(shard);
  free(tokens);
}

static void test_folder_that_cannot_take_the_index(void **state) {
  const int64_t count = 100000;
  const char *path = temp_dir_path(*state, "a.bin.gz");
  Error error = {0};
  int32_t *tokens = shards_tokens(count, 60000);
  shards_write(path, FORM_GZIP, tokens, count, 2);
  /* Stands for a read-only folder, which does not stop root: the name is taken by a folder with a file. */
  temp_file_write_text(temp_dir_path(*state, "a.bin.gz.index/x"), "x");
  expect_ok(read_all(path, 60000, &error), &error);
  free(tokens);
}

static void test_header_that_lies_about_gzip(void **state) {
  const char *path = temp_dir_path(*state, "a.bin.gz");
  const size_t bytes = 40000000;
  Error error = {0};
  uint8_t *data = calloc(bytes, 1);
  assert_non_null(data);
  shard_header(1000, 2, data);
  shards_write_bytes(path, FORM_GZIP, data, bytes);
  free(data);
  const double start = clock_seconds();
  expect_error(read_all(path, 100, &error), &error, STATUS_DATA, path, "more than the 3024 bytes");
  assert_true(clock_seconds() - start < 0.1);
  assert_false(file_exists(temp_dir_path(*state, "a.bin.gz.index")));
}

static void test_changed_while_in_use(void **state) {
  int32_t *tokens = shards_tokens(1000, 100);
  for (ShardForm form = FORM_PLAIN; form < FORM_COUNT; form++) {
    const char *path = temp_dir_path(*state, form_names[form]);
    Error error = {0};
    Shard *shard = NULL;
    int32_t token = 0;
    shards_write(path, form, tokens, 1000, 2);
    expect_ok(shard_open(path, 100, &shard, &error), &error);
    shard_rest(shard);
    shards_write(path, form, tokens, 900, 2);
    expect_error(shard_read(shard, 5, 1, &token, &error), &error, STATUS_DATA, path, "changed");
    assert_int_equal(unlink(path), 0);
    shard_rest(shard);
    expect_error(shard_read(shard, 5, 1, &token, &error), &error, STATUS_NO_INPUT, path);
    shard_close(shard);
  }
  free(tokens);
}

/* The header of a file that is prepared is known last: the reader must find it patched. */
static void test_gunzip_gives_the_llmc_file(void **state) {
  const char *path = temp_dir_path(*state, "a.bin.gz");
  size_t bytes = 0;
  size_t expanded_bytes = 0;
  int32_t *tokens = shards_tokens(123457, 50257);
  uint8_t *data = shards_bytes(tokens, 123457, 2, &bytes);
  shards_write(path, FORM_BGZF, tokens, 123457, 2);
  uint8_t *expanded = compressed_gunzip(path, &expanded_bytes);
  assert_int_equal(expanded_bytes, bytes);
  assert_memory_equal(expanded, data, bytes);
  assert_int_equal(load_u32(expanded), 20240520);
  assert_int_equal(load_u32(expanded + 4), 1);
  assert_int_equal(load_u32(expanded + 8), 123457);
  for (size_t i = 12; i < 1024; i++) assert_int_equal(expanded[i], 0);
  free(expanded);
  free(data);
  free(tokens);
}

#define IN_TEMP_DIR(test) cmocka_unit_test_setup_teardown(test, temp_dir_set_up, temp_dir_tear_down)

int main(void) {
  const struct CMUnitTest tests[] = {
      IN_TEMP_DIR(test_random_against_sequential),
      IN_TEMP_DIR(test_missing_index),
      IN_TEMP_DIR(test_empty_shard),
      IN_TEMP_DIR(test_empty_shard_with_something_in_it),
      IN_TEMP_DIR(test_wrong_headers),
      IN_TEMP_DIR(test_what_is_no_shard),
      IN_TEMP_DIR(test_truncated_at_every_kind_of_place),
      IN_TEMP_DIR(test_token_out_of_range),
      IN_TEMP_DIR(test_damage_is_local),
      IN_TEMP_DIR(test_gzip_index_is_kept_and_used),
      IN_TEMP_DIR(test_gzip_index_is_released_at_rest),
      IN_TEMP_DIR(test_folder_that_cannot_take_the_index),
      IN_TEMP_DIR(test_header_that_lies_about_gzip),
      IN_TEMP_DIR(test_changed_while_in_use),
      IN_TEMP_DIR(test_gunzip_gives_the_llmc_file),
  };
  return cmocka_run_group_tests_name("shard", tests, NULL, NULL);
}
