/* The files of a prepared set in its folder. */
#include "data/prepared_set.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data/description.h"
#include "data/tokenizer.h"
#include "kernels/base/file.h"

#define NEW_FOLDER ".new"
#define SIX_DIGITS "[0-9][0-9][0-9][0-9][0-9][0-9]"

/* Names of the files of a set other than its description; .tmp: an index while it is written. */
static const char *const SHARD_FILES[] = {
    "train_" SIX_DIGITS ".bin.gz",           "val_" SIX_DIGITS ".bin.gz",
    "train_" SIX_DIGITS ".bin.gz.index",     "val_" SIX_DIGITS ".bin.gz.index",
    "train_" SIX_DIGITS ".bin.gz.index.tmp", "val_" SIX_DIGITS ".bin.gz.index.tmp",
};

/* What is done with the shards and indexes of a folder. */
typedef struct Visit {
  Status (*act)(const struct Visit *visit, const char *name, Error *error); /* NULL: they are only counted */
  const char *directory;
  const char *to; /* the folder to which they are moved */
  bool tokenizer; /* the files of the tokenizer too */
  int64_t count;
} Visit;

static bool is_shard_file(const char *name) {
  bool matches = false;
  for (size_t i = 0; i < sizeof SHARD_FILES / sizeof SHARD_FILES[0]; i++) {
    matches = matches || fnmatch(SHARD_FILES[i], name, 0) == 0;
  }
  return matches;
}

bool prepared_set_owns(const char *name) {
  return is_shard_file(name) || tokenizer_owns_file(name) || strcmp(name, DESCRIPTION_FILE) == 0 ||
         strcmp(name, DESCRIPTION_FILE ".tmp") == 0 || strcmp(name, NEW_FOLDER) == 0;
}

static Status visit_files(Visit *visit, Error *error) {
  Status status = STATUS_OK;
  const char *directory = visit->directory;
  DIR *folder = opendir(directory);
  visit->count = 0;
  if (folder == NULL) return fail_errno(error, STATUS_IO, errno, "%s: the folder cannot be read", directory);
  while (status == STATUS_OK) {
    errno = 0;
    const struct dirent *entry = readdir(folder);
    if (entry == NULL) {
      if (errno != 0)
        status = fail_errno(error, STATUS_IO, errno, "%s: the folder cannot be read", directory);
      break;
    }
    const bool tokenizer = visit->tokenizer && tokenizer_owns_file(entry->d_name);
    if (!is_shard_file(entry->d_name) && !tokenizer) continue;
    visit->count++;
    if (visit->act != NULL) status = visit->act(visit, entry->d_name, error);
  }
  (void)closedir(folder);
  return status;
}

static Status join(const char *directory, const char *name, char **out, Error *error) {
  if (asprintf(out, "%s/%s", directory, name) < 0) {
    *out = NULL;
    return fail(error, STATUS_SYSTEM, "%s: no memory left for a file name", directory);
  }
  return STATUS_OK;
}

/* Removes a file that may be missing. */
static Status remove_file(const char *directory, const char *name, Error *error) {
  char *path = NULL;
  Status status = STATUS_OK;
  TRY(join(directory, name, &path, error));
  if (unlink(path) != 0 && errno != ENOENT) {
    status = fail_errno(error, STATUS_IO, errno, "%s: cannot be removed", path);
  }
  free(path);
  return status;
}

static Status move_file(const char *from, const char *to, const char *name, Error *error) {
  char *old_path = NULL;
  char *new_path = NULL;
  Status status = STATUS_OK;
  TRY_GOTO(join(from, name, &old_path, error), release);
  TRY_GOTO(join(to, name, &new_path, error), release);
  status = file_rename(old_path, new_path, error);
release:
  free(new_path);
  free(old_path);
  return status;
}

static Status remove_visited(const Visit *visit, const char *name, Error *error) {
  return remove_file(visit->directory, name, error);
}

static Status move_visited(const Visit *visit, const char *name, Error *error) {
  return move_file(visit->directory, visit->to, name, error);
}

/* Removes the description and the shards; the files of a tokenizer only where they cannot be anybody else's.
 */
static Status remove_set(const char *directory, bool tokenizer, Error *error) {
  Visit removal = {.act = remove_visited, .directory = directory, .tokenizer = tokenizer};
  TRY(remove_file(directory, DESCRIPTION_FILE, error));
  TRY(file_sync_directory(directory, error));
  return visit_files(&removal, error);
}

Status prepared_set_exists(const char *directory, bool *exists, Error *error) {
  char *path = NULL;
  Visit search = {.directory = directory};
  TRY(join(directory, DESCRIPTION_FILE, &path, error));
  const bool described = file_exists(path);
  free(path);
  TRY(visit_files(&search, error));
  *exists = described || search.count > 0;
  return STATUS_OK;
}

Status prepared_set_discard(const char *fresh, Error *error) {
  /* What is no folder of its own, such as a link to one, fails here, before anything in it is touched. */
  if (rmdir(fresh) == 0 || errno == ENOENT) return STATUS_OK;
  if (errno == ENOTEMPTY || errno == EEXIST) {
    TRY(remove_set(fresh, true, error));
    TRY(remove_file(fresh, DESCRIPTION_FILE ".tmp", error));
    if (rmdir(fresh) == 0) return STATUS_OK;
  }
  return fail_errno(error, STATUS_IO, errno, "%s: is in the way of a new set and cannot be removed", fresh);
}

Status prepared_set_begin(const char *directory, char **fresh, Error *error) {
  TRY(join(directory, NEW_FOLDER, fresh, error));
  TRY(prepared_set_discard(*fresh, error));
  return file_make_directory(*fresh, error);
}

Status prepared_set_finish(const char *directory, const char *fresh, Error *error) {
  Visit moving = {.act = move_visited, .directory = fresh, .to = directory, .tokenizer = true};
  TRY(remove_set(directory, false, error));
  TRY(visit_files(&moving, error));
  TRY(file_sync_directory(directory, error));
  TRY(move_file(fresh, directory, DESCRIPTION_FILE, error));
  TRY(file_sync_directory(directory, error));
  return prepared_set_discard(fresh, error);
}

/* ---------------------------------------------------------------- before a set is made */

Status prepared_set_lock(const char *directory, int *lock, Error *error) {
  *lock = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (*lock < 0) return fail_errno(error, STATUS_IO, errno, "%s: the folder cannot be opened", directory);
  if (flock(*lock, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
    return fail(error, STATUS_USAGE,
                "%s: another process prepares a set there: wait for it, or choose another folder", directory);
  }
  return STATUS_OK;
}

/* What is no regular file can be neither replaced nor removed as one. A link to a file may stand for it. */
static Status check_regular(const char *directory, const char *name, Error *error) {
  char *path = NULL;
  struct stat info;
  Status status = STATUS_OK;
  TRY(join(directory, name, &path, error));
  const bool there = lstat(path, &info) == 0;
  if (there && (stat(path, &info) != 0 || !S_ISREG(info.st_mode))) {
    status = fail(error, STATUS_USAGE,
                  "%s: is no regular file and in the way of one of the set: move it away, or choose another "
                  "folder",
                  path);
  }
  free(path);
  return status;
}

static Status check_visited(const Visit *visit, const char *name, Error *error) {
  return check_regular(visit->directory, name, error);
}

/* Whether a file of the folder stands where the set's copy of `file` is to be, and holds something else. */
static Status check_content(const char *directory, const TokenizerFile *file, Error *error) {
  char *path = NULL;
  char *data = NULL;
  size_t bytes = 0;
  Status status = STATUS_OK;
  TRY(join(directory, file->name, &path, error));
  if (!file_exists(path)) goto release;
  Error ignored = {0};
  const Status read = file_read_whole(path, file->bytes, &data, &bytes, &ignored);
  if (read != STATUS_OK || bytes != file->bytes || memcmp(data, file->data, bytes) != 0) {
    status =
        fail(error, STATUS_USAGE,
             "%s: is not of the tokenizer whose files the set is to keep there: choose another folder, or "
             "say that it may be overwritten",
             path);
  }
release:
  free(data);
  free(path);
  return status;
}

Status prepared_set_check(const char *directory, const TokenizerFiles *files, bool overwrite, Error *error) {
  Visit shards = {.act = check_visited, .directory = directory};
  TRY(check_regular(directory, DESCRIPTION_FILE, error));
  TRY(visit_files(&shards, error));
  for (int64_t i = 0; i < files->count; i++) {
    TRY(check_regular(directory, files->files[i].name, error));
    if (!overwrite) TRY(check_content(directory, &files->files[i], error));
  }
  return STATUS_OK;
}

/* ---------------------------------------------------------------- the tokenizer */

static Status write_tokenizer_file(const char *directory, const TokenizerFile *content, Error *error) {
  char *path = NULL;
  File file = FILE_CLOSED;
  Status status = STATUS_OK;
  TRY(join(directory, content->name, &path, error));
  TRY_GOTO(file_create(path, &file, error), release);
  TRY_GOTO(file_write_all(&file, content->data, content->bytes, error), release);
  TRY_GOTO(file_sync_close(&file, error), release);
release:
  file_close(&file);
  free(path);
  return status;
}

Status prepared_set_write_tokenizer(const char *fresh, const TokenizerFiles *files, Error *error) {
  for (int64_t i = 0; i < files->count; i++) TRY(write_tokenizer_file(fresh, &files->files[i], error));
  return STATUS_OK;
}
