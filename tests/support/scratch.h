/* A fresh directory for the files of a test. Every function ends the process when the machine refuses. */
#ifndef RINGGPT_SUPPORT_SCRATCH_H
#define RINGGPT_SUPPORT_SCRATCH_H

#include <stddef.h>

/* Makes a directory below $TMPDIR or /tmp and returns its path, for scratch_remove. */
char *scratch_make(void);

/* Removes the directory with all that is in it, and frees its path. */
void scratch_remove(char *directory);

/* DIRECTORY/NAME, for the caller to free. */
char *scratch_path(const char *directory, const char *name);

/* Writes a file of that content. */
void scratch_write(const char *path, const void *data, size_t bytes);
void scratch_write_text(const char *path, const char *text);

/* Reads a text file whole, with a zero behind it, for the caller to free. */
char *scratch_read(const char *path);

#endif
