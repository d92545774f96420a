/* A prepared set keeps the files of its tokenizer, and takes nobody else's place for it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "data/prepare.h"
#include "data/tokenizer.h"
#include "kernels/base/file.h"
#include "tests/support/expect.h"
#include "tests/support/small_gpt2.h"
#include "tests/support/temp_dir.h"
#include "tests/support/unit.h"

enum { NAME_BYTES = 512 };

/* Two documents in DIRECTORY/in, a tokenizer with the names of either release in `folder`. */
static PrepareOptions make_options(TempDir *directory, const char *folder, char name[NAME_BYTES],
                                   const char **path) {
  *path = temp_dir_path(directory, "in");
  temp_file_write_text(temp_dir_path(directory, "in/a"), "the cat sat on that mat");
  temp_file_write_text(temp_dir_path(directory, "in/b"), "return the value");
  (void)snprintf(name, NAME_BYTES, "gpt2:%s", temp_dir_path(directory, folder));
  return (PrepareOptions){.out = temp_dir_path(directory, "out"),
                          .tokenizer = name,
                          .seed = 1,
                          .shard_tokens = PREPARE_SHARD_TOKENS,
                          .paths = path,
                          .path_count = 1};
}

static void run(const PrepareOptions *options) {
  Error error = {0};
  Description description;
  expect_ok(prepare(options, &description, &error), &error);
}

static void expect_same(TempDir *directory, const char *left, const char *right) {
  char *a = temp_file_read_text(temp_dir_path(directory, left));
  char *b = temp_file_read_text(temp_dir_path(directory, right));
  assert_string_equal(a, b);
  free(b);
  free(a);
}

static void test_the_set_keeps_its_tokenizer(void **state) {
  TempDir *directory = *state;
  char name[NAME_BYTES];
  const char *path;
  const PrepareOptions options = make_options(directory, "old", name, &path);
  Error error = {0};
  Description description;
  Tokenizer *tokenizer = NULL;
  small_gpt2_write(directory, "old", "encoder.json", "vocab.bpe");
  run(&options);
  expect_same(directory, "out/vocab.json", "old/encoder.json");
  expect_same(directory, "out/merges.txt", "old/vocab.bpe");
  expect_ok(description_read(options.out, &description, &error), &error);
  assert_string_equal(description.tokenizer, name);
  (void)snprintf(name, NAME_BYTES, "gpt2:%s", options.out);
  expect_ok(tokenizer_open(name, &tokenizer, &error), &error);
  assert_int_equal(tokenizer->vocab_size, SMALL_GPT2_VOCAB);
  tokenizer_close(tokenizer);
}

/* With --overwrite the new set's tokenizer takes the place of the old one's; that of a set of bytes takes
 * none away, for it may be the user's own. */
static void test_overwrite_replaces_it(void **state) {
  TempDir *directory = *state;
  char name[NAME_BYTES];
  const char *path;
  PrepareOptions options = make_options(directory, "mini", name, &path);
  small_gpt2_write(directory, "mini", "vocab.json", "merges.txt");
  run(&options);
  temp_file_write_text(temp_dir_path(directory, "mini/merges.txt"), "#version: 0.2\na t\nt h\n");
  options.overwrite = true;
  run(&options);
  expect_same(directory, "out/vocab.json", "mini/vocab.json");
  expect_same(directory, "out/merges.txt", "mini/merges.txt");
  options.tokenizer = "bytes";
  run(&options);
  expect_same(directory, "out/vocab.json", "mini/vocab.json");
}

/* Files of the output folder that no set has put there. */
static void test_nobody_elses_files_are_taken(void **state) {
  TempDir *directory = *state;
  char name[NAME_BYTES];
  const char *path;
  Error error = {0};
  Description description;
  PrepareOptions options = make_options(directory, "mini", name, &path);
  const char *mine = temp_dir_path(directory, "out/merges.txt");
  small_gpt2_write(directory, "mini", "vocab.json", "merges.txt");
  char *same_length = temp_file_read_text(temp_dir_path(directory, "mini/merges.txt"));
  char *longer = NULL;
  assert_true(asprintf(&longer, "%s\n", same_length) > 0);
  same_length[strlen(same_length) - 2] ^= 1;
  const char *const contents[] = {"mine", same_length, longer};
  for (int i = 0; i < 3; i++) {
    temp_file_write_text(mine, contents[i]);
    expect_error(prepare(&options, &description, &error), &error, STATUS_USAGE, mine, "another folder");
    assert_false(file_exists(temp_dir_path(directory, "out/dataset.json")));
    assert_false(file_exists(temp_dir_path(directory, "out/vocab.json")));
  }
  free(longer);
  free(same_length);
  options.overwrite = true;
  run(&options);
  expect_same(directory, "out/merges.txt", "mini/merges.txt");
}

/* The tokenizer may lie where the set is to be: it stays, and it is no text. */
static void test_tokenizer_in_the_output_folder(void **state) {
  TempDir *directory = *state;
  char name[NAME_BYTES];
  const char *path;
  Error error = {0};
  Description description;
  PrepareOptions options = make_options(directory, "out", name, &path);
  small_gpt2_write(directory, "out", "vocab.json", "merges.txt");
  char *before = temp_file_read_text(temp_dir_path(directory, "out/vocab.json"));
  for (int i = 0; i < 2; i++) {
    options.overwrite = i > 0;
    run(&options);
    char *after = temp_file_read_text(temp_dir_path(directory, "out/vocab.json"));
    assert_string_equal(before, after);
    free(after);
  }
  free(before);
  path = temp_dir_path(directory, "out/merges.txt");
  expect_error(prepare(&options, &description, &error), &error, STATUS_USAGE, path);
}

/* What a preparation that was killed has left is in nobody's way. */
static void test_leftovers(void **state) {
  TempDir *directory = *state;
  char name[NAME_BYTES];
  const char *path;
  const PrepareOptions options = make_options(directory, "mini", name, &path);
  small_gpt2_write(directory, "mini", "vocab.json", "merges.txt");
  temp_file_write_text(temp_dir_path(directory, "out/.new/vocab.json"), "half");
  temp_file_write_text(temp_dir_path(directory, "out/.new/merges.txt"), "half");
  run(&options);
  assert_false(file_exists(temp_dir_path(directory, "out/.new")));
  expect_same(directory, "out/merges.txt", "mini/merges.txt");
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, temp_dir_set_up, temp_dir_tear_down)

int main(void) {
  const struct CMUnitTest tests[] = {
      TEST(test_the_set_keeps_its_tokenizer),
      TEST(test_overwrite_replaces_it),
      TEST(test_nobody_elses_files_are_taken),
      TEST(test_tokenizer_in_the_output_folder),
      TEST(test_leftovers),
  };
  return cmocka_run_group_tests_name("prepare_tokenizer", tests, NULL, NULL);
}
