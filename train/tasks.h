/* Tasks that only a model which uses its context can do: what is hidden in it is asked for at its end, or
 * behind. The answers are read, not generated: one forward pass a sample over the ring, in which every token
 * of an answer must be the likeliest after those before it. */
#ifndef RINGGPT_TRAIN_TASKS_H
#define RINGGPT_TRAIN_TASKS_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/base/status.h"
#include "model/model.h"
#include "train/config.h"
#include "train/eval_watch.h"
#include "train/grid.h"

typedef enum TaskKind {
  TASK_NEEDLE,  /* train/task_text.h */
  TASK_PASSKEY, /* train/task_text.h */
  TASK_MQAR,    /* data/recall.h, with data.mqar_pairs and data.mqar_queries */
  TASK_KINDS
} TaskKind;

/* Rows of a result at most: depths, or distances in powers of two. */
#define TASK_ROWS 64

typedef struct TaskOptions {
  TaskKind kind;
  const char *tokenizer; /* as tokenizer_open takes it; not of TASK_MQAR */
  int64_t depths;        /* of TASK_NEEDLE and TASK_PASSKEY, at most TASK_ROWS */
  int64_t samples;       /* of each depth, or of TASK_MQAR: at least 1 */
} TaskOptions;

typedef struct TaskScore {
  int64_t asked;
  int64_t right;
} TaskScore;

/* What a task gave at one context. Row r is depth r of the text tasks, whose samples are right with all
 * tokens of the answer; of TASK_MQAR the questions whose pair's value lies [2^r, 2^(r+1)) positions before.
 */
typedef struct TaskResult {
  int64_t context;
  TaskScore total;
  TaskScore rows[TASK_ROWS];
  TaskScore tokens; /* of the answers */
  TaskScore own;    /* TASK_MQAR: questions whose pair lies on the rank that asks, and the others */
  TaskScore remote;
} TaskResult;

/* "needle", "passkey" or "mqar". */
const char *task_name(TaskKind kind);

/* How deep row `row` of `depths` is hidden: 0 at the beginning, 1 at the end; a single one in the middle. */
double task_depth(int64_t row, int64_t depths);

/* Checks that the configuration can be asked for a task at the contexts it names, before anything is
 * computed. STATUS_CONFIG. */
Status task_check(const Config *config, TaskKind kind, Error *error);

/* Bytes of host memory that a rank of a ring of `ring_size` needs for the samples of `context` tokens;
 * ARENA_TOO_LARGE where they do not fit. */
size_t task_bytes(int64_t context, int ring_size);

/* Runs a task on every rank of the grid with the weights of `model`, which has no document mask; the result
 * is the same on all ranks. Rings take turns at the samples. `memory` (task_bytes) and `watch` (NULL: none)
 * are this rank's. Collective. Fails as task_text_sample; under a watch also with STATUS_STOPPED. */
Status task_run(const Config *config, const Rank *rank, Model *model, const TaskOptions *options,
                int64_t context, void *memory, EvalWatch *watch, TaskResult *result, Error *error);

/* The work of a task at one context, as of perplexity_work, for the watch. */
double task_work(const Config *config, const Rank *rank, const Model *model, const TaskOptions *options,
                 int64_t context);

#endif
