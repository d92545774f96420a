/* What an evaluation found: tables for people, JSON for programs, a picture. */
#ifndef RINGGPT_TRAIN_EVAL_REPORT_H
#define RINGGPT_TRAIN_EVAL_REPORT_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/base/status.h"
#include "train/config.h"
#include "train/perplexity.h"

typedef struct EvalReport {
  const Config *config;
  const char *checkpoint;
  const Perplexity *results; /* (count) of the contexts that are finished */
  int64_t count;
  bool complete; /* those are all */
} EvalReport;

/* Prints a table for each context. */
void eval_report_print(const EvalReport *report);

/* Writes a JSON object. STATUS_IO. */
Status eval_report_json(const EvalReport *report, const char *path, Error *error);

/* Draws nll and perplexity against position, to a picture, and where standard output is a terminal in
 * characters too; "-": in characters alone. What cannot be drawn is a warning. */
void eval_report_plot(const EvalReport *report, const char *path);

/* Checks the name of such a picture. STATUS_USAGE. */
Status eval_report_check_plot(const char *path, Error *error);

#endif
