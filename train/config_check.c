/* What options demand of each other. Each message names the options, their values and the way out. */
#include "train/config.h"

#include <inttypes.h>
#include <stddef.h>

#include "data/recall.h"

/* Learned positions end somewhere: no sequence may be longer. Dynamic scaling begins there. */
static Status check_positions(const Config *config, const char *source, Error *error) {
  const int64_t positions = config->model.max_position_embeddings;
  if (config->model.rope_scaling.rope_type == ROPE_DYNAMIC && positions == 0)
    return fail(
        error, STATUS_CONFIG,
        "%s: model.rope_scaling.rope_type: dynamic scales beyond the length that the model was trained "
        "for, model.max_position_embeddings: set it",
        source);
  if (config->model.position != POSITION_LEARNED) return STATUS_OK;
  if (config->train.sequence_length > positions)
    return fail(error, STATUS_CONFIG,
                "%s: train.sequence_length (%" PRId64
                ") is beyond the learned positions, model.max_position_embeddings (%" PRId64 ")",
                source, config->train.sequence_length, positions);
  for (int64_t i = 0; i < config->eval.contexts.count; i++)
    if (config->eval.contexts.values[i] > positions)
      return fail(error, STATUS_CONFIG,
                  "%s: eval.contexts has %" PRId64
                  ", beyond the learned positions, model.max_position_embeddings (%" PRId64 ")",
                  source, config->eval.contexts.values[i], positions);
  return STATUS_OK;
}

/* Generated sequences: what they need of the vocabulary and of the lengths, and what belongs to shards. */
static Status check_generated(const Config *config, const char *source, Error *error) {
  const DataConfig *data = &config->data;
  const SequenceSchedule *schedule = &config->train.sequence_schedule;
  int64_t shortest = config->train.sequence_length;
  for (int64_t i = 0; i < schedule->count; i++)
    if (schedule->lengths[i] < shortest) shortest = schedule->lengths[i];
  if (*data->train)
    return fail(
        error, STATUS_CONFIG,
        "%s: data.generate is mqar, so that no shards are read: leave out data.train, or data.generate",
        source);
  if (data->document_mask)
    return fail(error, STATUS_CONFIG,
                "%s: data.document_mask is for shards; data.generate: mqar has no documents", source);
  if (data->mqar_pairs > recall_keys(config->model.vocab_size))
    return fail(error, STATUS_CONFIG,
                "%s: data.mqar_pairs (%" PRId64
                ") must be at most the keys, half of model.vocab_size (%" PRId64 ") less one for filler",
                source, data->mqar_pairs, config->model.vocab_size);
  if (shortest < RECALL_LEAST_LENGTH)
    return fail(error, STATUS_CONFIG,
                "%s: data.generate: mqar needs sequences of at least %d tokens, not %" PRId64, source,
                RECALL_LEAST_LENGTH, shortest);
  return STATUS_OK;
}

static Status check_data(const Config *config, const char *source, Error *error) {
  if (config->data.generate == GENERATE_MQAR) TRY(check_generated(config, source, error));
  if (!*config->data.train && config->data.generate == GENERATE_NONE)
    return fail(error, STATUS_CONFIG,
                "%s: data.train is missing; name the shards that 'ringgpt prepare' wrote", source);
  if (config->data.end_of_document >= config->model.vocab_size)
    return fail(error, STATUS_CONFIG,
                "%s: data.end_of_document (%" PRId64 ") must be below model.vocab_size (%" PRId64 ")", source,
                config->data.end_of_document, config->model.vocab_size);
  if (config->eval.every > 0 && !*config->data.val)
    return fail(error, STATUS_CONFIG, "%s: eval.every is %" PRId64 ", but data.val names no shards", source,
                config->eval.every);
  return STATUS_OK;
}

/* A window scores a token at least, and none is passed over. */
static Status check_windows(const Config *config, const char *source, Error *error) {
  const EvalConfig *eval = &config->eval;
  if (eval->mode != EVAL_STRIDED && eval->stride > 0)
    return fail(error, STATUS_CONFIG, "%s: eval.stride is for eval.mode: strided alone", source);
  for (int64_t i = 0; i < eval->contexts.count; i++) {
    const int64_t context = eval->contexts.values[i];
    const int64_t smallest = eval->mode == EVAL_FULL ? 1 : eval->mode == EVAL_STRIDED ? 2 : 3;
    if (eval->stride > context)
      return fail(error, STATUS_CONFIG,
                  "%s: eval.stride (%" PRId64 ") is more than the context of %" PRId64
                  ": tokens between two windows would not be scored",
                  source, eval->stride, context);
    if (context < smallest)
      return fail(error, STATUS_CONFIG,
                  "%s: eval.contexts has %" PRId64 ", but this eval.mode scores nothing in less than %" PRId64
                  " tokens",
                  source, context, smallest);
  }
  return STATUS_OK;
}

static Status check_batches(const Config *config, const char *source, Error *error) {
  const TrainConfig *train = &config->train;
  const int64_t at_once = train->micro_batch_size * config->parallelism.data;
  if (train->global_batch_size % at_once != 0)
    return fail(error, STATUS_CONFIG,
                "%s: train.global_batch_size (%" PRId64
                ") must be a multiple of train.micro_batch_size (%" PRId64 ") x parallelism.data (%" PRId64
                ")",
                source, train->global_batch_size, train->micro_batch_size, config->parallelism.data);
  int64_t tokens;
  if (__builtin_mul_overflow(train->global_batch_size, train->sequence_length, &tokens) ||
      __builtin_mul_overflow(tokens, train->steps, &tokens))
    return fail(error, STATUS_CONFIG,
                "%s: train.steps x train.global_batch_size x train.sequence_length is more than 2^63 tokens",
                source);
  return STATUS_OK;
}

static Status check_sequence_schedule(const TrainConfig *train, const char *source, Error *error) {
  const SequenceSchedule *schedule = &train->sequence_schedule;
  for (int64_t i = 0; i < schedule->count; i++) {
    const int64_t length = schedule->lengths[i];
    if (i == 0 && schedule->first_steps[0] != 0)
      return fail(error, STATUS_CONFIG, "%s: train.sequence_schedule must begin with step 0, not %" PRId64,
                  source, schedule->first_steps[0]);
    if (i > 0 && schedule->first_steps[i] <= schedule->first_steps[i - 1])
      return fail(error, STATUS_CONFIG,
                  "%s: train.sequence_schedule has step %" PRId64 " after step %" PRId64
                  "; list the steps in ascending order",
                  source, schedule->first_steps[i], schedule->first_steps[i - 1]);
    if (length < 1 || train->sequence_length % length != 0)
      return fail(error, STATUS_CONFIG,
                  "%s: train.sequence_schedule has length %" PRId64
                  ", which does not divide train.sequence_length (%" PRId64 ")",
                  source, length, train->sequence_length);
  }
  return STATUS_OK;
}

static Status check_scheduler(const Config *config, const char *source, Error *error) {
  const SchedulerConfig *scheduler = &config->scheduler;
  const int64_t steps = config->train.steps;
  if (scheduler->warmup_steps > steps)
    return fail(error, STATUS_CONFIG,
                "%s: scheduler.warmup_steps (%" PRId64 ") must be at most train.steps (%" PRId64 ")", source,
                scheduler->warmup_steps, steps);
  if (scheduler->name != SCHEDULER_WSD && scheduler->decay_steps != 0)
    return fail(error, STATUS_CONFIG, "%s: scheduler.decay_steps is for scheduler.name: wsd; leave it out",
                source);
  if (scheduler->decay_steps > steps - scheduler->warmup_steps)
    return fail(error, STATUS_CONFIG,
                "%s: scheduler.warmup_steps (%" PRId64 ") and scheduler.decay_steps (%" PRId64
                ") together must be at most train.steps (%" PRId64 ")",
                source, scheduler->warmup_steps, scheduler->decay_steps, steps);
  return STATUS_OK;
}

static Status check_grid(const ParallelismConfig *grid, const char *source, Error *error) {
  enum { MOST_RANKS = 65536 };
  if (grid->ring * grid->data <= MOST_RANKS) return STATUS_OK;
  return fail(error, STATUS_CONFIG,
              "%s: parallelism.ring (%" PRId64 ") x parallelism.data (%" PRId64 ") is more than %d ranks",
              source, grid->ring, grid->data, MOST_RANKS);
}

Status config_check(const Config *config, const char *source, Error *error) {
  TRY(model_config_check(&config->model, source, "model.", error));
  TRY(check_positions(config, source, error));
  TRY(check_data(config, source, error));
  TRY(check_windows(config, source, error));
  TRY(check_batches(config, source, error));
  TRY(check_sequence_schedule(&config->train, source, error));
  TRY(check_grid(&config->parallelism, source, error));
  return check_scheduler(config, source, error);
}

Status config_check_world(const Config *config, int64_t world, Error *error) {
  if (config_ranks(config) == world) return STATUS_OK;
  return fail(error, STATUS_CONFIG,
              "parallelism.ring (%" PRId64 ") x parallelism.data (%" PRId64 ") needs %" PRId64
              " ranks, but %" PRId64 " were started",
              config->parallelism.ring, config->parallelism.data, config_ranks(config), world);
}
