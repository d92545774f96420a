/* What a task gave: as a table and a heat map, in a picture, and as JSON. */
#ifndef RINGGPT_TRAIN_TASK_REPORT_H
#define RINGGPT_TRAIN_TASK_REPORT_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/base/status.h"
#include "train/config.h"
#include "train/tasks.h"

typedef struct TaskReport {
  const Config *config;
  const char *checkpoint;
  const TaskOptions *options;
  bool local_keys;           /* the model saw the keys of each rank's own chunks alone */
  const TaskResult *results; /* (count) of the contexts that are finished */
  int64_t count;
  bool complete; /* those are all */
} TaskReport;

/* Prints a line for each context, and the accuracy by context and depth, or distance, as a heat map; draws
 * that to `picture` too, unless it is NULL or "-". What cannot be drawn is a warning. STATUS_SYSTEM without
 * memory.
 */
Status task_report_print(const TaskReport *report, const char *picture, Error *error);

/* Writes a JSON object. STATUS_IO. */
Status task_report_json(const TaskReport *report, const char *path, Error *error);

#endif
