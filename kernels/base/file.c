/* Files: complete reads and writes, durable names. */
#include "kernels/base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The most one read or write moves on Linux is a little below 2 GiB; larger requests are cut to this. */
#define FILE_TRANSFER_MAX ((size_t)1 << 30)

static Status copy_text(const char *text, char **out, Error *error) {
  *out = strdup(text);
  if (*out == NULL) return fail(error, STATUS_SYSTEM, "%s: no memory left for a file name", text);
  return STATUS_OK;
}

Status file_open_read(const char *path, File *out, Error *error) {
  *out = FILE_CLOSED;
  Status status = STATUS_OK;
  File file = FILE_CLOSED;
  struct stat info;
  TRY(copy_text(path, &file.path, error));
  /* O_NONBLOCK: opening a FIFO that nobody writes to must not wait; it says nothing to regular files. */
  file.descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file.descriptor < 0 || fstat(file.descriptor, &info) != 0) {
    status = fail_errno(error, STATUS_NO_INPUT, errno, "%s: cannot be opened", path);
    goto close;
  }
  if (!S_ISREG(info.st_mode)) {
    status = fail(error, STATUS_NO_INPUT, "%s: is not a regular file", path);
    goto close;
  }
  *out = file;
  return STATUS_OK;
close:
  file_close(&file);
  return status;
}

Status file_create(const char *path, File *out, Error *error) {
  *out = FILE_CLOSED;
  File file = FILE_CLOSED;
  TRY(copy_text(path, &file.path, error));
  file.descriptor = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (file.descriptor < 0) {
    const Status status = fail_errno(error, STATUS_IO, errno, "%s: cannot be created", path);
    file_close(&file);
    return status;
  }
  *out = file;
  return STATUS_OK;
}

/* Writes at `offset`, or at the file's own place when `offset` is negative. */
static Status write_fully(const File *file, int64_t offset, const void *data, size_t bytes, Error *error) {
  const char *next = data;
  while (bytes > 0) {
    const size_t part = bytes < FILE_TRANSFER_MAX ? bytes : FILE_TRANSFER_MAX;
    const ssize_t written = offset < 0 ? write(file->descriptor, next, part)
                                       : pwrite(file->descriptor, next, part, (off_t)offset);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return fail_errno(error, STATUS_IO, errno, "%s: cannot be written", file->path);
    if (written == 0) return fail(error, STATUS_IO, "%s: cannot be written: nothing was taken", file->path);
    next += written;
    bytes -= (size_t)written;
    if (offset >= 0) offset += written;
  }
  return STATUS_OK;
}

Status file_write_all(const File *file, const void *data, size_t bytes, Error *error) {
  return write_fully(file, -1, data, bytes, error);
}

Status file_write_all_at(const File *file, int64_t offset, const void *data, size_t bytes, Error *error) {
  return write_fully(file, offset, data, bytes, error);
}

Status file_read_exact_at(const File *file, int64_t offset, void *data, size_t bytes, Error *error) {
  char *next = data;
  while (bytes > 0) {
    const size_t part = bytes < FILE_TRANSFER_MAX ? bytes : FILE_TRANSFER_MAX;
    const ssize_t got = pread(file->descriptor, next, part, (off_t)offset);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) {
      return fail_errno(error, STATUS_IO, errno, "%s: cannot be read at byte %lld", file->path,
                        (long long)offset);
    }
    if (got == 0) {
      return fail(error, STATUS_DATA,
                  "%s: ends at byte %lld, where %zu more bytes should be: it is truncated", file->path,
                  (long long)offset, bytes);
    }
    next += got;
    bytes -= (size_t)got;
    offset += got;
  }
  return STATUS_OK;
}

Status file_size(const File *file, int64_t *bytes, Error *error) {
  struct stat info;
  if (fstat(file->descriptor, &info) != 0) {
    return fail_errno(error, STATUS_IO, errno, "%s: its size cannot be read", file->path);
  }
  *bytes = info.st_size;
  return STATUS_OK;
}

Status file_sync_close(File *file, Error *error) {
  Status status = STATUS_OK;
  if (fsync(file->descriptor) != 0) {
    status = fail_errno(error, STATUS_IO, errno, "%s: cannot be synced to its disk", file->path);
  }
  const int closed = close(file->descriptor);
  /* EINTR: Linux has closed it all the same, and the sync has brought the data home. */
  if (closed != 0 && errno != EINTR && status == STATUS_OK) {
    status = fail_errno(error, STATUS_IO, errno, "%s: cannot be closed", file->path);
  }
  file->descriptor = -1;
  file_close(file);
  return status;
}

void file_close(File *file) {
  if (file->descriptor >= 0) (void)close(file->descriptor);
  free(file->path);
  *file = FILE_CLOSED;
}

Status file_rename(const char *from, const char *to, Error *error) {
  if (rename(from, to) != 0) {
    return fail_errno(error, STATUS_IO, errno, "%s: cannot be renamed to %s", from, to);
  }
  return STATUS_OK;
}

Status file_sync_directory(const char *path, Error *error) {
  const int descriptor = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) return fail_errno(error, STATUS_IO, errno, "%s: cannot be opened to sync it", path);
  Status status = STATUS_OK;
  /* EINVAL: a file system that has no sync of directories. */
  if (fsync(descriptor) != 0 && errno != EINVAL) {
    status = fail_errno(error, STATUS_IO, errno, "%s: cannot be synced to its disk", path);
  }
  (void)close(descriptor);
  return status;
}

Status file_sync_parent(const char *path, Error *error) {
  char *copy = NULL;
  TRY(copy_text(path, &copy, error));
  const Status status = file_sync_directory(dirname(copy), error);
  free(copy);
  return status;
}

Status file_make_directory(const char *path, Error *error) {
  char *copy = NULL;
  TRY(copy_text(path, &copy, error));
  Status status = STATUS_OK;
  for (char *end = copy; *end != '\0' && status == STATUS_OK;) {
    end += strspn(end, "/");
    end += strcspn(end, "/");
    const char kept = *end;
    *end = '\0';
    if (mkdir(copy, 0777) == 0) {
      status = file_sync_parent(copy, error);
    } else if (errno != EEXIST) {
      status = fail_errno(error, STATUS_IO, errno, "%s: the directory cannot be made", copy);
    }
    *end = kept;
  }
  free(copy);
  if (status != STATUS_OK) return status;
  struct stat info;
  if (stat(path, &info) != 0) {
    return fail_errno(error, STATUS_IO, errno, "%s: the directory cannot be made", path);
  }
  if (!S_ISDIR(info.st_mode)) {
    return fail(error, STATUS_IO, "%s: is there, but is not a directory", path);
  }
  return STATUS_OK;
}

bool file_exists(const char *path) {
  struct stat info;
  return stat(path, &info) == 0;
}

Status file_read_whole(const char *path, size_t limit, char **out, size_t *bytes, Error *error) {
  *out = NULL;
  *bytes = 0;
  Status status = STATUS_OK;
  File file = FILE_CLOSED;
  int64_t size = 0;
  char *data = NULL;
  TRY_GOTO(file_open_read(path, &file, error), close);
  TRY_GOTO(file_size(&file, &size, error), close);
  if ((uint64_t)size > limit) {
    status = fail(error, STATUS_DATA, "%s: has %lld bytes, more than the %zu that such a file may have", path,
                  (long long)size, limit);
    goto close;
  }
  data = malloc((size_t)size + 1);
  if (data == NULL) {
    status = fail(error, STATUS_SYSTEM, "%s: no memory left for its %lld bytes", path, (long long)size);
    goto close;
  }
  TRY_GOTO(file_read_exact_at(&file, 0, data, (size_t)size, error), free_data);
  data[size] = '\0';
  *out = data;
  *bytes = (size_t)size;
  data = NULL;
free_data:
  free(data);
close:
  file_close(&file);
  return status;
}

static Status replace_through(const char *temporary, const char *path, const void *data, size_t bytes,
                              Error *error) {
  File file = FILE_CLOSED;
  Status status = STATUS_OK;
  TRY(file_create(temporary, &file, error));
  TRY_GOTO(file_write_all(&file, data, bytes, error), remove);
  TRY_GOTO(file_sync_close(&file, error), remove);
  TRY_GOTO(file_rename(temporary, path, error), remove);
  return file_sync_parent(path, error);
remove:
  file_close(&file);
  (void)unlink(temporary);
  return status;
}

Status file_replace(const char *path, const void *data, size_t bytes, Error *error) {
  char *temporary = NULL;
  if (asprintf(&temporary, "%s.tmp", path) < 0) {
    return fail(error, STATUS_SYSTEM, "%s: no memory left for a file name", path);
  }
  const Status status = replace_through(temporary, path, data, bytes, error);
  free(temporary);
  return status;
}
