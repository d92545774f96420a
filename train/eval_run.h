/* What all that `ringgpt eval` measures has in common: every rank loads the checkpoint and computes one
 * context after the other under a watch (train/eval_watch.h); then, also where a signal has ended that, what
 * is finished is reported. */
#ifndef RINGGPT_TRAIN_EVAL_RUN_H
#define RINGGPT_TRAIN_EVAL_RUN_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/base/status.h"
#include "model/model.h"
#include "train/command_line.h"
#include "train/config.h"
#include "train/eval_watch.h"
#include "train/grid.h"
#include "train/stop.h"

/* Where a rank computes. */
typedef struct EvalPlace {
  Rank *rank;
  Model *model;
  EvalWatch watch;
  void *memory; /* host memory that was planned (MemoryPlan.evaluation) */
} EvalPlace;

/* What is measured at each of the contexts of the configuration. `measure` is the caller's. */
typedef struct EvalMeasure {
  /* Checks what every rank reads, before the model takes its memory. Collective. */
  Status (*check)(const void *measure, Rank *rank, Error *error);
  /* Operations of one ring at context number i, to foretell the time. */
  double (*work)(const void *measure, const Rank *rank, const Model *model, int64_t i);
  /* Computes context number i at `place`, and keeps the result on world rank 0. Collective. */
  Status (*compute)(void *measure, EvalPlace *place, int64_t i, Error *error);
  /* Prints and writes the results of the first `finished` contexts; in the process of world rank 0. */
  Status (*report)(const void *measure, const CommandLine *line, int64_t finished, Error *error);
} EvalMeasure;

typedef struct EvalRun {
  const Config *config;
  const char *checkpoint;
  bool tasks;      /* it measures tasks, not perplexity: in the plan of memory */
  bool local_keys; /* of ModelOptions */
  const EvalMeasure *measure;
  void *context; /* for its functions */
  /* Written by eval_run. */
  StopWatch *stop;
  int64_t finished; /* contexts; on world rank 0 */
  char place[256];  /* how far it came, where it was stopped; on world rank 0 */
} EvalRun;

/* Runs it on the configured grid. STATUS_STOPPED after a signal, with the results that were finished reported
 * and one line that says how far it came; otherwise fails as grid_run, memory_check, hf_model_check,
 * host_weights_load and the functions of `measure`. */
Status eval_run(EvalRun *run, const CommandLine *line, Error *error);

#endif
