/* Training: the life of one rank's trainer and the loop over steps. */
#include "train/trainer.h"

#include "train/batches.h"
#include "train/perplexity.h"

static Status create_models(Trainer *trainer, Error *error) {
  const Config *config = trainer->config;
  const Rank *rank = trainer->rank;
  ModelOptions options = {.config = config->model,
                          .loss_chunk = config->train.loss_chunk,
                          .training = true,
                          .recompute = config->train.recompute};
  TRY(model_create(rank->device, rank->ring, &options, &trainer->model, error));
  TRY(optimizer_create(rank->device, model_table(trainer->model), &config->optimizer, &trainer->optimizer,
                       error));
  TRY(reduction_create(rank->world, model_table(trainer->model), model_gradients(trainer->model),
                       &trainer->reduction, error));
  if (config->eval.every == 0) return STATUS_OK;
  options.weights = model_weights(trainer->model);
  options.training = false;
  options.recompute = false;
  return model_create(rank->device, rank->ring, &options, &trainer->evaluator, error);
}

static void destroy(Trainer *trainer) {
  loader_close(trainer->loader);
  reduction_destroy(&trainer->reduction);
  optimizer_destroy(&trainer->optimizer);
  model_destroy(trainer->evaluator);
  model_destroy(trainer->model);
  run_log_close(trainer->log);
}

static Status evaluate_context(Trainer *trainer, int64_t context, Error *error) {
  const Config *config = trainer->config;
  PerplexityTask task = {.pattern = config->data.val, .context = context, .tokens = config->eval.tokens};
  TRY(batches_end_of_document(config, task.pattern, &task.end_of_document, error));
  Perplexity result;
  TRY(perplexity_run(config, trainer->rank, trainer->evaluator, &task, &result, error));
  const EvalRecord record = {.step = trainer->progress.step,
                             .context = context,
                             .windows = result.windows,
                             .tokens = result.total.tokens,
                             .nll = perplexity_mean(&result.total),
                             .standard_error = perplexity_standard_error(&result.total)};
  return run_log_eval(trainer->log, &record, error);
}

static Status evaluate(Trainer *trainer, Error *error) {
  const IntegerList *contexts = &trainer->config->eval.contexts;
  for (int64_t i = 0; i < contexts->count; i++) TRY(evaluate_context(trainer, contexts->values[i], error));
  return STATUS_OK;
}

static bool due(int64_t every, int64_t step) {
  return every > 0 && step % every == 0;
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

static Status train(Trainer *trainer, Error *error) {
  const Config *config = trainer->config;
  const Progress *progress = &trainer->progress;
  while (progress->step < config->train.steps) {
    TRY(trainer_step(trainer, error));
    const bool last = progress->step == config->train.steps;
    if (config->eval.every > 0 && (last || due(config->eval.every, progress->step)) && !trainer->stopping) {
      TRY(evaluate(trainer, error));
    }
    if (last || trainer->stopping) {
      TRY(trainer_save(trainer, error));
    } else if (due(config->checkpoint.every, progress->step)) {
      TRY(save_and_go_on(trainer, error));
    }
    if (trainer->stopping && !last) {
      return fail(error, STATUS_STOPPED,
                  "stopped by a signal after step %lld of %lld; the same command goes on",
                  (long long)progress->step, (long long)config->train.steps);
    }
  }
  return STATUS_OK;
}

Status trainer_run(Rank *rank, void *start, Error *error) {
  const TrainerStart *given = start;
  Trainer trainer = {.config = given->config, .rank = rank, .stop = given->stop};
  Status status = STATUS_OK;
  TRY_GOTO(batches_end_of_document(given->config, given->config->data.train, &trainer.end_of_document, error),
           done);
  TRY_GOTO(create_models(&trainer, error), done);
  TRY_GOTO(trainer_restore(&trainer, error), done);
  run_log_message(trainer.log, "ring %d x data %d, %s; %lld parameters", rank->ring->size, rank->data_size,
                  rank->device->summary, (long long)model_table(trainer.model)->total);
  status = train(&trainer, error);
done:
  /* The others may still read this rank's gradients and keys. */
  if (status != STATUS_OK && status != STATUS_STOPPED) comm_abort(rank->world, error);
  destroy(&trainer);
  return status;
}
