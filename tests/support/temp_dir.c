/* A fresh temporary directory for one test. */
#include "tests/support/temp_dir.h"

#include <fcntl.h>
#include <ftw.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernels/base/file.h"
#include "tests/support/expect.h"
#include "tests/support/unit.h"

TempDir temp_dir_create(void) {
  TempDir directory = {.names = NULL};
  const char *base = getenv("TMPDIR");
  const int length = snprintf(directory.path, sizeof directory.path, "%s/ringgpt-test-XXXXXX",
                              base != NULL && *base != '\0' ? base : "/tmp");
  assert_true(length > 0 && (size_t)length < sizeof directory.path);
  assert_true(mkdtemp(directory.path) != NULL);
  return directory;
}

static int remove_entry(const char *path, const struct stat *info, int kind, struct FTW *place) {
  (void)info;
  (void)kind;
  (void)place;
  return remove(path);
}

void temp_dir_remove(TempDir *directory) {
  assert_true(nftw(directory->path, remove_entry, 16, FTW_DEPTH | FTW_PHYS) == 0);
  for (size_t i = 0; i < directory->count; i++) free(directory->names[i]);
  free(directory->names);
  *directory = (TempDir){.names = NULL};
}

int temp_dir_set_up(void **state) {
  TempDir *directory = malloc(sizeof *directory);
  assert_true(directory != NULL);
  *directory = temp_dir_create();
  *state = directory;
  return 0;
}

int temp_dir_tear_down(void **state) {
  temp_dir_remove(*state);
  free(*state);
  return 0;
}

const char *temp_dir_path(TempDir *directory, const char *name) {
  char **names = realloc(directory->names, (directory->count + 1) * sizeof *names);
  assert_true(names != NULL);
  directory->names = names;
  assert_true(asprintf(&names[directory->count], "%s/%s", directory->path, name) > 0);
  return names[directory->count++];
}

void temp_file_write(const char *path, const void *data, size_t bytes) {
  Error error = {0};
  File file = FILE_CLOSED;
  char *copy = strdup(path);
  assert_true(copy != NULL);
  expect_ok(file_make_directory(dirname(copy), &error), &error);
  free(copy);
  expect_ok(file_create(path, &file, &error), &error);
  expect_ok(file_write_all(&file, data, bytes, &error), &error);
  file_close(&file);
}

void temp_file_write_text(const char *path, const char *text) {
  temp_file_write(path, text, strlen(text));
}

void temp_file_patch(const char *path, size_t offset, const void *data, size_t bytes) {
  const int descriptor = open(path, O_WRONLY | O_CLOEXEC);
  assert_true(descriptor >= 0);
  assert_true(pwrite(descriptor, data, bytes, (off_t)offset) == (ssize_t)bytes);
  assert_true(close(descriptor) == 0);
}

void temp_file_cut(const char *path, size_t bytes) {
  assert_true(truncate(path, (off_t)bytes) == 0);
}

uint8_t *temp_file_read(const char *path, size_t *bytes) {
  Error error = {0};
  char *data = NULL;
  expect_ok(file_read_whole(path, (size_t)1 << 30, &data, bytes, &error), &error);
  return (uint8_t *)data;
}

char *temp_file_read_text(const char *path) {
  size_t bytes = 0;
  return (char *)temp_file_read(path, &bytes);
}
