/* What changes with the training step: the learning rate and the length of the sequences. Pure functions.
 * `step` counts from 0: it is the number of steps already done. */
#ifndef RINGGPT_TRAIN_SCHEDULE_H
#define RINGGPT_TRAIN_SCHEDULE_H

#include <stdint.h>

#include "train/config.h"

/* The stage of the sequence schedule that a step belongs to. Tokens of a step and of a micro-batch are the
 * same in every stage. */
typedef struct SequenceStage {
  int64_t index;             /* which stage, from 0 */
  int64_t first_step;        /* its first step */
  int64_t end_step;          /* the first step of the next stage, or train.steps for the last */
  int64_t sequence_length;   /* T of this stage */
  int64_t micro_batch_size;  /* sequences of that length that one ring computes at once */
  int64_t global_batch_size; /* sequences of that length in a step */
} SequenceStage;

/* The learning rate of a step. It rises linearly to optimizer.learning_rate, which step warmup_steps - 1 has;
 * then stays (constant), falls in a straight line or half a cosine wave (linear, cosine: Loshchilov and
 * Hutter, "SGDR", 2017), or stays and falls in a straight line over the last decay_steps (wsd: Hu et al.,
 * "MiniCPM", 2024). What falls would reach learning_rate x min_lr_ratio at step train.steps. */
double schedule_learning_rate(const Config *config, int64_t step);

/* The stage of a step. */
SequenceStage schedule_stage(const Config *config, int64_t step);

/* Tokens of one step, the same for every step. */
int64_t schedule_step_tokens(const Config *config);

#endif
