/* Files: reads and writes that are complete or an error naming the file, and what makes them durable. Shards
 * and checkpoints stand on it.
 *
 * A file that must appear whole or not at all is written under another name, synced and closed, renamed, and
 * its directory synced. A failed sync is never tried again: the kernel has by then marked the lost pages
 * clean (A. Rebello et al., "Can applications recover from fsync failures?", ATC 2020), so the file is
 * written anew.
 */
#ifndef RINGGPT_BASE_FILE_H
#define RINGGPT_BASE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/base/status.h"

/* An open file. Start with FILE_CLOSED; file_close may then be called at any time. */
typedef struct File {
  int descriptor; /* -1: closed */
  char *path;     /* as it was opened, for messages; owned */
} File;

#define FILE_CLOSED ((File){.descriptor = -1, .path = NULL})

/* Opens a regular file for reading. STATUS_NO_INPUT when it is missing, unreadable or not a regular file. */
Status file_open_read(const char *path, File *out, Error *error);

/* Creates a file for writing, or empties the one that is there. STATUS_IO. */
Status file_create(const char *path, File *out, Error *error);

/* Writes all bytes at the current end of what was written. STATUS_IO. */
Status file_write_all(const File *file, const void *data, size_t bytes, Error *error);

/* Writes all bytes at `offset`, without moving the place of file_write_all. STATUS_IO. */
Status file_write_all_at(const File *file, int64_t offset, const void *data, size_t bytes, Error *error);

/* Reads exactly `bytes` from `offset`. STATUS_DATA when the file ends before, STATUS_IO when reading fails.
 */
Status file_read_exact_at(const File *file, int64_t offset, void *data, size_t bytes, Error *error);

/* The size in bytes, now. STATUS_IO. */
Status file_size(const File *file, int64_t *bytes, Error *error);

/* Syncs the file to its disk and closes it; it is closed also on failure. STATUS_IO. */
Status file_sync_close(File *file, Error *error);

/* Closes a file that was read, or one that is given up. A closed file is allowed. */
void file_close(File *file);

/* Renames a file or directory; an existing file at `to` is replaced in one step. STATUS_IO. */
Status file_rename(const char *from, const char *to, Error *error);

/* Makes the names in a directory durable: after a file was created, renamed or removed in it. STATUS_IO. */
Status file_sync_directory(const char *path, Error *error);

/* file_sync_directory of the directory in which `path` lies. */
Status file_sync_parent(const char *path, Error *error);

/* Creates a directory, and those above it, where they are missing, and makes their names durable. STATUS_IO.
 */
Status file_make_directory(const char *path, Error *error);

/* Whether there is a file or directory of that name. */
bool file_exists(const char *path);

/* Reads a whole regular file of at most `limit` bytes into *out, a new block that the caller frees, with a
 * zero byte behind the data. STATUS_DATA when it is larger, otherwise as file_open_read and
 * file_read_exact_at. */
Status file_read_whole(const char *path, size_t limit, char **out, size_t *bytes, Error *error);

/* Writes a small file durably and in one step: to PATH.tmp, sync, rename to PATH, sync of the directory. On
 * failure what was at PATH is still there. STATUS_IO. */
Status file_replace(const char *path, const void *data, size_t bytes, Error *error);

#endif
