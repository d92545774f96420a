/* Checkpoints that nothing disturbs: round trips between numbers of ranks, what is kept, what is found, what
 * is left over from interrupted saves, and targets that do not fit. Damage and faults have programs of their
 * own. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kernels/base/file.h"
#include "tests/support/checkpoint_case.h"
#include "tests/support/expect.h"
#include "tests/support/ranks.h"
#include "tests/support/temp_dir.h"
#include "tests/support/unit.h"

static void check_there(const char *directory, int64_t step, const char *suffix, bool there) {
  char *path = case_path(directory, step, suffix);
  if (file_exists(path) != there) fail_msg("%s should%s be there", path, there ? "" : " not");
  free(path);
}

static void check_found(const char *directory, int64_t step) {
  Checkpoint found;
  Error error = {0};
  expect_ok(case_find(directory, NULL, &found, &error), &error);
  assert_string_not_equal(found.path, "");
  assert_int_equal(found.manifest.step, step);
}

/* ---------------------------------------------------------------- round trips */

static void test_every_number_of_ranks(void **state) {
  const TempDir *temp = *state;
  int64_t step = 1;
  for (int writers = 1; writers <= 4; writers++) {
    for (int greedy = -2; greedy < writers; greedy++, step++) {
      Error error = {0};
      const CaseSave save = {.directory = temp->path,
                             .ranks = writers,
                             .keep = 2,
                             .step = step,
                             .number = 7 * step,
                             .greedy_rank = greedy,
                             .in_pieces = greedy == -2};
      expect_ok(case_save(&save, &error), &error);
      char *path = case_path(temp->path, step, "");
      for (int readers = 1; readers <= 4; readers++) expect_ok(case_load(path, readers, &error), &error);
      free(path);
    }
  }
}

static void test_manifest_lists_all_files(void **state) {
  const TempDir *temp = *state;
  case_save_step(temp->path, 3, 100);
  char *path = case_path(temp->path, 100, "");
  char *name = case_path(temp->path, 100, "manifest.json");
  assert_int_equal(case_entries(path), 7);
  json_error_t reason;
  json_t *root = json_load_file(name, JSON_REJECT_DUPLICATES, &reason);
  assert_non_null(root);
  const json_t *files = json_object_get(root, "files");
  assert_int_equal(json_array_size(files), 6);
  const char *const names[] = {"model.safetensors",
                               "config.json",
                               "config.yaml",
                               "optimizer-00000-of-00003.safetensors",
                               "optimizer-00001-of-00003.safetensors",
                               "optimizer-00002-of-00003.safetensors"};
  for (size_t i = 0; i < 6; i++) {
    const json_t *file = json_array_get(files, i);
    assert_string_equal(json_string_value(json_object_get(file, "name")), names[i]);
    struct stat info;
    char *listed = case_path(temp->path, 100, names[i]);
    assert_int_equal(stat(listed, &info), 0);
    assert_int_equal(json_integer_value(json_object_get(file, "size")), info.st_size);
    free(listed);
  }
  json_decref(root);
  char *config = case_path(temp->path, 100, "config.yaml");
  char *text = temp_file_read_text(config);
  assert_string_equal(text, "run:\n");
  free(text);
  free(config);
  free(name);
  free(path);
}

/* ---------------------------------------------------------------- what is kept */

static void test_keep_last(void **state) {
  TempDir *temp = *state;
  for (int64_t keep = 2; keep <= 4; keep++) {
    char name[16];
    (void)snprintf(name, sizeof name, "keep%d", (int)keep);
    const char *directory = temp_dir_path(temp, name);
    for (int64_t step = 1; step <= 6; step++) {
      Error error = {0};
      const CaseSave save = {
          .directory = directory, .ranks = 2, .keep = keep, .step = step, .number = step, .greedy_rank = -1};
      expect_ok(case_save(&save, &error), &error);
      for (int64_t i = 1; i <= 6; i++) check_there(directory, i, "", i <= step && i > step - keep);
      assert_int_equal(case_entries(directory), step < keep ? step : keep);
    }
  }
}

static void test_keep_less_than_two_is_refused(void **state) {
  const TempDir *temp = *state;
  Error error = {0};
  const CaseSave save = {.directory = temp->path, .ranks = 2, .keep = 1, .step = 1, .greedy_rank = -1};
  assert_int_equal(case_save(&save, &error), STATUS_CONFIG);
  assert_non_null(strstr(error.text, "checkpoint.keep"));
  assert_int_equal(case_entries(temp->path), 0);
}

/* The one before the new one is damaged: the oldest stays, for two whole ones must. */
static void test_damaged_one_does_not_count(void **state) {
  const TempDir *temp = *state;
  CaseWarnings *warnings = calloc(1, sizeof *warnings);
  assert_non_null(warnings);
  case_save_step(temp->path, 2, 1);
  case_save_step(temp->path, 2, 2);
  char *damaged = case_path(temp->path, 2, "optimizer-00001-of-00002.safetensors");
  struct stat info;
  assert_int_equal(stat(damaged, &info), 0);
  assert_int_equal(truncate(damaged, info.st_size - 4), 0);
  assert_int_equal(truncate(damaged, info.st_size), 0);
  Error error = {0};
  const CaseSave save = {.directory = temp->path,
                         .ranks = 2,
                         .keep = 2,
                         .step = 3,
                         .number = 30,
                         .greedy_rank = -1,
                         .warnings = warnings};
  expect_ok(case_save(&save, &error), &error);
  assert_true(case_warned(warnings, "step_00000002", "checksum"));
  check_there(temp->path, 1, "", true);
  case_save_step(temp->path, 2, 4);
  check_there(temp->path, 1, "", false);
  check_there(temp->path, 2, "", false);
  check_there(temp->path, 3, "", true);
  check_there(temp->path, 4, "", true);
  free(damaged);
  free(warnings);
}

/* A run that went back leaves checkpoints of later steps alone and counts without them. */
static void test_later_steps_are_not_touched(void **state) {
  const TempDir *temp = *state;
  case_save_step(temp->path, 1, 8);
  case_save_step(temp->path, 1, 9);
  for (int64_t step = 1; step <= 3; step++) case_save_step(temp->path, 1, step);
  check_there(temp->path, 1, "", false);
  check_there(temp->path, 2, "", true);
  check_there(temp->path, 3, "", true);
  check_there(temp->path, 8, "", true);
  check_there(temp->path, 9, "", true);
}

/* ---------------------------------------------------------------- the same step again */

static void test_same_step_is_replaced(void **state) {
  const TempDir *temp = *state;
  for (int64_t number = 1; number <= 3; number++) {
    Error error = {0};
    const CaseSave save = {.directory = temp->path,
                           .ranks = (int)number,
                           .keep = 2,
                           .step = 50,
                           .number = number,
                           .greedy_rank = -1};
    expect_ok(case_save(&save, &error), &error);
    assert_int_equal(case_entries(temp->path), 1);
    Checkpoint found;
    expect_ok(case_find(temp->path, NULL, &found, &error), &error);
    assert_int_equal(found.manifest.tokens, number);
    expect_ok(case_load(found.path, 2, &error), &error);
  }
}

/* What a crash between the two renames of a replacement leaves. */
static void test_interrupted_replacement(void **state) {
  const TempDir *temp = *state;
  Checkpoint found;
  Error error = {0};
  case_save_step(temp->path, 2, 1);
  case_save_step(temp->path, 2, 2);
  char *final = case_path(temp->path, 2, "");
  char *old = case_path(temp->path, 2, ".old");
  assert_int_equal(rename(final, old), 0);
  CheckpointLog log = {0};
  checkpoint_clean(temp->path, &log);
  expect_ok(case_find(temp->path, NULL, &found, &error), &error);
  assert_string_equal(found.path, old);
  expect_ok(case_load(found.path, 3, &error), &error);
  case_save_step(temp->path, 2, 2);
  check_there(temp->path, 2, ".old", false);
  check_found(temp->path, 2);
  free(old);
  free(final);
}

/* ---------------------------------------------------------------- leftovers */

static void test_leftovers_are_removed(void **state) {
  TempDir *temp = *state;
  char *leftover = case_path(temp->path, 7, ".tmp");
  char *file = case_path(temp->path, 7, ".tmp/model.safetensors");
  char *stale = case_path(temp->path, 6, ".old");
  const char *foreign = temp_dir_path(temp, "notes.tmp");
  case_save_step(temp->path, 1, 6);
  assert_int_equal(mkdir(leftover, 0777), 0);
  assert_int_equal(mkdir(stale, 0777), 0);
  temp_file_write_text(file, "half");
  temp_file_write_text(foreign, "mine");
  check_found(temp->path, 6);
  assert_true(file_exists(leftover)); /* finding changes nothing: another run may be writing it */
  case_save_step(temp->path, 2, 8);
  assert_false(file_exists(leftover));
  assert_false(file_exists(stale));
  assert_true(file_exists(foreign));
  assert_int_equal(mkdir(leftover, 0777), 0);
  CheckpointLog log = {0};
  checkpoint_clean(temp->path, &log);
  assert_false(file_exists(leftover));
  free(stale);
  free(file);
  free(leftover);
}

static void test_nothing_to_find(void **state) {
  TempDir *temp = *state;
  Checkpoint found;
  Error error = {0};
  const char *missing = temp_dir_path(temp, "missing");
  char *leftover = case_path(temp->path, 7, ".tmp");
  expect_ok(case_find(missing, NULL, &found, &error), &error);
  assert_string_equal(found.path, "");
  assert_int_equal(mkdir(leftover, 0777), 0);
  expect_ok(case_find(temp->path, NULL, &found, &error), &error);
  assert_string_equal(found.path, "");
  const CheckpointLog log = {0};
  checkpoint_clean(missing, &log);
  free(leftover);
}

static void test_names_of_steps(void **state) {
  TempDir *temp = *state;
  static const char *const others[] = {"step_1", "step_000000005", "step_00000005x",       "step_-0000005",
                                       "step_",  "Step_00000009",  "step_00000009.tmp.old"};
  for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
    const char *path = temp_dir_path(temp, others[i]);
    assert_int_equal(mkdir(path, 0777), 0);
  }
  case_save_step(temp->path, 1, 99999999);
  case_save_step(temp->path, 1, 100000000);
  check_found(temp->path, 100000000);
  assert_int_equal(case_entries(temp->path), 9);
}

/* ---------------------------------------------------------------- targets that do not fit */

/* Loads step 1 into the case's table after `change`, and checks the message. */
static void check_refused(const char *directory, void (*change)(TensorTable *table), const char *first,
                          const char *second) {
  TensorTable table = *case_table();
  TensorEntry entries[16];
  memcpy(entries, table.entries, (size_t)table.size * sizeof *entries);
  table.entries = entries;
  change(&table);
  char *path = case_path(directory, 1, "");
  for (int ranks = 1; ranks <= 2; ranks++) {
    Error error = {0};
    assert_int_equal(case_load_table(path, ranks, &table, &error), STATUS_CONFIG);
    assert_non_null(strstr(error.text, "model.safetensors"));
    if (strstr(error.text, first) == NULL || strstr(error.text, second) == NULL) fail_msg("%s", error.text);
  }
  free(path);
}

static void rename_tensor(TensorTable *table) {
  (void)snprintf(table->entries[4].name, sizeof table->entries[4].name, "transformer.h.7.ln_1.bias");
}

static void reshape_tensor(TensorTable *table) {
  table->entries[1].shape[0] = 4;
  table->entries[1].shape[1] = 10;
}

static void turn_tensor(TensorTable *table) {
  table->entries[3].transposed = false;
}

static void flatten_tensor(TensorTable *table) {
  table->entries[1].rank = 1;
  table->entries[1].shape[0] = 40;
  table->entries[1].shape[1] = 1;
}

static void drop_tensor(TensorTable *table) {
  table->size--;
  table->total--;
}

static void test_table_mismatch(void **state) {
  const TempDir *temp = *state;
  case_save_step(temp->path, 2, 1);
  check_refused(temp->path, rename_tensor, "transformer.h.7.ln_1.bias", "needs");
  check_refused(temp->path, reshape_tensor, "transformer.wpe.weight has shape (5, 8)", "(4, 10)");
  check_refused(temp->path, turn_tensor, "c_attn.weight has shape (8, 24)", "(24, 8)");
  check_refused(temp->path, flatten_tensor, "transformer.wpe.weight has shape (5, 8)", "(40)");
  check_refused(temp->path, drop_tensor, "transformer.ln_f.bias", "lacks");
}

/* Ranges with a hole, or that end too early, are refused before anything is written. */
static Status save_bad_range(TestRank *rank, void *context, Error *error) {
  const TensorTable *table = case_table();
  static const float nothing[1024] = {0};
  const CheckpointManifest manifest = {.step = 1};
  CheckpointState state = {
      .table = table, .weights = nothing, .m = nothing, .v = nothing, .model_config = "", .run_config = ""};
  Error own = {0};
  CheckpointRange range;
  comm_part(table->total, rank->world->rank, 2, &range.begin, &range.end);
  if (rank->world->rank == 1) range.end--;
  state.ranges = &range;
  state.range_count = 1;
  const Status status = checkpoint_save(context, 2, &manifest, &state, NULL, rank->world, &own);
  if (status == STATUS_INTERNAL && strstr(own.text, "element") != NULL) return STATUS_OK;
  return fail(error, STATUS_INTERNAL, "status %d: %s", status, own.text);
}

static void test_ranges_must_tile(void **state) {
  TempDir *temp = *state;
  Error error = {0};
  expect_ok(run_ranks(2, 1, 1, save_bad_range, temp->path, &error), &error);
  assert_int_equal(case_entries(temp->path), 0);
}

/* The last rank finds another checkpoint at the path than rank 0. */
static Status load_other(TestRank *rank, void *context, Error *error) {
  const char *const *paths = context;
  const TensorTable *table = case_table();
  Checkpoint found;
  Error own = {0};
  TRY(checkpoint_open(paths[0], rank->world, &found, error));
  if (rank->world->rank == 2) (void)snprintf(found.path, sizeof found.path, "%s", paths[1]);
  float *weights = calloc((size_t)table->total, sizeof *weights);
  if (weights == NULL) return fail(error, STATUS_SYSTEM, "no memory");
  const CheckpointTarget target = {.table = table, .weights = weights};
  const Status status = checkpoint_load(&found, &target, rank->world, &own);
  free(weights);
  if (strcmp(paths[0], paths[1]) == 0) return status;
  if (status == STATUS_DATA && strstr(own.text, "rank 2: ") == own.text &&
      strstr(own.text, paths[1]) != NULL &&
      strstr(own.text, "is not the checkpoint that rank 0 sees there") != NULL) {
    return STATUS_OK;
  }
  return fail(error, STATUS_INTERNAL, "status %d: %s", status, own.text);
}

static void test_other_checkpoint_on_a_rank(void **state) {
  TempDir *temp = *state;
  Error error = {0};
  case_save_step(temp->path, 2, 1);
  case_save_step(temp->path, 2, 2);
  char *paths[2] = {case_path(temp->path, 1, ""), case_path(temp->path, 2, "")};
  expect_ok(run_ranks(3, 1, 1, load_other, paths, &error), &error);
  free(paths[1]);
  paths[1] = paths[0];
  expect_ok(run_ranks(3, 1, 1, load_other, paths, &error), &error);
  free(paths[0]);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, temp_dir_set_up, temp_dir_tear_down)

int main(void) {
  const struct CMUnitTest tests[] = {
      TEST(test_every_number_of_ranks),
      TEST(test_manifest_lists_all_files),
      TEST(test_keep_last),
      TEST(test_keep_less_than_two_is_refused),
      TEST(test_damaged_one_does_not_count),
      TEST(test_later_steps_are_not_touched),
      TEST(test_same_step_is_replaced),
      TEST(test_interrupted_replacement),
      TEST(test_leftovers_are_removed),
      TEST(test_nothing_to_find),
      TEST(test_names_of_steps),
      TEST(test_table_mismatch),
      TEST(test_ranges_must_tile),
      TEST(test_other_checkpoint_on_a_rank),
  };
  return cmocka_run_group_tests_name("checkpoint", tests, NULL, NULL);
}
