/* The files of a prepared set in its folder. */
#include "data/prepared_set.h"

#include <dirent.h>
#include <errno.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "data/description.h"
#include "kernels/base/file.h"

#define SIX_DIGITS "[0-9][0-9][0-9][0-9][0-9][0-9]"

/* Names of the files of a set; the description is removed before all others. */
static const char *const SET_FILES[] = {
    "train_" SIX_DIGITS ".bin.gz",
    "train_" SIX_DIGITS ".bin.gz.index",
    "val_" SIX_DIGITS ".bin.gz",
    "val_" SIX_DIGITS ".bin.gz.index",
};

static bool is_set_file(const char *name) {
  bool matches = false;
  for (size_t i = 0; i < sizeof SET_FILES / sizeof SET_FILES[0]; i++) {
    matches = matches || fnmatch(SET_FILES[i], name, 0) == 0;
  }
  return matches;
}

/* Counts the shards and indexes in a folder, and removes them where that is asked for. */
static Status visit_files(const char *directory, bool remove, int64_t *count, Error *error) {
  Status status = STATUS_OK;
  DIR *folder = opendir(directory);
  *count = 0;
  if (folder == NULL) return fail_errno(error, STATUS_IO, errno, "%s: the folder cannot be read", directory);
  const struct dirent *entry = NULL;
  while (status == STATUS_OK && (entry = readdir(folder)) != NULL) {
    if (!is_set_file(entry->d_name)) continue;
    (*count)++;
    if (remove && unlinkat(dirfd(folder), entry->d_name, 0) != 0) {
      status = fail_errno(error, STATUS_IO, errno, "%s/%s: cannot be removed", directory, entry->d_name);
    }
  }
  (void)closedir(folder);
  return status;
}

static Status description_file(const char *directory, char **out, Error *error) {
  if (asprintf(out, "%s/" DESCRIPTION_FILE, directory) < 0) {
    return fail(error, STATUS_SYSTEM, "%s: no memory left for a file name", directory);
  }
  return STATUS_OK;
}

Status prepared_set_exists(const char *directory, bool *exists, Error *error) {
  char *path = NULL;
  int64_t count = 0;
  TRY(description_file(directory, &path, error));
  const bool described = file_exists(path);
  free(path);
  TRY(visit_files(directory, false, &count, error));
  *exists = described || count > 0;
  return STATUS_OK;
}

Status prepared_set_remove(const char *directory, Error *error) {
  char *path = NULL;
  int64_t count = 0;
  TRY(description_file(directory, &path, error));
  const int result = unlink(path);
  const int problem = errno;
  free(path);
  if (result != 0 && problem != ENOENT) {
    return fail_errno(error, STATUS_IO, problem, "%s/" DESCRIPTION_FILE ": cannot be removed", directory);
  }
  TRY(file_sync_directory(directory, error));
  return visit_files(directory, true, &count, error);
}
