/* The directory of a run's checkpoints: names of steps, their list, removal. */
#ifndef RINGGPT_CHECKPOINTS_DIRECTORY_H
#define RINGGPT_CHECKPOINTS_DIRECTORY_H

#include <limits.h>
#include <stdint.h>

#include "kernels/base/status.h"

/* What a directory of one step may be, in the order in which two of one step are preferred. */
typedef enum StepKind {
  STEP_TEMPORARY, /* step_00000100.tmp: being written, or left over */
  STEP_OLD,       /* step_00000100.old: whole, its successor is being put in place */
  STEP_FINAL      /* step_00000100 */
} StepKind;

typedef struct StepDirectory {
  int64_t step;
  StepKind kind;
  char path[PATH_MAX];
} StepDirectory;

/* DIRECTORY/NAME. STATUS_CONFIG when that is too long for a path. */
Status directory_join(const char *directory, const char *name, char path[PATH_MAX], Error *error);

/* Copies a path. STATUS_CONFIG when it is too long. */
Status directory_copy(const char *from, char path[PATH_MAX], Error *error);

/* The path of a step's directory below `directory`. STATUS_CONFIG as directory_join. */
Status directory_step(const char *directory, int64_t step, StepKind kind, char path[PATH_MAX], Error *error);

/* Lists what there is of all steps, by step and kind ascending, in *list, a new array that the caller frees.
 * A missing directory is an empty list. STATUS_IO; STATUS_SYSTEM without memory. */
Status directory_list(const char *directory, StepDirectory **list, int64_t *count, Error *error);

/* Removes a file or a directory with all it holds; a missing one is allowed. STATUS_IO;
 * STATUS_SYSTEM without memory. */
Status directory_remove(const char *path, Error *error);

#endif
