/* Which checkpoints of a run stay and which go. */
#include "checkpoints/retention.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "checkpoints/directory.h"
#include "checkpoints/verify.h"
#include "kernels/base/file.h"

/* So many of the newest are read in full before others go; of the rest, which were read in full when they
 * were saved, the manifest and the sizes must be right. */
#define CERTAIN 2

void warn(const CheckpointLog *log, const char *format, ...) {
  if (log == NULL || log->warn == NULL) return;
  char text[sizeof(Error) + PATH_MAX];
  va_list arguments;
  va_start(arguments, format);
  (void)vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  log->warn(log->context, text);
}

static void remove_leftover(const char *path, const CheckpointLog *log) {
  Error error = {0};
  if (directory_remove(path, &error) != STATUS_OK) warn(log, "%s", error.text);
}

/* Whether entry `i` is an old one whose successor is in place and whole; beside a damaged one it may be the
 * checkpoint that the run lives on. */
static bool is_superseded(const StepDirectory *list, int64_t count, int64_t i) {
  if (list[i].kind != STEP_OLD || i + 1 == count || list[i + 1].step != list[i].step) return false;
  CheckpointManifest manifest;
  Error ignored = {0};
  return verify_step(&list[i + 1], true, &manifest, &ignored) == STATUS_OK;
}

void checkpoint_clean(const char *directory, const CheckpointLog *log) {
  StepDirectory *list = NULL;
  int64_t count = 0;
  Error error = {0};
  if (directory_list(directory, &list, &count, &error) != STATUS_OK) {
    warn(log, "%s", error.text);
    return;
  }
  for (int64_t i = 0; i < count; i++) {
    if (list[i].kind == STEP_TEMPORARY || is_superseded(list, count, i)) remove_leftover(list[i].path, log);
  }
  free(list);
}

/* Takes the final name away first, so that a half-removed checkpoint is never taken for one. */
static void remove_step(const StepDirectory *entry, const char *directory, const CheckpointLog *log) {
  char temporary[PATH_MAX];
  Error error = {0};
  Status status = directory_step(directory, entry->step, STEP_TEMPORARY, temporary, &error);
  if (status == STATUS_OK) status = file_rename(entry->path, temporary, &error);
  if (status == STATUS_OK) status = directory_remove(temporary, &error);
  if (status != STATUS_OK) warn(log, "an old checkpoint stays: %s", error.text);
}

static bool is_whole(const StepDirectory *entry, bool contents, const CheckpointLog *log) {
  CheckpointManifest manifest;
  Error error = {0};
  if (verify_step(entry, contents, &manifest, &error) == STATUS_OK) return true;
  warn(log, "%s: is damaged and does not count among those to keep: %s", entry->path, error.text);
  return false;
}

/* The number of entries at the front of the list, the oldest, that may go. */
static int64_t count_removable(const StepDirectory *list, int64_t count, int64_t keep,
                               const CheckpointLog *log) {
  int64_t whole = 1; /* the last one, just saved */
  int64_t i = count - 1;
  while (i > 0 && whole < keep) {
    i--;
    if (is_whole(&list[i], whole < CERTAIN, log)) whole++;
  }
  return i;
}

void retention_apply(const char *directory, int64_t keep, int64_t step, const CheckpointLog *log) {
  StepDirectory *list = NULL;
  int64_t count = 0;
  int64_t considered = 0;
  Error error = {0};
  if (directory_list(directory, &list, &count, &error) != STATUS_OK) {
    warn(log, "no old checkpoint was removed: %s", error.text);
    return;
  }
  for (int64_t i = 0; i < count; i++) {
    if (list[i].kind == STEP_TEMPORARY || list[i].step > step || is_superseded(list, count, i)) continue;
    list[considered++] = list[i];
  }
  const int64_t removable = considered > keep ? count_removable(list, considered, keep, log) : 0;
  for (int64_t i = 0; i < removable; i++) remove_step(&list[i], directory, log);
  free(list);
}
