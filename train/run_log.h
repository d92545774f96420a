/* The directory of a run, what is recorded in it and what the terminal shows:
 *
 *     config.yaml     the resolved configuration
 *     metrics.jsonl   one JSON object per training step, and per context of each evaluation
 *     log.txt         messages and step lines with their time, appended over all starts of the run
 *     checkpoints/    (checkpoints/ writes there)
 *
 * Steps are counted as done: the record of the first step says 1, as does an evaluation or checkpoint after
 * it. One thread of one process has the log of a run; a second process is refused. Every function takes NULL
 * as a log and then does nothing, so that ranks without one make the same calls. */
#ifndef RINGGPT_TRAIN_RUN_LOG_H
#define RINGGPT_TRAIN_RUN_LOG_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "kernels/base/status.h"
#include "train/config.h"

typedef struct RunLog RunLog;

/* One training step. */
typedef struct StepRecord {
  int64_t step; /* steps done, this one included: 1 ... train.steps */
  double loss;  /* mean over the valid targets of all ranks, natural logarithm */
  double learning_rate;
  double grad_norm;         /* before clipping */
  int64_t tokens;           /* tokens trained on since step 1 */
  int64_t sequence_length;  /* T of this step */
  double tokens_per_second; /* of this step */
  double step_ms;
  double exposed_comm_ms; /* of it, spent on messages: the peers were ready, the data not there, or copied */
  double skew_ms;         /* of it, waited for peers that were not ready */
  double balance;         /* attention of the rank of a ring that has most of it, over the mean; 1 is best */
  bool skipped;           /* nothing was updated, because loss or norm was not finite */
} StepRecord;

/* One context of an evaluation. */
typedef struct EvalRecord {
  int64_t step;    /* steps done */
  int64_t context; /* tokens seen at once */
  int64_t windows;
  int64_t tokens;        /* scored targets */
  double nll;            /* mean over them, natural logarithm */
  double standard_error; /* of nll */
  const char *mode;      /* NULL: full prefix */
} EvalRecord;

/* Makes or opens the run directory config->run.dir and takes its lock, which keeps every other process from
 * writing there; messages can be logged from now on. Lines go to `terminal` too, NULL for none, as far as it
 * takes them without holding up the run (train/terminal.h); a bar with the time left where that is a
 * terminal. To be called before the run's checkpoints are looked at: what
 * another process writes meanwhile would be lost. The caller closes *out. Fails with STATUS_IO,
 * STATUS_SYSTEM, or STATUS_CONFIG when another process has the run open. */
Status run_log_open(const Config *config, FILE *terminal, RunLog **out, Error *error);

/* Begins or goes on with the run: writes config.yaml, and keeps of metrics.jsonl the records up to
 * `steps_done`: later ones belong to steps that are done again. A run that starts at step 0 keeps records
 * that are there as metrics.jsonl.1, .2, ... Fails with STATUS_IO or STATUS_SYSTEM. NULL is allowed. */
Status run_log_begin(RunLog *log, const Config *config, int64_t steps_done, Error *error);

/* Appends a step to metrics.jsonl, in one write that is taken back if it fails; shows and logs it every
 * logging.every steps, and when it was skipped or is the last. Numbers keep all their bits; those that are
 * not finite are null. Fails with STATUS_IO. */
Status run_log_step(RunLog *log, const StepRecord *record, Error *error);

/* Likewise an evaluation. */
Status run_log_eval(RunLog *log, const EvalRecord *record, Error *error);

/* How many evaluations metrics.jsonl already held at the step that the run went on from. */
int64_t run_log_evaluations(const RunLog *log);

/* Shows and logs one line of text. */
void run_log_message(RunLog *log, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Releases the log and the directory. */
void run_log_close(RunLog *log);

#endif
