/* A fresh temporary directory for one test, and small helpers for the files in it. Every helper ends the test
 * as failed when something does not work. */
#ifndef RINGGPT_SUPPORT_TEMP_DIR_H
#define RINGGPT_SUPPORT_TEMP_DIR_H

#include <stddef.h>
#include <stdint.h>

typedef struct TempDir {
  char path[256];
  char **names; /* (count) paths given out by temp_dir_path */
  size_t count;
} TempDir;

/* Makes a directory under $TMPDIR or /tmp. */
TempDir temp_dir_create(void);

/* Removes the directory and all that is in it. */
void temp_dir_remove(TempDir *directory);

/* The same as set-up and tear-down of a cmocka test, which finds its TempDir in *state. */
int temp_dir_set_up(void **state);
int temp_dir_tear_down(void **state);

/* The path of `name` in the directory, valid until temp_dir_remove. */
const char *temp_dir_path(TempDir *directory, const char *name);

/* Writes a file, with the folders above it. */
void temp_file_write(const char *path, const void *data, size_t bytes);
void temp_file_write_text(const char *path, const char *text);

/* Writes over some bytes of a file, in place: much faster than writing it anew when that is done often. */
void temp_file_patch(const char *path, size_t offset, const void *data, size_t bytes);

/* Cuts a file to `bytes`. */
void temp_file_cut(const char *path, size_t bytes);

/* Reads a whole file into a new block, with a zero byte behind it, for the caller to free. */
uint8_t *temp_file_read(const char *path, size_t *bytes);

/* The same for a text. */
char *temp_file_read_text(const char *path);

#endif
