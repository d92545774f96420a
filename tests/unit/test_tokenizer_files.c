/* The tokenizer that a checkpoint carries: where its files come from, and how it is found again. */
#include "train/tokenizer_files.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data/prepare.h"
#include "data/tokenizer.h"
#include "tests/support/expect.h"
#include "tests/support/small_gpt2.h"
#include "tests/support/temp_dir.h"
#include "tests/support/unit.h"

enum { NAME_BYTES = 512 };

/* Prepares a set in DIRECTORY/set. */
static void prepare_set(TempDir *directory, const char *tokenizer) {
  const char *const paths[] = {temp_dir_path(directory, "text")};
  Error error = {0};
  Description description;
  const PrepareOptions options = {.out = temp_dir_path(directory, "set"),
                                  .tokenizer = tokenizer,
                                  .shard_tokens = PREPARE_SHARD_TOKENS,
                                  .paths = paths,
                                  .path_count = 1};
  temp_file_write_text(paths[0], "the cat sat on that mat");
  expect_ok(prepare(&options, &description, &error), &error);
}

/* A set of the small tokenizer, which lies in DIRECTORY/mini. */
static void prepare_gpt2(TempDir *directory) {
  char name[NAME_BYTES];
  (void)snprintf(name, sizeof name, "gpt2:%s", temp_dir_path(directory, "mini"));
  small_gpt2_write(directory, "mini", "vocab.json", "merges.txt");
  prepare_set(directory, name);
}

static Status collect(TempDir *directory, CarriedTokenizer *out, Error *error) {
  return tokenizer_files_collect(temp_dir_path(directory, "set/train_*.bin.gz"), out, error);
}

static void remove_file(TempDir *directory, const char *name) {
  assert_int_equal(unlink(temp_dir_path(directory, name)), 0);
}

/* Collects `count` files, writes them to DIRECTORY/model and opens what is found there. */
static void expect_carried(TempDir *directory, int64_t count, int64_t vocab_size) {
  CarriedTokenizer carried;
  Error error = {0};
  char *name = NULL;
  Tokenizer *tokenizer = NULL;
  expect_ok(collect(directory, &carried, &error), &error);
  assert_int_equal(carried.count, count);
  assert_null(carried.missing);
  for (int64_t i = 0; i < count; i++) {
    char path[64];
    (void)snprintf(path, sizeof path, "model/%s", carried.files[i].name);
    temp_file_write(temp_dir_path(directory, path), carried.files[i].data, (size_t)carried.files[i].size);
  }
  tokenizer_files_free(&carried);
  expect_ok(tokenizer_files_find(temp_dir_path(directory, "model"), &name, &error), &error);
  expect_ok(tokenizer_open(name, &tokenizer, &error), &error);
  assert_int_equal(tokenizer->vocab_size, vocab_size);
  tokenizer_close(tokenizer);
  free(name);
}

/* No files, and a line that says why where the set has a tokenizer. */
static void expect_none(TempDir *directory, bool told) {
  CarriedTokenizer carried;
  Error error = {0};
  expect_ok(collect(directory, &carried, &error), &error);
  assert_int_equal(carried.count, 0);
  assert_int_equal(carried.missing != NULL, told);
  if (told) {
    assert_non_null(strstr(carried.missing, "set: was prepared with the tokenizer gpt2:"));
    assert_non_null(strstr(carried.missing, "mini, whose files are neither there"));
  }
  tokenizer_files_free(&carried);
  assert_null(carried.missing);
}

static void expect_collect_fails(TempDir *directory, Status status, const char *text) {
  CarriedTokenizer carried;
  Error error = {0};
  expect_error(collect(directory, &carried, &error), &error, status, text);
  assert_int_equal(carried.count, 0);
}

/* Gives the id of the end of a document to the token of id 0 and the other way round. */
static void exchange_ends(TempDir *directory, const char *file) {
  const char *path = temp_dir_path(directory, file);
  char *text = temp_file_read_text(path);
  char *first = strstr(text, ": 0,");
  char *last = strstr(text, ": 316");
  char *changed = NULL;
  assert_true(first != NULL && last != NULL && first < last);
  assert_true(asprintf(&changed, "%.*s: 316,%.*s: 0%s", (int)(first - text), text, (int)(last - first - 4),
                       first + 4, last + 5) > 0);
  temp_file_write_text(path, changed);
  free(changed);
  free(text);
}

/* Makes dataset.json one of before sets knew the files of their tokenizers. */
static void forget_checksums(TempDir *directory) {
  Error error = {0};
  Description description;
  const char *set = temp_dir_path(directory, "set");
  expect_ok(description_read(set, &description, &error), &error);
  assert_int_equal(description.file_count, 2);
  description.file_count = 0;
  expect_ok(description_write(set, &description, &error), &error);
}

static void test_bytes(void **state) {
  TempDir *directory = *state;
  prepare_set(directory, "bytes");
  expect_carried(directory, 1, 257);
  char *text = temp_file_read_text(temp_dir_path(directory, "model/ringgpt_tokenizer.json"));
  assert_string_equal(text, "{\"tokenizer\": \"bytes\", \"vocab_size\": 257, \"end_of_document\": 256}\n");
  free(text);
}

/* Files of GPT-2's kind that lie beside bytes are not theirs. */
static void test_bytes_beside_other_files(void **state) {
  TempDir *directory = *state;
  prepare_set(directory, "bytes");
  small_gpt2_write(directory, "set", "vocab.json", "merges.txt");
  expect_carried(directory, 1, 257);
}

/* The tokenizer by which the set was prepared may be gone: the set has its own. */
static void test_gpt2(void **state) {
  TempDir *directory = *state;
  prepare_gpt2(directory);
  remove_file(directory, "mini/vocab.json");
  remove_file(directory, "mini/merges.txt");
  expect_carried(directory, 3, SMALL_GPT2_VOCAB);
  char *text = temp_file_read_text(temp_dir_path(directory, "model/tokenizer_config.json"));
  assert_non_null(strstr(text, "\"tokenizer_class\": \"GPT2Tokenizer\""));
  free(text);
}

/* A set that was prepared before sets kept their tokenizers. */
static void test_gpt2_of_an_old_set(void **state) {
  TempDir *directory = *state;
  prepare_gpt2(directory);
  remove_file(directory, "set/vocab.json");
  remove_file(directory, "set/merges.txt");
  expect_carried(directory, 3, SMALL_GPT2_VOCAB);
  /* What lies there now is of no use, or gone. */
  char *text = temp_file_read_text(temp_dir_path(directory, "mini/vocab.json"));
  text[strlen(text) - 1] = '\0'; /* without its closing brace */
  char longer[9000];
  (void)snprintf(longer, sizeof longer, "%s, \"more\": %d}", text, SMALL_GPT2_VOCAB);
  temp_file_write_text(temp_dir_path(directory, "mini/vocab.json"), longer);
  free(text);
  expect_none(directory, true);
  temp_file_write_text(temp_dir_path(directory, "mini/vocab.json"), "{");
  expect_none(directory, true);
  remove_file(directory, "mini/vocab.json");
  expect_none(directory, true);
  /* Beside the shards it would be taken for the set's: it must be. */
  small_gpt2_write(directory, "set", "vocab.json", "merges.txt");
  temp_file_write_text(temp_dir_path(directory, "set/vocab.json"), longer);
  expect_collect_fails(directory, STATUS_DATA, "set: the tokenizer there is not the one");
}

/* Another tokenizer with as many tokens: a set that knows its files can tell, one of before cannot. */
static void test_tokenizer_of_the_same_size(void **state) {
  TempDir *directory = *state;
  const char *merges = temp_dir_path(directory, "set/merges.txt");
  prepare_gpt2(directory);
  temp_file_write_text(merges, "#version: 0.2\na t\nt h\n");
  expect_collect_fails(directory, STATUS_DATA, "set: the tokenizer there is not the one");
  forget_checksums(directory);
  expect_carried(directory, 3, SMALL_GPT2_VOCAB);
}

/* Which any set can tell. */
static void test_end_of_document_of_another(void **state) {
  TempDir *directory = *state;
  prepare_gpt2(directory);
  forget_checksums(directory);
  exchange_ends(directory, "set/vocab.json");
  expect_collect_fails(directory, STATUS_DATA, "set: the tokenizer there is not the one");
  remove_file(directory, "set/vocab.json");
  exchange_ends(directory, "mini/vocab.json");
  expect_none(directory, true);
}

/* The files where the set was prepared may have been changed since. */
static void test_recorded_tokenizer_of_the_same_size(void **state) {
  TempDir *directory = *state;
  prepare_gpt2(directory);
  remove_file(directory, "set/vocab.json");
  expect_carried(directory, 3, SMALL_GPT2_VOCAB);
  temp_file_write_text(temp_dir_path(directory, "mini/merges.txt"), "#version: 0.2\na t\nt h\n");
  expect_none(directory, true);
}

/* A file that is there and cannot be read is none that is missing. */
static void test_unreadable(void **state) {
  TempDir *directory = *state;
  prepare_gpt2(directory);
  for (int i = 0; i < 2; i++) {
    const char *name = i == 0 ? "set/merges.txt" : "mini/merges.txt";
    const char *path = temp_dir_path(directory, name);
    if (geteuid() != 0) {
      assert_int_equal(chmod(path, 0), 0);
      expect_collect_fails(directory, STATUS_NO_INPUT, name);
    }
    remove_file(directory, name);
    assert_int_equal(mkdir(path, 0777), 0);
    expect_collect_fails(directory, STATUS_NO_INPUT, name);
    assert_int_equal(rmdir(path), 0);
  }
  expect_none(directory, true);
}

static void test_damaged_set(void **state) {
  TempDir *directory = *state;
  prepare_gpt2(directory);
  temp_file_write_text(temp_dir_path(directory, "set/vocab.json"), "{\"a\": 0");
  expect_collect_fails(directory, STATUS_DATA, "set/vocab.json:1");
}

static void test_shards_without_description(void **state) {
  TempDir *directory = *state;
  prepare_set(directory, "bytes");
  remove_file(directory, "set/dataset.json");
  expect_none(directory, false);
  remove_file(directory, "set/train_000000.bin.gz");
  expect_collect_fails(directory, STATUS_NO_INPUT, "set/train_");
}

/* Directories of models without a tokenizer, or with one that says something else. */
static void test_nothing_found(void **state) {
  TempDir *directory = *state;
  Error error = {0};
  char *name = NULL;
  const char *model = temp_dir_path(directory, "model");
  const char *bytes = temp_dir_path(directory, "model/ringgpt_tokenizer.json");
  temp_file_write_text(temp_dir_path(directory, "model/tokenizer.json"), "{}");
  expect_error(tokenizer_files_find(model, &name, &error), &error, STATUS_CONFIG, model, "--tokenizer");
  /* One of two files is no tokenizer, whichever it is. */
  small_gpt2_write(directory, "model", "vocab.json", "merges.txt");
  remove_file(directory, "model/merges.txt");
  expect_error(tokenizer_files_find(model, &name, &error), &error, STATUS_CONFIG, model, "--tokenizer");
  small_gpt2_write(directory, "model", "vocab.json", "merges.txt");
  remove_file(directory, "model/vocab.json");
  expect_error(tokenizer_files_find(model, &name, &error), &error, STATUS_CONFIG, model, "--tokenizer");
  static const char *const wrong[] = {
      "",
      "{}",
      "[]",
      "{\"tokenizer\": \"words\", \"vocab_size\": 257, \"end_of_document\": 256}",
      "{\"tokenizer\": \"bytes\", \"vocab_size\": 258, \"end_of_document\": 256}",
      "{\"tokenizer\": \"bytes\", \"vocab_size\": 257, \"end_of_document\": 0}"};
  for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
    temp_file_write_text(bytes, wrong[i]);
    expect_error(tokenizer_files_find(model, &name, &error), &error, STATUS_DATA, bytes);
    assert_null(name);
  }
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, temp_dir_set_up, temp_dir_tear_down)

int main(void) {
  const struct CMUnitTest tests[] = {
      TEST(test_bytes),
      TEST(test_bytes_beside_other_files),
      TEST(test_gpt2),
      TEST(test_gpt2_of_an_old_set),
      TEST(test_tokenizer_of_the_same_size),
      TEST(test_end_of_document_of_another),
      TEST(test_recorded_tokenizer_of_the_same_size),
      TEST(test_unreadable),
      TEST(test_damaged_set),
      TEST(test_shards_without_description),
      TEST(test_nothing_found),
  };
  return cmocka_run_group_tests_name("tokenizer_files", tests, NULL, NULL);
}
