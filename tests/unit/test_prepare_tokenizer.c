/* A prepared set keeps the files of its tokenizer, and takes nobody else's place for it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
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

/* Whatever is no regular file where the set has or would have one is found before the old set is touched. */
static void test_what_is_no_file_is_in_the_way(void **state) {
  static const char *const places[] = {"vocab.json", "merges.txt", "dataset.json", "train_000007.bin.gz",
                                       "val_000000.bin.gz.index"};
  TempDir *directory = *state;
  char name[NAME_BYTES];
  const char *path;
  Error error = {0};
  Description description;
  PrepareOptions options = make_options(directory, "mini", name, &path);
  small_gpt2_write(directory, "mini", "vocab.json", "merges.txt");
  options.overwrite = true;
  for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
    char place[64];
    run(&options);
    (void)snprintf(place, sizeof place, "out/%s", places[i]);
    const char *mine = temp_dir_path(directory, place);
    if (file_exists(mine)) assert_int_equal(unlink(mine), 0);
    for (int link = 0; link < 2; link++) {
      if (link == 0) assert_int_equal(mkdir(mine, 0777), 0);
      if (link == 1) assert_int_equal(symlink("nowhere", mine), 0);
      expect_error(prepare(&options, &description, &error), &error, STATUS_USAGE, mine, "no regular file");
      if (i != 2) expect_ok(description_read(options.out, &description, &error), &error);
      assert_int_equal(remove(mine), 0);
    }
  }
  /* A set of bytes has no use for the places of a tokenizer; a link to a file is as good as one. */
  run(&options);
  assert_int_equal(unlink(temp_dir_path(directory, "out/vocab.json")), 0);
  assert_int_equal(symlink("../mini/vocab.json", temp_dir_path(directory, "out/vocab.json")), 0);
  run(&options);
  expect_same(directory, "out/vocab.json", "mini/vocab.json");
  assert_int_equal(unlink(temp_dir_path(directory, "out/vocab.json")), 0);
  assert_int_equal(mkdir(temp_dir_path(directory, "out/vocab.json"), 0777), 0);
  options.tokenizer = "bytes";
  run(&options);
}

/* Prepares once more, into the same folder, while a set is being made there. */
static void prepare_too(void *context, const PrepareProgress *progress) {
  PrepareOptions options = *(const PrepareOptions *)context;
  Error error = {0};
  Description description;
  (void)progress;
  options.progress = NULL;
  for (int i = 0; i < 2; i++) {
    options.overwrite = i > 0;
    expect_error(prepare(&options, &description, &error), &error, STATUS_USAGE, options.out,
                 "another process prepares a set there");
  }
}

static void test_one_at_a_time(void **state) {
  TempDir *directory = *state;
  char name[NAME_BYTES];
  const char *path;
  PrepareOptions options = make_options(directory, "mini", name, &path);
  small_gpt2_write(directory, "mini", "vocab.json", "merges.txt");
  options.progress = prepare_too;
  options.context = &options;
  run(&options);
  expect_same(directory, "out/merges.txt", "mini/merges.txt");
  options.overwrite = true; /* the lock is gone */
  run(&options);
}

/* The set says which files it was made with; sets of before, and of bytes, say nothing. */
static void test_the_description_knows_the_files(void **state) {
  TempDir *directory = *state;
  char name[NAME_BYTES];
  const char *path;
  const char *other = NULL;
  Error error = {0};
  Description description;
  TokenizerFiles files;
  PrepareOptions options = make_options(directory, "old", name, &path);
  small_gpt2_write(directory, "old", "encoder.json", "vocab.bpe");
  run(&options);
  expect_ok(description_read(options.out, &description, &error), &error);
  assert_int_equal(description.file_count, 2);
  expect_ok(tokenizer_read_files(name, &files, &error), &error);
  description_compare_files(&description, &files, &other);
  assert_null(other);
  for (int64_t i = 0; i < 2; i++) {
    files.files[i].data[20] ^= 1;
    description_compare_files(&description, &files, &other);
    assert_string_equal(other, i == 0 ? "vocab.json" : "merges.txt");
    files.files[i].data[20] ^= 1;
    files.files[i].bytes--;
    description_compare_files(&description, &files, &other);
    assert_string_equal(other, i == 0 ? "vocab.json" : "merges.txt");
    files.files[i].bytes++;
  }
  description.file_count = 0;
  files.files[0].data[20] ^= 1;
  description_compare_files(&description, &files, &other);
  assert_null(other);
  tokenizer_free_files(&files);
  options.tokenizer = "bytes";
  options.overwrite = true;
  run(&options);
  expect_ok(description_read(options.out, &description, &error), &error);
  assert_int_equal(description.file_count, 0);
}

static void test_damaged_description_of_files(void **state) {
  static const char *const wrong[] = {"{}",
                                      "[{}]",
                                      "[1]",
                                      "[{\"name\": \"vocab.json\", \"bytes\": 1}]",
                                      "[{\"name\": \"a\", \"bytes\": -1, \"crc32\": \"00000000\"}]",
                                      "[{\"name\": \"a\", \"bytes\": 1, \"crc32\": \"0000000x\"}]",
                                      "[{\"name\": \"a\", \"bytes\": 1, \"crc32\": \"000000\"}]"};
  static const char split[] = "{\"shards\": 0, \"tokens\": 0, \"documents\": 0, \"bytes\": 0}";
  TempDir *directory = *state;
  Error error = {0};
  Description description;
  for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
    char text[1024];
    (void)snprintf(text, sizeof text,
                   "{\"format\": \"ringgpt dataset\", \"version\": 1, \"tokenizer\": \"gpt2:x\", "
                   "\"vocab_size\": 317, \"end_of_document\": 316, \"tokenizer_files\": %s, "
                   "\"splits\": {\"train\": %s, \"val\": %s}}",
                   wrong[i], split, split);
    temp_file_write_text(temp_dir_path(directory, "out/dataset.json"), text);
    expect_error(description_read(temp_dir_path(directory, "out"), &description, &error), &error, STATUS_DATA,
                 "\"tokenizer_files\" is missing or wrong");
  }
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
      TEST(test_what_is_no_file_is_in_the_way),
      TEST(test_one_at_a_time),
      TEST(test_the_description_knows_the_files),
      TEST(test_damaged_description_of_files),
      TEST(test_leftovers),
  };
  return cmocka_run_group_tests_name("prepare_tokenizer", tests, NULL, NULL);
}
