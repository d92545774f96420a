/* Files: complete reads and writes, and their errors. */
#include "kernels/base/file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tests/support/expect.h"
#include "tests/support/temp_dir.h"
#include "tests/support/unit.h"

/* The system calls of this program, in place of those of the C library: they can be made to move few bytes at
 * a time, to be interrupted, and to fail. */
static size_t transfer_limit = SIZE_MAX;
static int interruptions = 0;
static int sync_error = 0;

/* Says whether this call is interrupted, and cuts its size. */
static bool disturb(size_t *bytes) {
  if (*bytes > transfer_limit) *bytes = transfer_limit;
  if (interruptions <= 0) return false;
  interruptions--;
  errno = EINTR;
  return true;
}

ssize_t write(int descriptor, const void *data, size_t bytes) {
  return disturb(&bytes) ? -1 : syscall(SYS_write, descriptor, data, bytes);
}

ssize_t pwrite(int descriptor, const void *data, size_t bytes, off_t offset) {
  return disturb(&bytes) ? -1 : syscall(SYS_pwrite64, descriptor, data, bytes, offset);
}

ssize_t pread(int descriptor, void *data, size_t bytes, off_t offset) {
  return disturb(&bytes) ? -1 : syscall(SYS_pread64, descriptor, data, bytes, offset);
}

int fsync(int descriptor) {
  if (sync_error == 0) return (int)syscall(SYS_fsync, descriptor);
  errno = sync_error;
  return -1;
}

static void test_write_then_read(void **state) {
  const char *path = temp_dir_path(*state, "a");
  Error error = {0};
  File file = FILE_CLOSED;
  char data[6] = {0};
  int64_t size = 0;
  expect_ok(file_create(path, &file, &error), &error);
  expect_ok(file_write_all(&file, "hello ", 6, &error), &error);
  expect_ok(file_write_all_at(&file, 0, "J", 1, &error), &error);
  expect_ok(file_write_all(&file, "world", 5, &error), &error);
  expect_ok(file_sync_close(&file, &error), &error);
  expect_ok(file_sync_parent(path, &error), &error);
  expect_ok(file_open_read(path, &file, &error), &error);
  expect_ok(file_size(&file, &size, &error), &error);
  assert_int_equal(size, 11);
  expect_ok(file_read_exact_at(&file, 6, data, 5, &error), &error);
  assert_string_equal(data, "world");
  expect_ok(file_read_exact_at(&file, 0, data, 1, &error), &error);
  assert_int_equal(data[0], 'J');
  expect_error(file_read_exact_at(&file, 8, data, 5, &error), &error, STATUS_DATA, path, "byte 11", "2 more");
  file_close(&file);
  file_close(&file);
}

/* Transfers of a few bytes at a time, interrupted now and then, are complete all the same. */
static void test_short_and_interrupted_transfers(void **state) {
  const char *path = temp_dir_path(*state, "a");
  char text[1000];
  char read[1000] = {0};
  Error error = {0};
  File file = FILE_CLOSED;
  for (size_t i = 0; i < sizeof text; i++) text[i] = (char)('a' + i % 26);
  transfer_limit = 7;
  interruptions = 5;
  expect_ok(file_create(path, &file, &error), &error);
  expect_ok(file_write_all(&file, text, 500, &error), &error);
  interruptions = 5;
  expect_ok(file_write_all_at(&file, 500, text + 500, 500, &error), &error);
  expect_ok(file_sync_close(&file, &error), &error);
  expect_ok(file_open_read(path, &file, &error), &error);
  interruptions = 5;
  expect_ok(file_read_exact_at(&file, 0, read, sizeof read, &error), &error);
  assert_memory_equal(read, text, sizeof text);
  file_close(&file);
}

/* A sync that fails is an error, the new file goes, the old one stays. */
static void test_failed_sync(void **state) {
  const char *path = temp_dir_path(*state, "kept");
  Error error = {0};
  File file = FILE_CLOSED;
  size_t bytes = 0;
  temp_file_write_text(path, "old");
  sync_error = EIO;
  expect_error(file_replace(path, "new", 3, &error), &error, STATUS_IO, "kept.tmp", "Input/output error");
  expect_error(file_sync_parent(path, &error), &error, STATUS_IO, "Input/output error");
  expect_ok(file_create(temp_dir_path(*state, "a"), &file, &error), &error);
  expect_error(file_sync_close(&file, &error), &error, STATUS_IO, "Input/output error");
  assert_int_equal(file.descriptor, -1);
  sync_error = EINVAL; /* a file system without sync of directories */
  expect_ok(file_sync_parent(path, &error), &error);
  sync_error = 0;
  assert_false(file_exists(temp_dir_path(*state, "kept.tmp")));
  uint8_t *data = temp_file_read(path, &bytes);
  assert_string_equal((char *)data, "old");
  free(data);
}

static int tear_down(void **state) {
  transfer_limit = SIZE_MAX;
  interruptions = 0;
  sync_error = 0;
  return temp_dir_tear_down(state);
}

static void test_what_cannot_be_opened(void **state) {
  TempDir *directory = *state;
  const char *missing = temp_dir_path(directory, "missing");
  const char *below_file = temp_dir_path(directory, "a/b");
  const char *fifo = temp_dir_path(directory, "fifo");
  Error error = {0};
  File file = FILE_CLOSED;
  temp_file_write_text(temp_dir_path(directory, "a"), "x");
  assert_int_equal(mkfifo(fifo, 0600), 0);
  expect_error(file_open_read(missing, &file, &error), &error, STATUS_NO_INPUT, missing, "No such file");
  expect_error(file_open_read(directory->path, &file, &error), &error, STATUS_NO_INPUT, directory->path,
               "regular");
  expect_error(file_open_read(fifo, &file, &error), &error, STATUS_NO_INPUT, fifo, "regular");
  expect_error(file_create(below_file, &file, &error), &error, STATUS_IO, below_file);
  expect_error(file_make_directory(below_file, &error), &error, STATUS_IO, below_file);
  expect_error(file_sync_directory(missing, &error), &error, STATUS_IO, missing);
  expect_error(file_rename(missing, below_file, &error), &error, STATUS_IO, missing, below_file);
  assert_int_equal(file.descriptor, -1);
}

static void test_a_full_device_is_an_error(void **state) {
  (void)state;
  Error error = {0};
  File file = FILE_CLOSED;
  if (!file_exists("/dev/full")) skip();
  expect_ok(file_create("/dev/full", &file, &error), &error);
  expect_error(file_write_all(&file, "x", 1, &error), &error, STATUS_IO, "/dev/full", "No space left");
  file_close(&file);
}

static void test_whole_files(void **state) {
  TempDir *directory = *state;
  const char *path = temp_dir_path(directory, "deep/er/file");
  Error error = {0};
  char *data = NULL;
  size_t bytes = 0;
  expect_ok(file_make_directory(temp_dir_path(directory, "deep/er/"), &error), &error);
  expect_ok(file_make_directory(temp_dir_path(directory, "deep/er"), &error), &error);
  expect_ok(file_replace(path, "first", 5, &error), &error);
  expect_ok(file_replace(path, "second", 6, &error), &error);
  expect_ok(file_read_whole(path, 6, &data, &bytes, &error), &error);
  assert_int_equal(bytes, 6);
  assert_string_equal(data, "second");
  free(data);
  assert_false(file_exists(temp_dir_path(directory, "deep/er/file.tmp")));
  expect_error(file_read_whole(path, 5, &data, &bytes, &error), &error, STATUS_DATA, path, "6 bytes");
  assert_null(data);
}

static void test_a_failed_replacement_keeps_the_old_file(void **state) {
  TempDir *directory = *state;
  const char *path = temp_dir_path(directory, "kept");
  const char *in_the_way = temp_dir_path(directory, "kept.tmp/x");
  Error error = {0};
  size_t bytes = 0;
  temp_file_write_text(path, "old");
  temp_file_write_text(in_the_way, ""); /* kept.tmp is a folder: it cannot be written */
  expect_error(file_replace(path, "new", 3, &error), &error, STATUS_IO, "kept.tmp");
  uint8_t *data = temp_file_read(path, &bytes);
  assert_string_equal((char *)data, "old");
  free(data);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(test_write_then_read, temp_dir_set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_short_and_interrupted_transfers, temp_dir_set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_failed_sync, temp_dir_set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_what_cannot_be_opened, temp_dir_set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_a_full_device_is_an_error, temp_dir_set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_whole_files, temp_dir_set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_a_failed_replacement_keeps_the_old_file, temp_dir_set_up,
                                      temp_dir_tear_down),
  };
  return cmocka_run_group_tests_name("file", tests, NULL, NULL);
}
