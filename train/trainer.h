/* Training: the state of one rank and the loop over steps. The files trainer.c (life and loop), step.c (one
 * step) and resume.c (checkpoints) share this state. */
#ifndef RINGGPT_TRAIN_TRAINER_H
#define RINGGPT_TRAIN_TRAINER_H

#include <stdbool.h>
#include <stdint.h>

#include "data/loader.h"
#include "kernels/base/status.h"
#include "model/model.h"
#include "train/config.h"
#include "train/grid.h"
#include "train/memory_plan.h"
#include "train/memory_reserve.h"
#include "train/optimizer.h"
#include "train/run_log.h"
#include "train/schedule.h"
#include "train/sharding.h"
#include "train/stop.h"
#include "train/tokenizer_files.h"

/* Steps in a row without a finite loss and gradient that end a run. */
#define TRAINER_MOST_SKIPS 10

/* Where a run stands; a checkpoint keeps all of it. */
typedef struct Progress {
  int64_t step;             /* steps done, skipped ones included */
  int64_t tokens;           /* trained on by all ranks: the position in the data */
  int64_t skipped;          /* steps that changed nothing */
  int64_t skipped_in_a_row; /* the last so many steps were skipped */
} Progress;

typedef struct Trainer {
  const Config *config;
  Rank *rank;
  StopWatch *stop;
  RunLog *log;                /* on world rank 0; else NULL */
  CarriedTokenizer tokenizer; /* for the checkpoints; on world rank 0 */
  Model *model;
  Model *evaluator; /* the same weights and memory, without gradients; NULL when nothing is evaluated */
  MemoryPlan memory;
  MemoryPlaces places;
  Sharding sharding;
  Optimizer optimizer;
  Loader *loader;
  SequenceStage stage; /* what the loader is open for */
  int32_t end_of_document;
  Progress progress;
  int64_t evaluated; /* contexts already evaluated at the step the run goes on from */
  bool stopping;     /* a signal came; all ranks know */
} Trainer;

/* What the command hands to every rank. */
typedef struct TrainerStart {
  const Config *config;
  StopWatch *stop;
} TrainerStart;

/* Trains on one rank from where the run stands to train.steps; `start` is a TrainerStart. A RankMain for
 * grid_run. STATUS_STOPPED after a signal, with a checkpoint of the last step; STATUS_CONFIG when
 * TRAINER_MOST_SKIPS steps in a row had no finite loss or gradient. */
Status trainer_run(Rank *rank, void *start, Error *error);

/* trainer.c: says that a record could not be written, and goes on: a log is no reason to lose a run. */
void trainer_unrecorded(Trainer *trainer, const Error *error);

/* step.c: opens the loader anew where a stage of the sequence schedule begins: before a step, so that no step
 * starts threads or opens files. */
Status trainer_enter_stage(Trainer *trainer, Error *error);

/* step.c: one step, from the batches to the record of it; the updated weights may still be on their way
 * (sharding_finish_weights). Collective. */
Status trainer_step(Trainer *trainer, Error *error);

/* resume.c: restores what checkpoint.resume asks for, or draws new weights, and opens the log. Collective. */
Status trainer_restore(Trainer *trainer, Error *error);

/* resume.c: saves a checkpoint. A file system that refuses it (STATUS_IO) fails that save on all ranks alike
 * and leaves the run whole; every other failure ends it. Collective. */
Status trainer_save(Trainer *trainer, Error *error);

#endif
