/* Further files of a checkpoint: they are saved, listed and verified like its own. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "checkpoints/checkpoint.h"
#include "kernels/base/file.h"
#include "tests/support/checkpoint_case.h"
#include "tests/support/expect.h"
#include "tests/support/ranks.h"
#include "tests/support/temp_dir.h"
#include "tests/support/unit.h"

enum { LONG_BYTES = 300000, STEP = 7 };

typedef struct FilesCase {
  const char *directory;
  const CheckpointFile *files;
  int64_t count;
  int64_t step;
} FilesCase;

/* Rank 0 alone has the files; what the others say of them is not looked at. */
static Status save_rank(TestRank *rank, void *context, Error *error) {
  const FilesCase *save = context;
  const TensorTable *table = case_table();
  static const float zeros[1024] = {0};
  const CheckpointManifest manifest = {.step = save->step, .ring = 1, .data = 1, .threads = 1};
  const bool first = rank->world->rank == 0;
  const CheckpointRange all = {0, table->total};
  const CheckpointState state = {.table = table,
                                 .weights = zeros,
                                 .ranges = &all,
                                 .range_count = first ? 1 : 0,
                                 .m = zeros,
                                 .v = zeros,
                                 .model_config = "{}\n",
                                 .run_config = "run:\n",
                                 .extra = first ? save->files : NULL,
                                 .extra_count = first ? save->count : 1000};
  return checkpoint_save(save->directory, 2, &manifest, &state, NULL, rank->world, error);
}

static Status save(FilesCase *save_case, int ranks, Error *error) {
  return run_ranks(ranks, 1, 1, save_rank, save_case, error);
}

/* Files of no, one and many bytes, any bytes. */
static const CheckpointFile *some_files(void) {
  static unsigned char bytes[LONG_BYTES];
  static const CheckpointFile files[] = {{"vocab.json", bytes, LONG_BYTES},
                                         {"merges.txt", "\n", 1},
                                         {"empty-file_0.txt", "", 0},
                                         {"zeros.bin", "a\0b", 4}};
  for (int i = 0; i < LONG_BYTES; i++) bytes[i] = (unsigned char)(i * 7 + i / 256);
  return files;
}

static void save_some(const char *directory, int ranks, int64_t step) {
  Error error = {0};
  FilesCase save_case = {.directory = directory, .files = some_files(), .count = 4, .step = step};
  expect_ok(save(&save_case, ranks, &error), &error);
}

static void expect_damaged(const char *checkpoint, const char *name, const char *reason) {
  CheckpointManifest manifest;
  Error error = {0};
  expect_error(checkpoint_verify(checkpoint, &manifest, &error), &error, STATUS_DATA, name, reason);
  expect_error(checkpoint_verify_file(checkpoint, name, &error), &error, STATUS_DATA, name, reason);
}

static void test_files_come_back(void **state) {
  const TempDir *temp = *state;
  for (int ranks = 1; ranks <= 3; ranks++) {
    Error error = {0};
    CheckpointManifest manifest;
    save_some(temp->path, ranks, STEP + ranks);
    char *path = case_path(temp->path, STEP + ranks, "");
    expect_ok(checkpoint_verify(path, &manifest, &error), &error);
    assert_int_equal(case_entries(path), 3 + 4 + ranks + 1);
    for (int i = 0; i < 4; i++) {
      const CheckpointFile *file = &some_files()[i];
      char *name = case_path(temp->path, STEP + ranks, file->name);
      size_t bytes = 0;
      uint8_t *data = temp_file_read(name, &bytes);
      assert_int_equal(bytes, file->size);
      assert_memory_equal(data, file->data, bytes);
      expect_ok(checkpoint_verify_file(path, file->name, &error), &error);
      free(data);
      free(name);
    }
    free(path);
  }
}

static void test_damage_is_found(void **state) {
  const TempDir *temp = *state;
  Error error = {0};
  Checkpoint found;
  save_some(temp->path, 2, STEP);
  save_some(temp->path, 2, STEP + 1);
  char *path = case_path(temp->path, STEP + 1, "");
  char *name = case_path(temp->path, STEP + 1, "vocab.json");
  temp_file_patch(name, LONG_BYTES - 1, "?", 1);
  expect_damaged(path, "vocab.json", "checksum");
  /* The others are whole, and there is an older one to go on from. */
  expect_ok(checkpoint_verify_file(path, "merges.txt", &error), &error);
  expect_ok(case_find(temp->path, NULL, &found, &error), &error);
  assert_int_equal(found.manifest.step, STEP);
  temp_file_cut(name, LONG_BYTES - 1);
  expect_damaged(path, "vocab.json", "bytes");
  assert_int_equal(unlink(name), 0);
  expect_damaged(path, "vocab.json", "missing");
  free(name);
  free(path);
}

/* What no manifest lists cannot be checked: directories of other programs. */
static void test_files_that_nobody_lists(void **state) {
  TempDir *temp = *state;
  Error error = {0};
  save_some(temp->path, 1, STEP);
  char *path = case_path(temp->path, STEP, "");
  expect_ok(checkpoint_verify_file(path, "notes.txt", &error), &error);
  expect_ok(checkpoint_verify_file(temp->path, "vocab.json", &error), &error);
  char *manifest = case_path(temp->path, STEP, "manifest.json");
  temp_file_patch(manifest, 4, "?", 1);
  expect_error(checkpoint_verify_file(path, "vocab.json", &error), &error, STATUS_DATA, "manifest.json");
  free(manifest);
  free(path);
}

/* A name that a manifest may not list costs the save, on all ranks alike, and nothing else. */
static void test_bad_names(void **state) {
  const TempDir *temp = *state;
  static const char *const names[] = {
      "a file", ".hidden", "", "x/y",
      "a-name-of-more-than-sixty-three-characters-which-is-what-a-manifest-has-room-for"};
  save_some(temp->path, 2, STEP);
  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
    Error error = {0};
    const CheckpointFile file = {names[i], "text", 4};
    FilesCase save_case = {.directory = temp->path, .files = &file, .count = 1, .step = STEP + 1};
    assert_int_equal(save(&save_case, 2, &error), STATUS_IO);
    assert_int_equal(case_entries(temp->path), 1);
  }
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, temp_dir_set_up, temp_dir_tear_down)

int main(void) {
  const struct CMUnitTest tests[] = {
      TEST(test_files_come_back),
      TEST(test_damage_is_found),
      TEST(test_files_that_nobody_lists),
      TEST(test_bad_names),
  };
  return cmocka_run_group_tests_name("checkpoint_files", tests, NULL, NULL);
}
