/* Training: the life of one rank's trainer and the loop over steps. */
#include "train/trainer.h"

#include <string.h>

#include "train/agreement.h"
#include "train/batches.h"
#include "train/memory_check.h"
#include "train/memory_reserve.h"
#include "train/memory_table.h"
#include "train/overlap.h"
#include "train/perplexity.h"

static Status create_models(Trainer *trainer, Error *error) {
  const Config *config = trainer->config;
  const Rank *rank = trainer->rank;
  ModelOptions options = {.config = config->model,
                          .loss_chunk = config->train.loss_chunk,
                          .mlp_chunk = config->train.mlp_chunk,
                          .training = true,
                          .recompute = config->train.recompute,
                          .dropout = config->train.dropout,
                          .seed = (uint64_t)config->run.seed};
  TRY(model_create(rank->device, rank->ring, &options, &trainer->model, error));
  const TensorTable *table = model_table(trainer->model);
  TRY(sharding_create(rank->world, table, model_weights(trainer->model), rank->device->ops.elem_size,
                      model_gradients(trainer->model), &trainer->sharding, error));
  TRY(optimizer_create(rank->device, table, &trainer->sharding, &config->optimizer, &trainer->optimizer,
                       error));
  if (config->eval.every == 0) return STATUS_OK;
  options.weights = model_weights(trainer->model);
  options.arena = model_arena(trainer->model);
  options.training = false;
  options.recompute = false;
  options.dropout = 0.0;
  return model_create(rank->device, rank->ring, &options, &trainer->evaluator, error);
}

static void destroy(Trainer *trainer) {
  loader_close(trainer->loader);
  tokenizer_files_free(&trainer->tokenizer);
  optimizer_destroy(&trainer->optimizer);
  sharding_destroy(&trainer->sharding);
  model_destroy(trainer->evaluator);
  model_destroy(trainer->model);
  run_log_close(trainer->log);
}

void trainer_unrecorded(Trainer *trainer, const Error *error) {
  run_log_message(trainer->log, "warning: a record of step %lld is lost: %s",
                  (long long)trainer->progress.step, error->text);
}

/* ---------------------------------------------------------------- before the first step */

/* What would end the run later, or let it go wrong, is found now: shards that are not the same for all ranks,
 * or too short for a stage of the schedule or for a context. Collective. */
static Status check_data(Comm *world, const Config *config, Error *error) {
  const bool shards = config->data.generate == GENERATE_NONE;
  if (shards) TRY(agreement_data(world, config, config->data.train, error));
  if (config->eval.every > 0) TRY(agreement_data(world, config, config->data.val, error));
  if (shards) TRY(batches_check_length(config, config->data.train, config->train.sequence_length, error));
  for (int64_t i = 0; config->eval.every > 0 && i < config->eval.contexts.count; i++) {
    TRY(batches_check_length(config, config->data.val, config->eval.contexts.values[i], error));
  }
  return STATUS_OK;
}

/* ---------------------------------------------------------------- evaluation */

static Status evaluate_context(Trainer *trainer, int64_t context, Error *error) {
  const Config *config = trainer->config;
  PerplexityTask task = {.pattern = config->data.val, .memory = trainer->places.evaluation};
  TRY(perplexity_plan(config, task.pattern, context, &task.windows, error));
  TRY(batches_end_of_document(config, task.pattern, &task.end_of_document, error));
  Perplexity result;
  TRY(perplexity_run(config, trainer->rank, trainer->evaluator, &task, &result, error));
  const EvalRecord record = {
      .step = trainer->progress.step,
      .context = context,
      .mode = result.windows.mode == EVAL_FULL ? NULL : windows_mode_name(result.windows.mode),
      .windows = result.windows.count,
      .tokens = result.total.tokens,
      .nll = perplexity_mean(&result.total),
      .standard_error = perplexity_standard_error(&result.total)};
  Error unrecorded = {0};
  if (run_log_eval(trainer->log, &record, &unrecorded) != STATUS_OK) trainer_unrecorded(trainer, &unrecorded);
  return STATUS_OK;
}

/* Evaluates at the contexts from number `first` on; a signal ends it behind the context at hand. */
static Status evaluate(Trainer *trainer, int64_t first, Error *error) {
  const IntegerList *contexts = &trainer->config->eval.contexts;
  for (int64_t i = first; i < contexts->count && !trainer->stopping; i++) {
    TRY(evaluate_context(trainer, contexts->values[i], error));
    int64_t stops = stop_requested(trainer->stop) ? 1 : 0;
    TRY(comm_all_reduce(trainer->rank->world, COMM_I64, COMM_MAX, &stops, 1, error));
    trainer->stopping = stops > 0 && i + 1 < contexts->count;
  }
  return STATUS_OK;
}

/* ---------------------------------------------------------------- the loop */

static bool due(int64_t every, int64_t step) {
  return every > 0 && step % every == 0;
}

static bool evaluation_due(const Trainer *trainer) {
  const int64_t every = trainer->config->eval.every;
  const int64_t step = trainer->progress.step;
  return due(every, step) || (every > 0 && step == trainer->config->train.steps);
}

/* A save in the middle of a run that the file system refuses is not the end of it: the state is in memory,
 * the checkpoints before are whole, and the next save may succeed. */
static Status save_and_go_on(Trainer *trainer, Error *error) {
  Error refused = {0};
  const Status status = trainer_save(trainer, &refused);
  if (status == STATUS_OK) return STATUS_OK;
  if (status != STATUS_IO) return fail(error, status, "%s", refused.text);
  run_log_message(trainer->log, "warning: no checkpoint of step %lld, training goes on: %s",
                  (long long)trainer->progress.step, refused.text);
  return STATUS_OK;
}

static Status stopped(const Trainer *trainer, Error *error) {
  const bool automatic = strcmp(trainer->config->checkpoint.resume, "auto") == 0;
  return fail(error, STATUS_STOPPED,
              "stopped by a signal after step %lld of %lld; the same command goes on%s",
              (long long)trainer->progress.step, (long long)trainer->config->train.steps,
              automatic ? "" : " with checkpoint.resume=auto");
}

/* Saves and evaluates behind a step, in this order: an evaluation that fails costs nothing. */
static Status finish_step(Trainer *trainer, Error *error) {
  const Config *config = trainer->config;
  const int64_t step = trainer->progress.step;
  const bool last = step == config->train.steps;
  const bool save = last || trainer->stopping;
  if (save || due(config->checkpoint.every, step) || evaluation_due(trainer)) {
    TRY(sharding_finish_weights(&trainer->sharding, error));
  }
  if (save) {
    TRY(trainer_save(trainer, error));
  } else if (due(config->checkpoint.every, step)) {
    TRY(save_and_go_on(trainer, error));
  }
  if (!evaluation_due(trainer)) return last || !trainer->stopping ? STATUS_OK : stopped(trainer, error);
  if (trainer->stopping) return stopped(trainer, error);
  TRY(evaluate(trainer, 0, error));
  if (!trainer->stopping) return STATUS_OK;
  if (!save) TRY(trainer_save(trainer, error));
  return stopped(trainer, error);
}

static Status train(Trainer *trainer, Error *error) {
  /* An evaluation that a stop cut off is made up for. */
  if (trainer->progress.step > 0 && evaluation_due(trainer)) {
    TRY(evaluate(trainer, trainer->evaluated, error));
    if (trainer->stopping) return stopped(trainer, error);
  }
  while (trainer->progress.step < trainer->config->train.steps) {
    TRY(trainer_enter_stage(trainer, error));
    TRY(trainer_step(trainer, error));
    TRY(finish_step(trainer, error));
  }
  return STATUS_OK;
}

/* Says what trains what, and what each rank keeps besides the activations. */
static void report(const Trainer *trainer) {
  const Rank *rank = trainer->rank;
  char memory[400];
  if (rank->device_note[0] != '\0') run_log_message(trainer->log, "%s", rank->device_note);
  run_log_message(trainer->log, "ring %d x data %d over %s, %s%s; %lld parameters", rank->ring->size,
                  rank->data_size, rank->movers, rank->device->summary,
                  rank->crowded ? " on cores shared with other ranks" : "",
                  (long long)model_table(trainer->model)->total);
  memory_table_line(&trainer->memory, memory, sizeof memory);
  run_log_message(trainer->log, "%s", memory);
}

/* Says what this rank has handed to others. */
static void report_sent(const Trainer *trainer) {
  int64_t bytes[COMM_LABELS];
  for (int i = 0; i < COMM_LABELS; i++) {
    bytes[i] = trainer->rank->world->counters[i].bytes + trainer->rank->ring->counters[i].bytes;
  }
  run_log_message(
      trainer->log,
      "rank 0 sent: keys and values %lld bytes, their gradients %lld bytes, gradients %lld bytes, "
      "weights %lld bytes, other %lld bytes",
      (long long)bytes[COMM_KEYS_VALUES], (long long)bytes[COMM_KEY_VALUE_GRADIENTS],
      (long long)bytes[COMM_GRADIENTS], (long long)bytes[COMM_WEIGHTS], (long long)bytes[COMM_CONTROL]);
}

Status trainer_run(Rank *rank, void *start, Error *error) {
  const TrainerStart *given = start;
  Trainer trainer = {.config = given->config, .rank = rank, .stop = given->stop};
  char overlap[OVERLAP_TEXT_BYTES];
  Status status = STATUS_OK;
  TRY_GOTO(batches_end_of_document(given->config, given->config->data.train, &trainer.end_of_document, error),
           done);
  TRY_GOTO(check_data(rank->world, given->config, error), done);
  TRY_GOTO(memory_check(given->config, rank, MEMORY_TRAINING, &trainer.memory, error), done);
  /* It takes memory for a moment: before the rest is taken. */
  TRY_GOTO(overlap_forecast(given->config, rank, true, overlap, sizeof overlap, error), done);
  TRY_GOTO(create_models(&trainer, error), done);
  TRY_GOTO(trainer_restore(&trainer, error), done);
  TRY_GOTO(memory_reserve(given->config, &trainer.memory, rank, trainer.model, trainer.evaluator,
                          &trainer.places, error),
           done);
  report(&trainer);
  run_log_message(trainer.log, "%s", overlap);
  status = train(&trainer, error);
  if (status == STATUS_OK || status == STATUS_STOPPED) report_sent(&trainer);
done:
  /* The others may still read this rank's gradients and keys. */
  if (status != STATUS_OK && status != STATUS_STOPPED) rank_abort(rank, error);
  destroy(&trainer);
  return status;
}
