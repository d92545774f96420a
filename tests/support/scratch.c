/* A fresh directory for the files of a test. */
#include "tests/support/scratch.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OPEN_DIRECTORIES 16

static void require(int good, const char *what) {
  if (good) return;
  perror(what);
  abort();
}

char *scratch_path(const char *directory, const char *name) {
  char *path = NULL;
  require(asprintf(&path, "%s/%s", directory, name) > 0, name);
  return path;
}

char *scratch_make(void) {
  const char *parent = getenv("TMPDIR");
  char *path = scratch_path(parent && *parent ? parent : "/tmp", "ringgpt-test.XXXXXX");
  require(mkdtemp(path) != NULL, path);
  return path;
}

static int remove_entry(const char *path, const struct stat *info, int kind, struct FTW *place) {
  (void)info;
  (void)kind;
  (void)place;
  return remove(path);
}

void scratch_remove(char *directory) {
  require(nftw(directory, remove_entry, OPEN_DIRECTORIES, FTW_DEPTH | FTW_PHYS) == 0, directory);
  free(directory);
}

void scratch_write(const char *path, const void *data, size_t bytes) {
  FILE *file = fopen(path, "wbe");
  require(file != NULL, path);
  require(fwrite(data, 1, bytes, file) == bytes, path);
  require(fclose(file) == 0, path);
}

void scratch_write_text(const char *path, const char *text) {
  scratch_write(path, text, strlen(text));
}

char *scratch_read(const char *path) {
  FILE *file = fopen(path, "rbe");
  require(file != NULL, path);
  char *text = NULL;
  size_t capacity = 0;
  /* Up to a byte that no text has: the whole file. */
  const ssize_t length = getdelim(&text, &capacity, '\xff', file);
  require(fclose(file) == 0, path);
  if (length < 0) {
    free(text);
    text = calloc(1, 1);
  }
  require(text != NULL, path);
  return text;
}
