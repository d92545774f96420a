/* Saves that fail or die: a full disk, a file size limit, directories that cannot be written, SIGKILL at
 * random moments. The earlier checkpoints stay whole, nothing is left behind, the next save works. */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "kernels/base/file.h"
#include "tests/support/checkpoint_case.h"
#include "tests/support/compare.h"
#include "tests/support/expect.h"
#include "tests/support/temp_dir.h"
#include "tests/support/unit.h"

enum { KILLS = 30, NOBODY = 65534, SKIPPED = 77 };

static CaseSave plain_save(const char *directory, int ranks, int64_t step) {
  return (CaseSave){.directory = directory,
                    .ranks = ranks,
                    .keep = 2,
                    .step = step,
                    .number = 10 * step,
                    .greedy_rank = -1};
}

/* Checks that step `step` is the newest, loads bit for bit, and that nothing else than `entries` is there. */
static void check_state(const char *directory, int64_t step, int entries) {
  Checkpoint found;
  Error error = {0};
  assert_int_equal(case_find(directory, NULL, &found, &error), STATUS_OK);
  assert_int_equal(found.manifest.step, step);
  expect_ok(case_load(found.path, 2, &error), &error);
  assert_int_equal(case_entries(directory), entries);
}

static void check_save_fails(const CaseSave *save, const char *text) {
  Error error = {0};
  const Status status = case_save(save, &error);
  if (status != STATUS_IO || strstr(error.text, text) == NULL) fail_msg("status %d: %s", status, error.text);
}

/* ---------------------------------------------------------------- a limit on the size of files */

/* Files may have `bytes` at most; 0 takes the limit away. */
static void limit_files(rlim_t bytes) {
  struct rlimit limit;
  assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
  limit.rlim_cur = bytes == 0 ? limit.rlim_max : bytes;
  assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

/* The weights have 873 floats, the moments of one of four ranks about half as many: at 3,000 bytes rank 0
 * fails with the weights, at less every rank with its moments. A save that is cut anywhere must fail alike.
 */
static void test_file_size_limit(void **state) {
  const TempDir *temp = *state;
  (void)signal(SIGXFSZ, SIG_IGN);
  case_save_step(temp->path, 4, 1);
  case_save_step(temp->path, 4, 2);
  static const rlim_t limits[] = {3000, 1, 7, 8, 100, 600, 1000, 1500, 2000, 2500, 4000};
  for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++) {
    const CaseSave save = plain_save(temp->path, 4, 3);
    limit_files(limits[i]);
    Error error = {0};
    const Status status = case_save(&save, &error);
    limit_files(0);
    if (status != STATUS_IO || strstr(error.text, strerror(EFBIG)) == NULL) {
      fail_msg("limit %d, status %d: %s", (int)limits[i], status, error.text);
    }
    check_state(temp->path, 2, 2);
  }
  case_save_step(temp->path, 4, 3);
  check_state(temp->path, 3, 2);
}

/* One rank holds nearly all moments and fails alone: all ranks learn which. */
static void test_one_rank_fails(void **state) {
  const TempDir *temp = *state;
  (void)signal(SIGXFSZ, SIG_IGN);
  case_save_step(temp->path, 4, 1);
  for (int rank = 0; rank < 4; rank++) {
    CaseSave save = plain_save(temp->path, 4, 2);
    char name[64];
    save.greedy_rank = rank;
    (void)snprintf(name, sizeof name, rank == 0 ? "optimizer-00000" : "rank %d: ", rank);
    limit_files(6000);
    check_save_fails(&save, name);
    limit_files(0);
    check_state(temp->path, 1, 1);
  }
}

/* ---------------------------------------------------------------- an old one beside a damaged successor */

/* Leaves one whole checkpoint, step_2.old, beside a step_2 that does not count: with a bit turned, or the
 * whole files of another step under its name. */
static void damage_successor(TempDir *temp, const char *directory, bool misnamed) {
  const char *aside = temp_dir_path(temp, "aside");
  char *final = case_path(directory, 2, "");
  char *old = case_path(directory, 2, ".old");
  char *other = case_path(directory, 9, "");
  char *model = case_path(directory, 2, "model.safetensors");
  case_save_step(directory, 2, 2);
  assert_int_equal(rename(final, aside), 0);
  case_save_step(directory, 2, misnamed ? 9 : 2);
  if (misnamed) assert_int_equal(rename(other, final), 0);
  assert_int_equal(rename(aside, old), 0);
  if (!misnamed) {
    size_t bytes = 0;
    uint8_t *contents = temp_file_read(model, &bytes);
    contents[bytes - 1] ^= 1;
    temp_file_patch(model, bytes - 1, contents + bytes - 1, 1);
    free(contents);
  }
  free(model);
  free(other);
  free(old);
  free(final);
}

/* The old one stays until the new one is in place, whichever step that has: cleaning alone and a save that
 * fails leave it. Then it counts among those to keep, and goes in its turn. */
static void check_old_stays(const char *directory, int64_t step) {
  const CheckpointLog log = {0};
  checkpoint_clean(directory, &log);
  check_state(directory, 2, 2);
  const CaseSave save = plain_save(directory, 4, step);
  limit_files(100);
  check_save_fails(&save, strerror(EFBIG));
  limit_files(0);
  check_state(directory, 2, 2);
  case_save_step(directory, 4, step);
  check_state(directory, step, step == 2 ? 1 : 3);
  case_save_step(directory, 4, step + 1);
  check_state(directory, step + 1, 2);
}

static void test_damaged_successor(void **state) {
  TempDir *temp = *state;
  (void)signal(SIGXFSZ, SIG_IGN);
  for (int i = 0; i < 4; i++) {
    char name[16];
    (void)snprintf(name, sizeof name, "case%d", i);
    const char *directory = temp_dir_path(temp, name);
    damage_successor(temp, directory, i % 2 == 1);
    check_old_stays(directory, i < 2 ? 3 : 2);
  }
}

/* ---------------------------------------------------------------- directories that cannot be written */

static void test_file_in_the_way(void **state) {
  TempDir *temp = *state;
  const char *directory = temp_dir_path(temp, "checkpoints");
  temp_file_write_text(directory, "a file");
  const CaseSave save = plain_save(directory, 3, 1);
  check_save_fails(&save, "checkpoints");
}

static void test_parent_directory_is_made(void **state) {
  TempDir *temp = *state;
  const char *directory = temp_dir_path(temp, "run/checkpoints");
  case_save_step(directory, 2, 1);
  check_state(directory, 1, 1);
}

static void test_read_only_directory(void **state) {
  TempDir *temp = *state;
  const char *directory = temp_dir_path(temp, "checkpoints");
  case_save_step(directory, 2, 1);
  assert_int_equal(chmod(temp->path, 0755), 0);
  assert_int_equal(chmod(directory, 0555), 0);
  const CaseSave save = plain_save(directory, 2, 2);
  const bool root = geteuid() == 0; /* root may write everywhere */
  if (root) assert_int_equal(seteuid(NOBODY), 0);
  check_save_fails(&save, strerror(EACCES));
  if (root) assert_int_equal(seteuid(0), 0);
  assert_int_equal(chmod(directory, 0755), 0);
  check_state(directory, 1, 1);
}

/* ---------------------------------------------------------------- a full disk */

/* Runs in a process of its own, which mounts small disks that nobody else sees. Every failed check ends it.
 */
static void require(bool good, const char *what) {
  if (good) return;
  (void)fprintf(stderr, "%s\n", what);
  _exit(1);
}

static void save_until_full(const char *disk, const char *options, const char *reason) {
  require(mount("ringgpt-test", disk, "tmpfs", 0, options) == 0, "mount");
  CaseSave save = plain_save(disk, 3, 0);
  Error error = {0};
  int64_t saved = 0;
  for (save.step = 1; save.step < 100; save.step++) {
    save.keep = 100;
    save.number = 10 * save.step;
    if (case_save(&save, &error) != STATUS_OK) break;
    saved = save.step;
  }
  require(error.status == STATUS_IO && strstr(error.text, reason) != NULL, error.text);
  require(saved >= 1, "nothing could be saved");
  require(case_entries(disk) == saved, "something was left behind");
  Checkpoint found;
  Error other = {0};
  require(case_find(disk, NULL, &found, &other) == STATUS_OK, other.text);
  require(found.manifest.step == saved, "the last checkpoint that was saved is not the newest");
  require(case_load(found.path, 2, &other) == STATUS_OK, other.text);
  require(umount(disk) == 0, "umount");
}

static void use_small_disks(const char *disk) {
  if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0) _exit(SKIPPED);
  if (mount("ringgpt-test", disk, "tmpfs", 0, "size=64k") != 0) _exit(SKIPPED);
  require(umount(disk) == 0, "umount");
  save_until_full(disk, "size=2m", "MiB left");
  /* Room for bytes but not for files: what is full shows only while the files are created. */
  save_until_full(disk, "size=64m,nr_inodes=30", strerror(ENOSPC));
  _exit(0);
}

static void test_full_disk(void **state) {
  const TempDir *temp = *state;
  const pid_t child = fork();
  assert_true(child >= 0);
  if (child == 0) use_small_disks(temp->path);
  int status = 0;
  assert_int_equal(waitpid(child, &status, 0), child);
  assert_true(WIFEXITED(status));
  if (WEXITSTATUS(status) == SKIPPED) {
    print_message("skipped: this user may not mount a small disk\n");
    skip();
  }
  assert_int_equal(WEXITSTATUS(status), 0);
}

/* ---------------------------------------------------------------- SIGKILL */

/* What parent and child share. */
typedef struct Shared {
  _Atomic int64_t acknowledged; /* the last number whose save returned */
} Shared;

/* Saves number after number, each step twice, from where the directory stands, and tells which are done. */
static void save_for_ever(const char *directory, Shared *shared) {
  Checkpoint found;
  Error error = {0};
  require(prctl(PR_SET_PDEATHSIG, SIGKILL) == 0, "prctl"); /* not for longer than the test */
  require(case_find(directory, NULL, &found, &error) == STATUS_OK, error.text);
  int64_t number = found.path[0] == '\0' ? 0 : found.manifest.tokens;
  for (;;) {
    number++;
    CaseSave save = plain_save(directory, 2, number / 2);
    save.number = number;
    require(case_save(&save, &error) == STATUS_OK, error.text);
    shared->acknowledged = number;
  }
}

/* Waits until a save after number `seen` is done, at most ten seconds. */
static void wait_for_save(const Shared *shared, int64_t seen) {
  const struct timespec pause = {.tv_nsec = 1000000};
  for (int i = 0; i < 10000 && shared->acknowledged <= seen; i++) (void)nanosleep(&pause, NULL);
}

static void test_kill_at_random_moments(void **state) {
  const TempDir *temp = *state;
  Random random = {.state = (uint64_t)getpid()};
  Shared *shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  assert_true(shared != MAP_FAILED);
  shared->acknowledged = 0;
  int64_t seen = 0;
  int interrupted = 0;
  for (int kill_number = 0; kill_number < KILLS; kill_number++) {
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) save_for_ever(temp->path, shared);
    /* Half of the kills come soon after the start, half after a save was done. */
    if (kill_number % 2 == 0) wait_for_save(shared, seen);
    const struct timespec pause = {.tv_nsec = 1000000 + random_below(&random, 60000000)};
    (void)nanosleep(&pause, NULL);
    assert_int_equal(kill(child, SIGKILL), 0);
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status)); /* and not ended by a failed check */
    Checkpoint found;
    Error error = {0};
    CaseWarnings *warnings = calloc(1, sizeof *warnings);
    assert_non_null(warnings);
    expect_ok(case_find(temp->path, warnings, &found, &error), &error);
    if (warnings->count > 0) fail_msg("%s", warnings->text[0]); /* a final name was not whole */
    free(warnings);
    const int64_t number = found.path[0] == '\0' ? 0 : found.manifest.tokens;
    if (number < shared->acknowledged || number < seen) {
      fail_msg("found %lld, acknowledged %lld", (long long)number, (long long)shared->acknowledged);
    }
    if (number > 0) expect_ok(case_load(found.path, 3, &error), &error);
    char *leftover = case_path(temp->path, (number + 1) / 2, ".tmp");
    interrupted += file_exists(leftover);
    free(leftover);
    seen = number;
  }
  print_message("%lld saves, %d of %d kills in the middle of one\n", (long long)seen, interrupted, KILLS);
  assert_true(seen >= KILLS / 2);
  assert_int_equal(munmap(shared, sizeof *shared), 0);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, temp_dir_set_up, temp_dir_tear_down)

int main(void) {
  const struct CMUnitTest tests[] = {
      TEST(test_file_size_limit),          TEST(test_one_rank_fails),      TEST(test_file_in_the_way),
      TEST(test_parent_directory_is_made), TEST(test_read_only_directory), TEST(test_full_disk),
      TEST(test_kill_at_random_moments),   TEST(test_damaged_successor),
  };
  return cmocka_run_group_tests_name("checkpoint_faults", tests, NULL, NULL);
}
