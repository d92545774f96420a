/* A set of shards as one stream: what patterns name, in which order, and what is wrong with a set. */
#include "data/dataset.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernels/base/file.h"
#include "tests/support/expect.h"
#include "tests/support/shards.h"
#include "tests/support/temp_dir.h"
#include "tests/support/unit.h"

/* Cuts tokens into `shards` shards NAME_000.bin... of uneven sizes, empty ones among them, in all forms. */
static void write_shards(TempDir *directory, const char *name, const int32_t *tokens, int64_t count,
                         int shards, int token_bytes) {
  int64_t at = 0;
  for (int i = 0; i < shards; i++) {
    char file[64];
    const ShardForm form = (ShardForm)(i % FORM_COUNT);
    int64_t part = i % 7 == 5 ? 0 : count / shards + i;
    if (i == shards - 1 || part > count - at) part = count - at;
    (void)snprintf(file, sizeof file, "%s_%03d.bin%s", name, i, form == FORM_PLAIN ? "" : ".gz");
    shards_write(temp_dir_path(directory, file), form, tokens + at, part, token_bytes);
    at += part;
  }
  assert_int_equal(at, count);
}

static int count_open_files(void) {
  int count = 0;
  DIR *folder = opendir("/proc/self/fd");
  assert_non_null(folder);
  while (readdir(folder) != NULL) count++;
  (void)closedir(folder);
  return count;
}

static void test_one_stream(void **state) {
  TempDir *directory = *state;
  const int64_t count = 100003;
  Error error = {0};
  Dataset *dataset = NULL;
  int32_t *tokens = shards_tokens(count, 1000);
  int32_t *read = malloc((size_t)count * sizeof *read);
  assert_non_null(read);
  write_shards(directory, "t", tokens, count, 40, 2);
  const int files_before = count_open_files();
  expect_ok(dataset_open(temp_dir_path(directory, "t_*"), 1000, &dataset, &error), &error);
  assert_int_equal(dataset_tokens(dataset), count);
  expect_ok(dataset_read(dataset, 0, count, read, &error), &error);
  assert_memory_equal(read, tokens, (size_t)count * sizeof *read);
  uint64_t random = 1;
  for (int i = 0; i < 500; i++) {
    random = random * 6364136223846793005U + 1442695040888963407U;
    const int64_t first = (int64_t)(random >> 33) % count;
    int64_t length = (int64_t)(random >> 20) % 9000;
    if (length > count - first) length = count - first;
    expect_ok(dataset_read(dataset, first, length, read, &error), &error);
    assert_memory_equal(read, tokens + first, (size_t)length * sizeof *read);
  }
  /* However many shards there are, few files are open. */
  assert_true(count_open_files() <= files_before + 16);
  dataset_close(dataset);
  assert_int_equal(count_open_files(), files_before);
  free(read);
  free(tokens);
}

/* Sorted by the bytes of the names, whatever order they were made in. */
static void test_order(void **state) {
  TempDir *directory = *state;
  const char *names[] = {"c.bin", "B.bin", "a.bin", "a-b.bin", "a_b.bin"};
  const int32_t order[] = {1, 3, 2, 4, 0}; /* B, a-b, a, a_b, c */
  Error error = {0};
  Dataset *dataset = NULL;
  int32_t read[5];
  for (int32_t i = 0; i < 5; i++) shards_write(temp_dir_path(directory, names[i]), FORM_PLAIN, &i, 1, 2);
  expect_ok(dataset_open(temp_dir_path(directory, "*.bin"), 10, &dataset, &error), &error);
  expect_ok(dataset_read(dataset, 0, 5, read, &error), &error);
  assert_memory_equal(read, order, sizeof read);
  dataset_close(dataset);
}

static void test_a_file_whose_name_is_a_pattern(void **state) {
  const char *path = temp_dir_path(*state, "a[1]*.bin");
  const int32_t tokens[3] = {1, 2, 3};
  Error error = {0};
  Dataset *dataset = NULL;
  shards_write(path, FORM_PLAIN, tokens, 3, 4);
  expect_ok(dataset_open(path, 10, &dataset, &error), &error);
  assert_int_equal(dataset_tokens(dataset), 3);
  dataset_close(dataset);
}

/* A prepared set with these numbers of tokens, all of id 7, in one shard a split. */
static void write_prepared(TempDir *directory, const char *name, int64_t train, int64_t val,
                           int64_t promised_train) {
  Error error = {0};
  Description description = {.tokenizer = "bytes", .vocab_size = 257, .end_of_document = 256};
  const int64_t counts[SPLIT_COUNT] = {train, val};
  const char *folder = temp_dir_path(directory, name);
  int32_t tokens[1000];
  for (int i = 0; i < 1000; i++) tokens[i] = 7;
  expect_ok(file_make_directory(folder, &error), &error);
  for (Split split = SPLIT_TRAIN; split <= SPLIT_VAL; split++) {
    char *path = NULL;
    if (counts[split] == 0) continue;
    expect_ok(split_shard_path(folder, split, 0, &path, &error), &error);
    shards_write(path, FORM_BGZF, tokens, counts[split], 2);
    description.splits[split] =
        (SplitDescription){.shards = 1, .tokens = counts[split], .documents = 1, .bytes = counts[split]};
    free(path);
  }
  description.splits[SPLIT_TRAIN].tokens = promised_train;
  expect_ok(description_write(folder, &description, &error), &error);
}

static int64_t open_and_count(const char *pattern) {
  Error error = {0};
  Dataset *dataset = NULL;
  expect_ok(dataset_open(pattern, 257, &dataset, &error), &error);
  const int64_t tokens = dataset_tokens(dataset);
  dataset_close(dataset);
  return tokens;
}

static void test_prepared_set(void **state) {
  TempDir *directory = *state;
  Error error = {0};
  Dataset *dataset = NULL;
  Description description = {0};
  bool found = false;
  write_prepared(directory, "both", 500, 200, 500);
  write_prepared(directory, "one", 300, 0, 300);
  assert_int_equal(open_and_count(temp_dir_path(directory, "both/train")), 500);
  assert_int_equal(open_and_count(temp_dir_path(directory, "both/val")), 200);
  assert_int_equal(open_and_count(temp_dir_path(directory, "both/val_*.bin.gz")), 200);
  assert_int_equal(open_and_count(temp_dir_path(directory, "one")), 300);
  assert_int_equal(open_and_count(temp_dir_path(directory, "one/train")), 300);
  expect_ok(dataset_describe(temp_dir_path(directory, "both/val_*.bin.gz"), &description, &found, &error),
            &error);
  assert_true(found);
  assert_string_equal(description.tokenizer, "bytes");
  assert_int_equal(description.vocab_size, 257);
  assert_int_equal(description.end_of_document, 256);
  assert_int_equal(description.splits[SPLIT_VAL].tokens, 200);
  expect_error(dataset_open(temp_dir_path(directory, "both"), 257, &dataset, &error), &error, STATUS_NO_INPUT,
               "both", "two splits", "both/train");
  expect_error(dataset_open(temp_dir_path(directory, "one/val"), 257, &dataset, &error), &error,
               STATUS_NO_INPUT, "no split \"val\"");
  const int32_t token = 1;
  shards_write(temp_dir_path(directory, "alone/x.bin"), FORM_PLAIN, &token, 1, 2);
  expect_ok(dataset_describe(temp_dir_path(directory, "alone/x.bin"), &description, &found, &error), &error);
  assert_false(found);
  assert_null(dataset);
}

static void test_what_cannot_be_opened(void **state) {
  TempDir *directory = *state;
  const int32_t tokens[2] = {1, 2};
  Error error = {0};
  Dataset *dataset = NULL;
  const char *nothing = temp_dir_path(directory, "train_*.bin");
  expect_error(dataset_open(nothing, 10, &dataset, &error), &error, STATUS_NO_INPUT, nothing, "no file");
  expect_error(dataset_open(temp_dir_path(directory, "x/train"), 10, &dataset, &error), &error,
               STATUS_NO_INPUT, "x/train", "no file");
  expect_error(dataset_open(directory->path, 10, &dataset, &error), &error, STATUS_NO_INPUT, directory->path,
               "dataset.json");
  shards_write(temp_dir_path(directory, "m1.bin"), FORM_PLAIN, tokens, 2, 2);
  shards_write(temp_dir_path(directory, "m2.bin"), FORM_PLAIN, tokens, 2, 4);
  expect_error(dataset_open(temp_dir_path(directory, "m*.bin"), 10, &dataset, &error), &error, STATUS_DATA,
               "m2.bin", "4 bytes", "have 2");
  write_prepared(directory, "set", 500, 200, 500);
  expect_error(dataset_open(temp_dir_path(directory, "set/train"), 256, &dataset, &error), &error,
               STATUS_CONFIG, "set/dataset.json", "257", "256", "model.vocab_size");
  write_prepared(directory, "lie", 500, 200, 501);
  expect_error(dataset_open(temp_dir_path(directory, "lie/train"), 257, &dataset, &error), &error,
               STATUS_DATA, "lie/dataset.json", "501", "500");
  assert_null(dataset);
}

static void test_damaged_descriptions(void **state) {
  TempDir *directory = *state;
  const char *path = temp_dir_path(directory, "dataset.json");
  const char *good =
      "{\"format\": \"ringgpt dataset\", \"version\": 1, \"tokenizer\": \"bytes\", \"vocab_size\": 257,"
      " \"end_of_document\": 256, \"splits\": {\"train\": {\"shards\": 1, \"tokens\": 5, \"documents\": 1,"
      " \"bytes\": 4}, \"val\": {\"shards\": 0, \"tokens\": 0, \"documents\": 0, \"bytes\": 0}}}";
  const struct {
    const char *from;
    const char *to;
    const char *text;
  } faults[] = {
      {"ringgpt dataset", "something else", "\"format\""},
      {"\"version\": 1", "\"version\": 2", "\"version\""},
      {"\"bytes\", \"vocab", "7, \"vocab", "\"tokenizer\""},
      {"257", "-1", "\"vocab_size\""},
      {"257", "2.5", "\"vocab_size\""},
      {"257", "5000000000", "\"vocab_size\""},
      {"256", "257", "\"end_of_document\""},
      {"\"shards\": 1", "\"shards\": 10000000", "\"splits\""},
      {"\"tokens\": 5, ", "", "\"splits\""},
      {"\"val\"", "\"valid\"", "\"splits\""},
      {"{\"format\"", "\"format\"", "JSON"},
      {"\"version\": 1", "\"version\": 1, \"version\": 1", "JSON"},
  };
  Description description = {0};
  Error error = {0};
  temp_file_write_text(path, good);
  expect_ok(description_read(directory->path, &description, &error), &error);
  assert_int_equal(description.splits[SPLIT_TRAIN].tokens, 5);
  for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++) {
    char text[1024];
    const char *at = strstr(good, faults[i].from);
    assert_non_null(at);
    (void)snprintf(text, sizeof text, "%.*s%s%s", (int)(at - good), good, faults[i].to,
                   at + strlen(faults[i].from));
    temp_file_write_text(path, text);
    expect_error(description_read(directory->path, &description, &error), &error, STATUS_DATA, path,
                 faults[i].text);
  }
}

/* ---------------------------------------------------------------- identity */

static uint32_t identity(TempDir *directory, const char *pattern) {
  Error error = {0};
  Dataset *dataset = NULL;
  expect_ok(dataset_open(temp_dir_path(directory, pattern), 257, &dataset, &error), &error);
  const uint32_t crc32 = dataset_crc32(dataset);
  dataset_close(dataset);
  return crc32;
}

/* The same files in another folder are the same set; other names, sizes, numbers of tokens or another order
 * are not. */
static void test_identity(void **state) {
  TempDir *directory = *state;
  int32_t *tokens = shards_tokens(900, 257);
  const struct {
    const char *names[2];
    int64_t counts[2];
    int token_bytes;
    ShardForm form;
  } sets[] = {
      {{"x_0.bin", "x_1.bin"}, {400, 500}, 2, FORM_PLAIN},
      {{"x_0.bin", "x_1.bin"}, {400, 500}, 2, FORM_PLAIN},
      {{"x_0.bin", "x_2.bin"}, {400, 500}, 2, FORM_PLAIN},
      {{"x_0.bin", "x_1.bin"}, {500, 400}, 2, FORM_PLAIN},
      {{"x_0.bin", "x_1.bin"}, {400, 501}, 2, FORM_PLAIN},
      {{"x_0.bin", "x_1.bin"}, {400, 500}, 4, FORM_PLAIN},
      {{"x_0.bin", "x_1.bin"}, {400, 500}, 2, FORM_GZIP},
  };
  enum { SETS = sizeof sets / sizeof sets[0] };
  uint32_t crcs[SETS + 1];
  for (int i = 0; i < SETS; i++) {
    char name[64];
    for (int j = 0; j < 2; j++) {
      (void)snprintf(name, sizeof name, "%d/%s", i, sets[i].names[j]);
      const char *path = temp_dir_path(directory, name);
      temp_file_write(path, "", 0);
      shards_write(path, sets[i].form, tokens, sets[i].counts[j], sets[i].token_bytes);
    }
    (void)snprintf(name, sizeof name, "%d/x_*.bin", i);
    crcs[i] = identity(directory, name);
  }
  /* One shard less. */
  crcs[SETS] = identity(directory, "0/x_0.bin");
  assert_int_equal(crcs[0], crcs[1]);
  for (int i = 1; i <= SETS; i++) {
    for (int j = i + 1; j <= SETS; j++) assert_int_not_equal(crcs[i], crcs[j]);
  }
  free(tokens);
}

#define IN_TEMP_DIR(test) cmocka_unit_test_setup_teardown(test, temp_dir_set_up, temp_dir_tear_down)

int main(void) {
  const struct CMUnitTest tests[] = {
      IN_TEMP_DIR(test_one_stream),
      IN_TEMP_DIR(test_order),
      IN_TEMP_DIR(test_a_file_whose_name_is_a_pattern),
      IN_TEMP_DIR(test_prepared_set),
      IN_TEMP_DIR(test_what_cannot_be_opened),
      IN_TEMP_DIR(test_damaged_descriptions),
      IN_TEMP_DIR(test_identity),
  };
  return cmocka_run_group_tests_name("dataset", tests, NULL, NULL);
}
