/* The learning rate and the sequence length of a step. */
#include "train/schedule.h"

#include <math.h>

/* How far step is on the way from `begin` to `end`, in [0, 1]. */
static double progress(int64_t step, int64_t begin, int64_t end) {
  if (step >= end) return 1;
  if (step <= begin) return 0;
  return (double)(step - begin) / (double)(end - begin);
}

double schedule_learning_rate(const Config *config, int64_t step) {
  const SchedulerConfig *scheduler = &config->scheduler;
  const double peak = config->optimizer.learning_rate;
  const int64_t warmup = scheduler->warmup_steps, steps = config->train.steps;
  if (step < warmup) return peak * (double)(step + 1) / (double)warmup;
  double fall = 0; /* from 0, the peak, to 1, the minimum */
  switch (scheduler->name) {
  case SCHEDULER_CONSTANT:
    break;
  case SCHEDULER_LINEAR:
    fall = progress(step, warmup, steps);
    break;
  case SCHEDULER_COSINE:
    fall = 0.5 * (1 - cos(M_PI * progress(step, warmup, steps)));
    break;
  case SCHEDULER_WSD:
    fall = progress(step, steps - scheduler->decay_steps, steps);
    break;
  }
  return peak * (1 - fall * (1 - scheduler->min_lr_ratio));
}

SequenceStage schedule_stage(const Config *config, int64_t step) {
  const TrainConfig *train = &config->train;
  const SequenceSchedule *schedule = &train->sequence_schedule;
  SequenceStage stage = {.end_step = train->steps, .sequence_length = train->sequence_length};
  for (int64_t i = 0; i < schedule->count; i++) {
    if (schedule->first_steps[i] > step) {
      if (schedule->first_steps[i] < stage.end_step) stage.end_step = schedule->first_steps[i];
      break;
    }
    stage.index = i;
    stage.first_step = schedule->first_steps[i];
    stage.sequence_length = schedule->lengths[i];
  }
  const int64_t factor = train->sequence_length / stage.sequence_length;
  stage.micro_batch_size = train->micro_batch_size * factor;
  stage.global_batch_size = train->global_batch_size * factor;
  return stage;
}

int64_t schedule_step_tokens(const Config *config) {
  return config->train.global_batch_size * config->train.sequence_length;
}
