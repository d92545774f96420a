/* Which shards a pattern of the configuration names. */
#include "data/shard_names.h"

#include <errno.h>
#include <glob.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "data/block_index.h"
#include "kernels/base/file.h"

static Status out_of_memory(const char *pattern, Error *error) {
  return fail(error, STATUS_SYSTEM, "%s: no memory left for the names of its shards", pattern);
}

void shard_names_free(ShardNames *names) {
  for (int64_t i = 0; i < names->count; i++) free(names->paths[i]);
  free(names->paths);
  free(names->directory);
  *names = (ShardNames){0};
}

static Status make_room(const char *pattern, size_t count, ShardNames *names, Error *error) {
  names->paths = calloc(count, sizeof *names->paths);
  return names->paths == NULL ? out_of_memory(pattern, error) : STATUS_OK;
}

/* Stores in *out the directory part of a path, a new block. */
static Status directory_of(const char *path, char **out, Error *error) {
  char *copy = strdup(path);
  if (copy == NULL) return out_of_memory(path, error);
  *out = strdup(dirname(copy));
  free(copy);
  return *out == NULL ? out_of_memory(path, error) : STATUS_OK;
}

/* Reads the description in `directory` if there is one. */
static Status find_description(const char *directory, ShardNames *names, Error *error) {
  char *path = NULL;
  if (asprintf(&path, "%s/" DESCRIPTION_FILE, directory) < 0) return out_of_memory(directory, error);
  names->described = file_exists(path);
  free(path);
  return names->described ? description_read(directory, &names->description, error) : STATUS_OK;
}

/* The shards of one split of the prepared set in `directory`, by its description. */
static Status name_split(const char *directory, Split split, ShardNames *names, Error *error) {
  const SplitDescription *described = &names->description.splits[split];
  if (described->shards == 0) {
    return fail(error, STATUS_NO_INPUT,
                "%s: the prepared set has no split \"%s\": prepare it with both splits", directory,
                split_name(split));
  }
  TRY(make_room(directory, (size_t)described->shards, names, error));
  for (; names->count < described->shards; names->count++) {
    TRY(split_shard_path(directory, split, names->count, &names->paths[names->count], error));
  }
  names->directory = strdup(directory);
  if (names->directory == NULL) return out_of_memory(directory, error);
  names->tokens = described->tokens;
  return STATUS_OK;
}

/* DIR: a prepared set with one split. */
static Status name_directory(const char *directory, ShardNames *names, Error *error) {
  TRY(find_description(directory, names, error));
  if (!names->described) {
    return fail(error, STATUS_NO_INPUT,
                "%s: is a folder without " DESCRIPTION_FILE
                ", so not a finished set of `ringgpt prepare`: name "
                "the shards in it by a pattern such as %s/*.bin",
                directory, directory);
  }
  const SplitDescription *splits = names->description.splits;
  if (splits[SPLIT_TRAIN].shards > 0 && splits[SPLIT_VAL].shards > 0) {
    return fail(error, STATUS_NO_INPUT, "%s: has two splits: name one, %s/train or %s/val", directory,
                directory, directory);
  }
  return name_split(directory, splits[SPLIT_VAL].shards > 0 ? SPLIT_VAL : SPLIT_TRAIN, names, error);
}

/* DIR/train or DIR/val of a prepared set; otherwise leaves names->described false. */
static Status name_directory_split(const char *pattern, ShardNames *names, Error *error) {
  const char *slash = strrchr(pattern, '/');
  const char *last = slash == NULL ? pattern : slash + 1;
  char *directory = NULL;
  Status status = STATUS_OK;
  for (Split split = SPLIT_TRAIN; split <= SPLIT_VAL && status == STATUS_OK; split++) {
    if (strcmp(last, split_name(split)) != 0) continue;
    TRY(directory_of(pattern, &directory, error));
    status = find_description(directory, names, error);
    if (status == STATUS_OK && names->described) status = name_split(directory, split, names, error);
    free(directory);
  }
  return status;
}

static int compare_names(const void *left, const void *right) {
  return strcmp(*(char *const *)left, *(char *const *)right);
}

/* Whether a name that a pattern matched is that of an index beside a shard, or of one being written. */
static bool is_index(const char *path) {
  const char *suffixes[] = {BLOCK_INDEX_SUFFIX, BLOCK_INDEX_SUFFIX ".tmp"};
  const size_t length = strlen(path);
  for (size_t i = 0; i < 2; i++) {
    const size_t tail = strlen(suffixes[i]);
    if (length > tail && strcmp(path + length - tail, suffixes[i]) == 0) return true;
  }
  return false;
}

static Status add_name(const char *path, ShardNames *names, Error *error) {
  names->paths[names->count] = strdup(path);
  if (names->paths[names->count] == NULL) return out_of_memory(path, error);
  names->count++;
  return STATUS_OK;
}

/* What glob found: all but the indexes, sorted by the bytes of the names, since glob's own order depends on
 * the locale. */
static Status take_names(const char *pattern, const glob_t *found, ShardNames *names, Error *error) {
  TRY(make_room(pattern, found->gl_pathc + 1, names, error));
  for (size_t i = 0; i < found->gl_pathc; i++) {
    if (!is_index(found->gl_pathv[i])) TRY(add_name(found->gl_pathv[i], names, error));
  }
  qsort(names->paths, (size_t)names->count, sizeof *names->paths, compare_names);
  if (names->count > 0) return STATUS_OK;
  return fail(error, STATUS_NO_INPUT,
              "%s: matches no file: correct the path, or make shards with `ringgpt prepare`", pattern);
}

static Status name_glob(const char *pattern, ShardNames *names, Error *error) {
  glob_t found;
  const int result = glob(pattern, GLOB_NOSORT, NULL, &found);
  if (result != 0 && result != GLOB_NOMATCH) {
    return fail_errno(error, STATUS_NO_INPUT, errno, "%s: cannot be looked up", pattern);
  }
  const Status status = take_names(pattern, &found, names, error);
  globfree(&found);
  return status;
}

static Status find_names(const char *pattern, ShardNames *names, Error *error) {
  struct stat info;
  const bool there = stat(pattern, &info) == 0;
  if (there && S_ISDIR(info.st_mode)) return name_directory(pattern, names, error);
  if (there) {
    TRY(make_room(pattern, 1, names, error));
    TRY(add_name(pattern, names, error));
  } else {
    TRY(name_directory_split(pattern, names, error));
    if (names->described) return STATUS_OK;
    TRY(name_glob(pattern, names, error));
  }
  /* The folder in a pattern may be a pattern, too: that of the first shard is meant. */
  TRY(directory_of(names->paths[0], &names->directory, error));
  return find_description(names->directory, names, error);
}

Status shard_names_find(const char *pattern, ShardNames *out, Error *error) {
  *out = (ShardNames){.tokens = -1};
  const Status status = find_names(pattern, out, error);
  if (status != STATUS_OK) shard_names_free(out);
  return status;
}
