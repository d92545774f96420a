/* The n-th system call of a save fails, for every n: once or from then on, with an error or with a write that
 * takes less than it should. This program's own versions of the calls stand in front of the C library's.
 * Whatever fails, every rank hears it, earlier checkpoints stay whole, nothing is left behind, and the next
 * save works. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kernels/base/file.h"
#include "tests/support/checkpoint_case.h"
#include "tests/support/expect.h"
#include "tests/support/temp_dir.h"
#include "tests/support/unit.h"

/* ---------------------------------------------------------------- calls that fail */

typedef struct Fault {
  const char *name;
  int code;     /* what errno says; 0: only writes go wrong, and do not say so */
  bool forever; /* every later call fails too */
  bool damages; /* a write takes all of its bytes, one of them changed; otherwise it takes half of them */
  const char *reason; /* what a failed save says */
} Fault;

static const Fault *fault; /* NULL: none */
static atomic_long calls;  /* since the fault was armed */
static long failing;       /* the call that fails, from 1 */
static atomic_bool struck; /* some call has failed */

/* Counts a call and tells whether it fails. */
static bool fails_now(void) {
  if (fault == NULL) return false;
  const long call = atomic_fetch_add(&calls, 1) + 1;
  if (call != failing && !(fault->forever && call > failing)) return false;
  atomic_store(&struck, true);
  return true;
}

/* The same for a call that has no short form. */
static bool fails_with_errno(void) {
  if (!fails_now() || fault->code == 0) return false;
  errno = fault->code;
  return true;
}

/* What a save does to files, in order; filled while `recording`. */
typedef enum EventKind { EVENT_CREATE, EVENT_WRITE, EVENT_SYNC, EVENT_RENAME } EventKind;

typedef struct Event {
  EventKind kind;
  char path[256]; /* the file or directory; of a rename what is renamed */
  char to[256];   /* of a rename */
} Event;

enum { MOST_EVENTS = 1000 };
static bool recording;
static Event events[MOST_EVENTS];
static int event_count;

static void record(EventKind kind, const char *path, const char *to) {
  if (!recording || event_count == MOST_EVENTS) return;
  Event *event = &events[event_count++];
  event->kind = kind;
  (void)snprintf(event->path, sizeof event->path, "%s", path);
  (void)snprintf(event->to, sizeof event->to, "%s", to);
}

static void record_descriptor(EventKind kind, int descriptor) {
  char link[64];
  char path[256] = "";
  if (!recording) return;
  (void)snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
  const ssize_t length = readlink(link, path, sizeof path - 1);
  if (length > 0) record(kind, path, "");
}

/* The C library's function of that name. POSIX lets a function pointer be had from dlsym; C itself does not.
 */
#define REAL(type, name)                                                                                     \
  type real = NULL;                                                                                          \
  void *const symbol = dlsym(RTLD_NEXT, name);                                                               \
  memcpy(&real, &symbol, sizeof real)

typedef int (*OpenCall)(const char *path, int flags, ...);
typedef ssize_t (*WriteCall)(int descriptor, const void *data, size_t bytes);
typedef ssize_t (*PreadCall)(int descriptor, void *data, size_t bytes, off_t offset);
typedef int (*DescriptorCall)(int descriptor);
typedef int (*RenameCall)(const char *from, const char *to);
typedef int (*MkdirCall)(const char *path, mode_t mode);

/* With 64-bit offsets the compiler calls open open64 and pread pread64. */
int open(const char *path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = (flags & O_CREAT) != 0 ? va_arg(arguments, mode_t) : 0;
  va_end(arguments);
  REAL(OpenCall, "open64");
  if ((flags & O_CREAT) != 0) record(EVENT_CREATE, path, "");
  return fails_with_errno() ? -1 : real(path, flags, mode);
}

ssize_t pread(int descriptor, void *data, size_t bytes, off_t offset) {
  REAL(PreadCall, "pread64");
  return fails_with_errno() ? -1 : real(descriptor, data, bytes, offset);
}

/* Writes with the last byte changed. */
static ssize_t write_damaged(WriteCall real, int descriptor, const void *data, size_t bytes) {
  unsigned char *copy = malloc(bytes);
  assert_non_null(copy);
  memcpy(copy, data, bytes);
  if (bytes > 0) copy[bytes - 1] ^= 1;
  const ssize_t written = real(descriptor, copy, bytes);
  free(copy);
  return written;
}

ssize_t write(int descriptor, const void *data, size_t bytes) {
  REAL(WriteCall, "write");
  record_descriptor(EVENT_WRITE, descriptor);
  if (!fails_now()) return real(descriptor, data, bytes);
  if (fault->code != 0) {
    errno = fault->code;
    return -1;
  }
  return fault->damages ? write_damaged(real, descriptor, data, bytes)
                        : real(descriptor, data, (bytes + 1) / 2);
}

/* Never syncs in truth: what this program tests does not depend on it, and it makes a thousand saves. */
int fsync(int descriptor) {
  record_descriptor(EVENT_SYNC, descriptor);
  return fails_with_errno() ? -1 : 0;
}

/* Nor is anything read from the disk that is still in memory. */
int posix_fadvise(int descriptor, off_t offset, off_t bytes, int advice) {
  (void)descriptor;
  (void)offset;
  (void)bytes;
  (void)advice;
  return 0;
}

/* As Linux does it: the descriptor is gone also when closing fails. */
int close(int descriptor) {
  REAL(DescriptorCall, "close");
  const bool fails = fails_with_errno();
  const int code = errno;
  const int result = real(descriptor);
  if (fails) errno = code;
  return fails ? -1 : result;
}

int rename(const char *from, const char *to) {
  REAL(RenameCall, "rename");
  record(EVENT_RENAME, from, to);
  return fails_with_errno() ? -1 : real(from, to);
}

int mkdir(const char *path, mode_t mode) {
  REAL(MkdirCall, "mkdir");
  return fails_with_errno() ? -1 : real(path, mode);
}

/* ---------------------------------------------------------------- saves under faults */

static const Fault FAULTS[] = {
    {.name = "EIO once", .code = EIO, .reason = "Input/output error"},
    {.name = "ENOSPC from then on", .code = ENOSPC, .forever = true, .reason = "No space left on device"},
    {.name = "a damaged write", .damages = true, .reason = "what was written does not read back"},
    {.name = "a short write", .reason = "nothing"},
};
#define FAULT_COUNT (sizeof FAULTS / sizeof FAULTS[0])

static bool is_there(const char *directory, int64_t step) {
  char *path = case_path(directory, step, "");
  const bool there = file_exists(path);
  free(path);
  return there;
}

static bool is_left_over(const char *directory, int64_t step) {
  char *path = case_path(directory, step, ".tmp");
  const bool there = file_exists(path);
  free(path);
  return there;
}

/* Checks that the newest checkpoint is whole and of one of two numbers, of `after` if `saved`; returns which.
 */
static int64_t check_newest(const char *directory, int64_t before, int64_t after, bool saved) {
  Checkpoint found;
  Error error = {0};
  expect_ok(case_find(directory, NULL, &found, &error), &error);
  const int64_t number = found.manifest.tokens;
  if ((number != before || saved) && number != after)
    fail_msg("number %lld is the newest", (long long)number);
  expect_ok(case_load(found.path, 1, &error), &error);
  return number;
}

/* Makes one save under a fault in its n-th call and updates *newest, the number of the newest checkpoint.
 * Returns false when the save makes fewer calls. */
static bool save_under_fault(const CaseSave *save, const Fault *kind, long call, int64_t *newest) {
  Error error = {0};
  atomic_store(&calls, 0);
  atomic_store(&struck, false);
  failing = call;
  fault = kind;
  const Status status = case_save(save, &error);
  fault = NULL;
  *newest = check_newest(save->directory, *newest, save->number, status == STATUS_OK);
  if (!atomic_load(&struck)) return false;
  if (status != STATUS_OK && (status != STATUS_IO || strstr(error.text, kind->reason) == NULL)) {
    fail_msg("status %d: %s", status, error.text);
  }
  /* A step that is saved again steps aside, and comes back where its successor cannot take its place. */
  if (save->step == 2 && !kind->forever && !is_there(save->directory, 2)) {
    fail_msg("step 2 has lost its name: %s", error.text);
  }
  if (status != STATUS_OK && is_left_over(save->directory, save->step)) {
    fail_msg("the temporary directory is left over: %s", error.text);
  }
  return true;
}

/* Every call of a save in turn. `increment`: the steps from one save to the next; 0 saves one step again and
 * again. */
static void fail_every_call(const char *directory, int64_t increment) {
  CaseSave save = {.directory = directory, .ranks = 2, .keep = 2, .step = 2, .number = 20, .greedy_rank = -1};
  int64_t newest = 20;
  Error error = {0};
  case_save_step(directory, 2, 1);
  case_save_step(directory, 2, 2);
  for (size_t f = 0; f < FAULT_COUNT; f++) {
    long call = 0;
    bool more = true;
    while (more) {
      call++;
      save.step += increment;
      save.number++;
      more = save_under_fault(&save, &FAULTS[f], call, &newest);
      if (case_entries(directory) < 2) fail_msg("%s, call %ld: too few stay", FAULTS[f].name, call);
    }
    if (call < 50) fail_msg("%s: only %ld calls were counted", FAULTS[f].name, call);
    save.step += increment;
    save.number++;
    if (case_save(&save, &error) != STATUS_OK) fail_msg("after %s: %s", FAULTS[f].name, error.text);
    newest = check_newest(directory, save.number, save.number, true);
    assert_int_equal(case_entries(directory), 2);
  }
}

static void test_new_step(void **state) {
  const TempDir *temp = *state;
  fail_every_call(temp->path, 1);
}

static void test_same_step_again(void **state) {
  const TempDir *temp = *state;
  fail_every_call(temp->path, 0);
}

/* ---------------------------------------------------------------- order */

/* The last event of that kind on that path, or -1. */
static int last_event(EventKind kind, const char *path) {
  int found = -1;
  for (int i = 0; i < event_count; i++) {
    if (events[i].kind == kind && strcmp(events[i].path, path) == 0) found = i;
  }
  return found;
}

/* The first sync of that path after event `after`, or event_count. */
static int sync_after(const char *path, int after) {
  int i = after + 1;
  while (i < event_count && (events[i].kind != EVENT_SYNC || strcmp(events[i].path, path) != 0)) i++;
  return i;
}

static void check_before(int first, int second, const char *what) {
  if (first < 0 || first >= second) fail_msg("%s (events %d and %d of %d)", what, first, second, event_count);
}

/* A power cut loses whatever was not synced. So: every file is synced after its last write; the manifest is
 * begun after the other files and their names are safe; all of it, and its names, before the directory gets
 * its final name; that name before an older checkpoint loses its own. */
static void test_order_of_syncs(void **state) {
  const TempDir *temp = *state;
  static const char *const files[] = {".tmp/model.safetensors", ".tmp/config.json", ".tmp/config.yaml",
                                      ".tmp/optimizer-00000-of-00001.safetensors", ".tmp/manifest.json"};
  Error error = {0};
  const CaseSave save = {
      .directory = temp->path, .ranks = 1, .keep = 2, .step = 3, .number = 3, .greedy_rank = -1};
  case_save_step(temp->path, 1, 1);
  case_save_step(temp->path, 1, 2);
  event_count = 0;
  recording = true;
  const Status status = case_save(&save, &error);
  recording = false;
  assert_int_equal(status, STATUS_OK);
  assert_true(event_count < MOST_EVENTS);
  char *temporary = case_path(temp->path, 3, ".tmp");
  char *oldest = case_path(temp->path, 1, "");
  char *manifest = case_path(temp->path, 3, ".tmp/manifest.json");
  const int rename_at = last_event(EVENT_RENAME, temporary);
  const int manifest_at = last_event(EVENT_CREATE, manifest);
  for (size_t f = 0; f < sizeof files / sizeof files[0]; f++) {
    char *file = case_path(temp->path, 3, files[f]);
    const int synced = last_event(EVENT_SYNC, file);
    check_before(last_event(EVENT_WRITE, file), synced, "a file is written after it was synced");
    const int names = sync_after(temporary, last_event(EVENT_CREATE, file));
    check_before(names, rename_at, "the directory is renamed before its names are synced");
    check_before(synced, rename_at, "the directory is renamed before its files are synced");
    if (strcmp(file, manifest) != 0) {
      check_before(synced, manifest_at, "the manifest is begun before the other files are synced");
      check_before(names, manifest_at, "the manifest is begun before the names are synced");
    }
    free(file);
  }
  const int final_at = sync_after(temp->path, rename_at);
  check_before(rename_at, final_at, "the final name comes after its sync");
  check_before(final_at, last_event(EVENT_RENAME, oldest), "a checkpoint goes before the new one is safe");
  free(manifest);
  free(oldest);
  free(temporary);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, temp_dir_set_up, temp_dir_tear_down)

int main(void) {
  const struct CMUnitTest tests[] = {TEST(test_new_step), TEST(test_same_step_again),
                                     TEST(test_order_of_syncs)};
  return cmocka_run_group_tests_name("checkpoint_io", tests, NULL, NULL);
}
