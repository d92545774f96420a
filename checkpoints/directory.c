/* The directory of a run's checkpoints. */
#include "checkpoints/directory.h"

#include <dirent.h>
#include <errno.h>
#include <ftw.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* Directories open at a time while a tree is removed. */
#define MAX_OPEN 16

static const char *const SUFFIXES[] = {[STEP_TEMPORARY] = ".tmp", [STEP_OLD] = ".old", [STEP_FINAL] = ""};

/* The status of a call that left `code` in errno. */
static Status status_of(int code) {
  return code == ENOMEM ? STATUS_SYSTEM : STATUS_IO;
}

static Status too_long(const char *path, Error *error) {
  return fail(error, STATUS_CONFIG, "%.200s...: the path is too long", path);
}

Status directory_join(const char *directory, const char *name, char path[PATH_MAX], Error *error) {
  const int length = snprintf(path, PATH_MAX, "%s/%s", directory, name);
  return length < 0 || length >= PATH_MAX ? too_long(directory, error) : STATUS_OK;
}

Status directory_copy(const char *from, char path[PATH_MAX], Error *error) {
  const size_t length = strlen(from);
  if (length >= PATH_MAX) return too_long(from, error);
  memcpy(path, from, length + 1);
  return STATUS_OK;
}

static void step_name(int64_t step, StepKind kind, char name[NAME_MAX + 1]) {
  (void)snprintf(name, NAME_MAX + 1, "step_%08" PRId64 "%s", step, SUFFIXES[kind]);
}

Status directory_step(const char *directory, int64_t step, StepKind kind, char path[PATH_MAX], Error *error) {
  char name[NAME_MAX + 1];
  step_name(step, kind, name);
  return directory_join(directory, name, path, error);
}

/* Whether `name` is exactly what step_name gives for some step and kind. */
static bool parse_name(const char *name, int64_t *step, StepKind *kind) {
  static const char prefix[] = "step_";
  if (strncmp(name, prefix, sizeof prefix - 1) != 0) return false;
  *step = strtoll(name + sizeof prefix - 1, NULL, 10);
  if (*step < 0) return false;
  for (*kind = STEP_TEMPORARY; *kind <= STEP_FINAL; (*kind)++) {
    char expected[NAME_MAX + 1];
    step_name(*step, *kind, expected);
    if (strcmp(name, expected) == 0) return true;
  }
  return false;
}

static int by_step(const void *left, const void *right) {
  const StepDirectory *a = left;
  const StepDirectory *b = right;
  if (a->step != b->step) return a->step < b->step ? -1 : 1;
  return (a->kind > b->kind) - (a->kind < b->kind);
}

/* Adds the entry `name` to the list if it is that of a step. */
static Status add_name(const char *directory, const char *name, StepDirectory **list, int64_t *count,
                       Error *error) {
  int64_t step = 0;
  StepKind kind = STEP_FINAL;
  if (!parse_name(name, &step, &kind)) return STATUS_OK;
  StepDirectory *grown = realloc(*list, (size_t)(*count + 1) * sizeof *grown);
  if (grown == NULL) return fail(error, STATUS_SYSTEM, "%s: no memory left for its list", directory);
  *list = grown;
  grown[*count] = (StepDirectory){.step = step, .kind = kind};
  TRY(directory_join(directory, name, grown[*count].path, error));
  (*count)++;
  return STATUS_OK;
}

static Status read_names(const char *directory, DIR *stream, StepDirectory **list, int64_t *count,
                         Error *error) {
  for (;;) {
    errno = 0;
    const struct dirent *entry = readdir(stream);
    if (entry == NULL && errno != 0) {
      return fail_errno(error, status_of(errno), errno, "%s: the directory cannot be read", directory);
    }
    if (entry == NULL) return STATUS_OK;
    TRY(add_name(directory, entry->d_name, list, count, error));
  }
}

Status directory_list(const char *directory, StepDirectory **list, int64_t *count, Error *error) {
  *list = NULL;
  *count = 0;
  DIR *stream = opendir(directory);
  if (stream == NULL && errno == ENOENT) return STATUS_OK;
  if (stream == NULL) {
    return fail_errno(error, status_of(errno), errno, "%s: the directory cannot be read", directory);
  }
  const Status status = read_names(directory, stream, list, count, error);
  (void)closedir(stream);
  if (status != STATUS_OK) {
    free(*list);
    *list = NULL;
    *count = 0;
  } else if (*count > 0) {
    qsort(*list, (size_t)*count, sizeof **list, by_step);
  }
  return status;
}

static int remove_one(const char *path, const struct stat *info, int type, struct FTW *place) {
  (void)info;
  (void)type;
  (void)place;
  return remove(path);
}

Status directory_remove(const char *path, Error *error) {
  if (nftw(path, remove_one, MAX_OPEN, FTW_DEPTH | FTW_PHYS) != 0 && errno != ENOENT) {
    return fail_errno(error, status_of(errno), errno, "%s: cannot be removed", path);
  }
  return STATUS_OK;
}
