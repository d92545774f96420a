/* Damaged checkpoints: whatever byte is wrong and whatever file is missing, the checkpoint is refused by name
 * and the one before is used. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "checkpoints/manifest.h"
#include "checkpoints/safetensors.h"
#include "kernels/base/file.h"
#include "tests/support/checkpoint_case.h"
#include "tests/support/compare.h"
#include "tests/support/expect.h"
#include "tests/support/temp_dir.h"
#include "tests/support/unit.h"

enum { RANDOM_BITS = 1000 };

static const char *const FILES[] = {"model.safetensors",
                                    "config.json",
                                    "config.yaml",
                                    "optimizer-00000-of-00002.safetensors",
                                    "optimizer-00001-of-00002.safetensors",
                                    "manifest.json"};
#define FILE_COUNT ((int)(sizeof FILES / sizeof FILES[0]))

/* Two checkpoints: steps 1 and 2; the tests damage the second one. */
static int set_up(void **state) {
  (void)temp_dir_set_up(state);
  case_save_step(*state, 2, 1);
  case_save_step(*state, 2, 2);
  return 0;
}

/* Checks that step 1 is found and step 2 named with the file as the reason; step 2 alone must be refused. */
static void check_falls_back(const char *directory, const char *file, const char *what) {
  CaseWarnings *warnings = calloc(1, sizeof *warnings);
  Checkpoint found;
  Error error = {0};
  assert_non_null(warnings);
  const Status status = case_find(directory, warnings, &found, &error);
  if (status != STATUS_OK) fail_msg("%s, %s: %s", file, what, error.text);
  if (found.manifest.step != 1) fail_msg("%s, %s: was not noticed", file, what);
  if (warnings->count != 1 || !case_warned(warnings, "step_00000002", file)) {
    fail_msg("%s, %s: %d warnings, the first: %s", file, what, warnings->count, warnings->text[0]);
  }
  free(warnings);
}

static int64_t size_of(const char *path) {
  struct stat info;
  assert_int_equal(stat(path, &info), 0);
  return info.st_size;
}

static void flip(int descriptor, int64_t at, int bit) {
  unsigned char byte = 0;
  assert_int_equal(pread(descriptor, &byte, 1, at), 1);
  byte = (unsigned char)(byte ^ (1U << bit));
  assert_int_equal(pwrite(descriptor, &byte, 1, at), 1);
}

/* Bytes of the file in front of its data: all of a file that is not safetensors. */
static int64_t header_bytes(const char *path, int64_t size) {
  if (strstr(path, ".safetensors") == NULL) return size;
  uint64_t length = 0;
  size_t bytes = 0;
  uint8_t *data = temp_file_read(path, &bytes);
  assert_true(bytes >= sizeof length);
  memcpy(&length, data, sizeof length);
  free(data);
  return (int64_t)(length + sizeof length);
}

/* ---------------------------------------------------------------- bits */

static void test_every_header_byte(void **state) {
  const TempDir *temp = *state;
  Random random = {.state = 1};
  for (int f = 0; f < FILE_COUNT; f++) {
    char *path = case_path(temp->path, 2, FILES[f]);
    const int64_t bytes = header_bytes(path, size_of(path));
    const int descriptor = open(path, O_RDWR | O_CLOEXEC);
    assert_true(descriptor >= 0);
    for (int64_t at = 0; at < bytes; at++) {
      char what[64];
      const int bit = (int)random_below(&random, 8);
      (void)snprintf(what, sizeof what, "byte %lld, bit %d", (long long)at, bit);
      flip(descriptor, at, bit);
      check_falls_back(temp->path, FILES[f], what);
      flip(descriptor, at, bit);
    }
    assert_int_equal(close(descriptor), 0);
    free(path);
  }
}

static void test_random_payload_bits(void **state) {
  const TempDir *temp = *state;
  Random random = {.state = 2};
  for (int i = 0; i < RANDOM_BITS; i++) {
    const int f = (int)random_below(&random, FILE_COUNT);
    char *path = case_path(temp->path, 2, FILES[f]);
    const int64_t size = size_of(path);
    const int64_t header = header_bytes(path, size);
    const int64_t first = header < size ? header : 0;
    const int64_t at = first + random_below(&random, size - first);
    const int bit = (int)random_below(&random, 8);
    char what[64];
    (void)snprintf(what, sizeof what, "byte %lld, bit %d", (long long)at, bit);
    const int descriptor = open(path, O_RDWR | O_CLOEXEC);
    assert_true(descriptor >= 0);
    flip(descriptor, at, bit);
    check_falls_back(temp->path, FILES[f], what);
    flip(descriptor, at, bit);
    assert_int_equal(close(descriptor), 0);
    free(path);
  }
  Checkpoint found;
  Error error = {0};
  assert_int_equal(case_find(temp->path, NULL, &found, &error), STATUS_OK);
  assert_int_equal(found.manifest.step, 2); /* all bits are back */
}

/* ---------------------------------------------------------------- lengths */

static void test_truncations(void **state) {
  const TempDir *temp = *state;
  Random random = {.state = 3};
  for (int f = 0; f < FILE_COUNT; f++) {
    char *path = case_path(temp->path, 2, FILES[f]);
    const int64_t size = size_of(path);
    char *copy = calloc((size_t)size + 1, 1);
    assert_non_null(copy);
    const int descriptor = open(path, O_RDWR | O_CLOEXEC);
    assert_int_equal(pread(descriptor, copy, (size_t)size, 0), size);
    for (int i = 0; i < 20; i++) {
      const int64_t length = i < 2 ? i * (size - 1) : random_below(&random, size);
      char what[64];
      (void)snprintf(what, sizeof what, "cut to %lld bytes", (long long)length);
      assert_int_equal(ftruncate(descriptor, length), 0);
      check_falls_back(temp->path, FILES[f], what);
      assert_int_equal(pwrite(descriptor, copy, (size_t)size, 0), size);
    }
    assert_int_equal(pwrite(descriptor, "\n", 1, size), 1);
    check_falls_back(temp->path, FILES[f], "a byte more");
    assert_int_equal(ftruncate(descriptor, size), 0);
    assert_int_equal(close(descriptor), 0);
    free(copy);
    free(path);
  }
}

static void test_missing_files(void **state) {
  TempDir *temp = *state;
  for (int f = 0; f < FILE_COUNT; f++) {
    char *path = case_path(temp->path, 2, FILES[f]);
    const char *aside = temp_dir_path(temp, "aside");
    assert_int_equal(rename(path, aside), 0);
    check_falls_back(temp->path, FILES[f], "missing");
    assert_int_equal(mkdir(path, 0777), 0);
    check_falls_back(temp->path, FILES[f], "a directory");
    assert_int_equal(rmdir(path), 0);
    assert_int_equal(rename(aside, path), 0);
    free(path);
  }
}

/* ---------------------------------------------------------------- whole directories */

static void test_file_in_place_of_directory(void **state) {
  TempDir *temp = *state;
  char *path = case_path(temp->path, 2, "");
  const char *aside = temp_dir_path(temp, "aside");
  assert_int_equal(rename(path, aside), 0);
  temp_file_write_text(path, "not a directory");
  check_falls_back(temp->path, "step_00000002", "a file");
  case_save_step(temp->path, 2, 2); /* replaces it */
  Error error = {0};
  expect_ok(case_load(path, 1, &error), &error);
  free(path);
}

/* A copy of another step's file, whole in itself, is not the one that belongs there. */
static void test_mixed_checkpoints(void **state) {
  TempDir *temp = *state;
  for (int f = 0; f < FILE_COUNT - 1; f++) {
    if (strstr(FILES[f], "config") != NULL) continue; /* equal in both */
    char *from = case_path(temp->path, 1, FILES[f]);
    char *to = case_path(temp->path, 2, FILES[f]);
    const char *aside = temp_dir_path(temp, "aside");
    assert_int_equal(rename(to, aside), 0);
    assert_int_equal(link(from, to), 0);
    check_falls_back(temp->path, FILES[f], "another step's");
    assert_int_equal(rename(aside, to), 0);
    free(to);
    free(from);
  }
}

static void test_renamed_directory(void **state) {
  const TempDir *temp = *state;
  char *path = case_path(temp->path, 2, "");
  char *renamed = case_path(temp->path, 9, "");
  assert_int_equal(rename(path, renamed), 0);
  CaseWarnings *warnings = calloc(1, sizeof *warnings);
  Checkpoint found;
  Error error = {0};
  assert_non_null(warnings);
  assert_int_equal(case_find(temp->path, warnings, &found, &error), STATUS_OK);
  assert_int_equal(found.manifest.step, 1);
  assert_true(case_warned(warnings, "step_00000009", "holds step 2"));
  assert_int_equal(case_load(renamed, 2, &error), STATUS_OK); /* by its name it may be used */
  free(warnings);
  free(renamed);
  free(path);
}

static void test_all_damaged(void **state) {
  const TempDir *temp = *state;
  for (int64_t step = 1; step <= 2; step++) {
    char *path = case_path(temp->path, step, "manifest.json");
    assert_int_equal(unlink(path), 0);
    free(path);
  }
  CaseWarnings *warnings = calloc(1, sizeof *warnings);
  Checkpoint found;
  Error error = {0};
  assert_non_null(warnings);
  assert_int_equal(case_find(temp->path, warnings, &found, &error), STATUS_DATA);
  assert_non_null(strstr(error.text, "none of its 2 checkpoints is whole"));
  assert_int_equal(warnings->count, 2);
  free(warnings);
}

static void check_open_refused(const char *path, Status expected, const char *text) {
  for (int ranks = 1; ranks <= 3; ranks++) {
    Error error = {0};
    assert_int_equal(case_load(path, ranks, &error), expected);
    if (strstr(error.text, path) == NULL || strstr(error.text, text) == NULL) fail_msg("%s", error.text);
  }
}

static void test_explicit_path_is_refused(void **state) {
  const TempDir *temp = *state;
  char *path = case_path(temp->path, 2, "");
  char *model = case_path(temp->path, 2, "model.safetensors");
  char *missing = case_path(temp->path, 3, "");
  const int descriptor = open(model, O_RDWR | O_CLOEXEC);
  flip(descriptor, size_of(model) - 1, 0);
  check_open_refused(path, STATUS_DATA, "model.safetensors: damaged");
  flip(descriptor, size_of(model) - 1, 0);
  assert_int_equal(close(descriptor), 0);
  check_open_refused(missing, STATUS_NO_INPUT, "no such checkpoint");
  check_open_refused(temp->path, STATUS_DATA, "manifest.json: is missing");
  Error error = {0};
  assert_int_equal(case_load(path, 2, &error), STATUS_OK);
  free(missing);
  free(model);
  free(path);
}

/* ---------------------------------------------------------------- slices that do not fit together */

/* Writes step 2's second optimizer file anew with the given slices, of zeros, and a manifest that fits. */
static void replace_slices(const char *directory, const SafetensorsItem *items, int64_t count) {
  static const float zeros[1024] = {0};
  char *path = case_path(directory, 2, FILES[4]);
  char *step = case_path(directory, 2, "");
  SafetensorsWriter writer = SAFETENSORS_WRITER_CLOSED;
  CheckpointManifest manifest;
  ManifestFiles files;
  Error error = {0};
  assert_int_equal(manifest_read(step, &manifest, &files, &error), STATUS_OK);
  assert_int_equal(safetensors_create(path, items, count, &writer, &error), STATUS_OK);
  for (int64_t i = 0; i < count; i++) {
    const int64_t elements = items[i].shape[0] * (items[i].rank == 2 ? items[i].shape[1] : 1);
    assert_int_equal(safetensors_append(&writer, zeros, elements, &error), STATUS_OK);
  }
  assert_int_equal(safetensors_finish(&writer, &error), STATUS_OK);
  for (int64_t i = 0; i < files.count; i++) {
    if (strcmp(files.files[i].name, FILES[4]) != 0) continue;
    files.files[i].size = writer.size;
    files.files[i].crc32 = writer.crc32;
  }
  assert_int_equal(manifest_write(step, &manifest, &files, &error), STATUS_OK);
  free(files.files);
  free(step);
  free(path);
}

#define VECTOR(text, length)                                                                                 \
  {                                                                                                          \
    .name = (text), .rank = 1, .shape = { length, 1 }                                                        \
  }

/* The slices that rank 1 of 2 holds: [436, 873) of the table. */
#define GOOD_SLICES                                                                                          \
  VECTOR("transformer.h.0.attn.c_attn.weight/exp_avg@92", 100),                                              \
      VECTOR("transformer.h.0.attn.c_attn.bias/exp_avg@0", 24),                                              \
      VECTOR("transformer.h.0.attn.c_proj.weight/exp_avg@0", 64),                                            \
      VECTOR("transformer.h.0.mlp.c_fc.weight/exp_avg@0", 248),                                              \
      VECTOR("transformer.ln_f.bias/exp_avg@0", 1),                                                          \
      VECTOR("transformer.h.0.attn.c_attn.weight/exp_avg_sq@92", 100),                                       \
      VECTOR("transformer.h.0.attn.c_attn.bias/exp_avg_sq@0", 24),                                           \
      VECTOR("transformer.h.0.attn.c_proj.weight/exp_avg_sq@0", 64),                                         \
      VECTOR("transformer.h.0.mlp.c_fc.weight/exp_avg_sq@0", 248)

static void check_slices(const char *directory, const SafetensorsItem *items, int64_t count, Status expected,
                         const char *text) {
  char *path = case_path(directory, 2, "");
  replace_slices(directory, items, count);
  for (int ranks = 1; ranks <= 2; ranks++) {
    Error error = {0};
    const Status status = case_load_table(path, ranks, case_table(), &error);
    if (status != expected || strstr(error.text, text) == NULL) fail_msg("status %d: %s", status, error.text);
  }
  free(path);
}

static void test_slices_must_tile(void **state) {
  const TempDir *temp = *state;
  const SafetensorsItem all[] = {GOOD_SLICES, VECTOR("transformer.ln_f.bias/exp_avg_sq@0", 1)};
  check_slices(temp->path, all, 10, STATUS_OK, "");
  check_slices(temp->path, all, 9, STATUS_DATA, "exp_avg_sq of transformer.ln_f.bias, element 0, is missing");
  check_slices(temp->path, all + 1, 9, STATUS_DATA,
               "exp_avg of transformer.h.0.attn.c_attn.weight, element 92, is missing");
  check_slices(temp->path, NULL, 0, STATUS_DATA, "element 92, is missing");
}

static void check_last_slice(const char *directory, SafetensorsItem last, Status expected, const char *text) {
  const SafetensorsItem items[] = {GOOD_SLICES, VECTOR("transformer.ln_f.bias/exp_avg_sq@0", 1), last};
  check_slices(directory, items, 11, expected, text);
}

static void test_bad_slices(void **state) {
  const TempDir *temp = *state;
  static const SafetensorsItem twice = VECTOR("transformer.ln_f.bias/exp_avg@00", 1);
  static const SafetensorsItem again = VECTOR("transformer.wte.weight/exp_avg@3", 2);
  static const SafetensorsItem beyond = VECTOR("transformer.ln_f.bias/exp_avg@1", 1);
  static const SafetensorsItem far = VECTOR("transformer.ln_f.bias/exp_avg@999999999999999999", 1);
  static const SafetensorsItem unknown = VECTOR("transformer.ln_g.bias/exp_avg@0", 1);
  static const SafetensorsItem third = VECTOR("transformer.ln_f.bias/momentum@0", 1);
  static const SafetensorsItem bare = VECTOR("transformer.ln_f.bias", 1);
  static const SafetensorsItem square = {
      .name = "transformer.wte.weight/exp_avg@0", .rank = 2, .shape = {2, 2}};
  check_last_slice(temp->path, twice, STATUS_DATA, "does not name a slice");
  check_last_slice(temp->path, again, STATUS_DATA,
                   "exp_avg of transformer.wte.weight, element 3, is there twice");
  check_last_slice(temp->path, beyond, STATUS_DATA, "does not lie in the 1 elements");
  check_last_slice(temp->path, far, STATUS_DATA, "does not lie in the 1 elements");
  check_last_slice(temp->path, unknown, STATUS_CONFIG, "belongs to no parameter");
  check_last_slice(temp->path, third, STATUS_DATA, "does not name a slice");
  check_last_slice(temp->path, bare, STATUS_DATA, "does not name a slice");
  check_last_slice(temp->path, square, STATUS_DATA, "does not lie in");
}

/* ---------------------------------------------------------------- manifests that are whole but wrong */

/* Writes a manifest for step 2 that lists `files` alone. */
static void test_manifest_contents(void **state) {
  const TempDir *temp = *state;
  char *step = case_path(temp->path, 2, "");
  CheckpointManifest manifest;
  ManifestFiles files;
  Error error = {0};
  assert_int_equal(manifest_read(step, &manifest, &files, &error), STATUS_OK);
  ManifestFile kept = files.files[1];
  ManifestFiles one = {.files = &kept, .count = 1};
  assert_int_equal(manifest_write(step, &manifest, &one, &error), STATUS_OK);
  check_falls_back(temp->path, "lists no model.safetensors", "weights not listed");
  (void)snprintf(kept.name, sizeof kept.name, "../step_00000001/config.json");
  assert_int_equal(manifest_write(step, &manifest, &one, &error), STATUS_OK);
  check_falls_back(temp->path, "manifest.json", "a file elsewhere");
  one.count = 0;
  assert_int_equal(manifest_write(step, &manifest, &one, &error), STATUS_OK);
  check_falls_back(temp->path, "manifest.json", "no files");
  manifest.step = -1;
  assert_int_equal(manifest_write(step, &manifest, &files, &error), STATUS_OK);
  check_falls_back(temp->path, "manifest.json: damaged: step", "a negative step");
  free(files.files);
  free(step);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, temp_dir_tear_down)

int main(void) {
  const struct CMUnitTest tests[] = {
      TEST(test_every_header_byte),
      TEST(test_random_payload_bits),
      TEST(test_truncations),
      TEST(test_missing_files),
      TEST(test_file_in_place_of_directory),
      TEST(test_mixed_checkpoints),
      TEST(test_renamed_directory),
      TEST(test_all_damaged),
      TEST(test_explicit_path_is_refused),
      TEST(test_slices_must_tile),
      TEST(test_bad_slices),
      TEST(test_manifest_contents),
  };
  return cmocka_run_group_tests_name("checkpoint_damage", tests, NULL, NULL);
}
