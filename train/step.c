/* One training step: batches, gradients, their sum over all ranks, clipping, update, record. */
#include <math.h>

#include "kernels/base/clock.h"
#include "train/batches.h"
#include "train/trainer.h"

/* What a step adds up over all ranks. */
typedef struct StepSums {
  double nll;
  double targets;
  double squares; /* of the gradients, each parameter once */
  double stops;   /* ranks that saw a signal */
  double balance; /* attention of the rank that has most of it in its ring, over the mean */
} StepSums;

static Status open_loader(Trainer *trainer, const SequenceStage *stage, Error *error) {
  const Config *config = trainer->config;
  LoaderOptions options = {
      .pattern = config->data.train,
      .vocab_size = config->model.vocab_size,
      .end_of_document = trainer->end_of_document,
      .documents = config->data.document_mask,
      .window = config->model.sliding_window,
      .sequence_length = stage->sequence_length,
      .micro_batch = stage->micro_batch_size,
      .ring_rank = trainer->rank->ring->rank,
      .ring_size = trainer->rank->ring->size,
      .data_rank = trainer->rank->data_rank,
      .data_size = trainer->rank->data_size,
      /* Tokens of a step are the same in every stage, so this divides without a rest unless a resumed run was
       * given other lengths; then it goes on with the sequence that holds the next token. */
      .first_sample = trainer->progress.tokens / stage->sequence_length,
      .shuffle = config->data.shuffle,
      .seed = (uint64_t)config->run.seed,
      .read_ahead = (int)config->data.read_ahead,
      .memory = trainer->places.loader,
  };
  if (config->data.generate == GENERATE_MQAR) options.recall = batches_recall(config);
  loader_close(trainer->loader);
  trainer->loader = NULL;
  TRY(loader_open(&options, &trainer->loader, error));
  trainer->stage = *stage;
  return STATUS_OK;
}

Status trainer_enter_stage(Trainer *trainer, Error *error) {
  const SequenceStage stage = schedule_stage(trainer->config, trainer->progress.step);
  if (trainer->loader != NULL && stage.index == trainer->stage.index) return STATUS_OK;
  return open_loader(trainer, &stage, error);
}

static Status run_micro_batch(Trainer *trainer, bool last, Balance *balance, Error *error) {
  const ModelListener listener = sharding_listener(&trainer->sharding, last);
  const Batch *batch = NULL;
  TRY(loader_next(trainer->loader, &batch, error));
  ModelBatch model_batch;
  Documents documents;
  batches_to_model(trainer->config, batch, &documents, &model_batch);
  balance->pairs += batch->balance.pairs;
  balance->largest += batch->balance.largest;
  return model_forward_backward(trainer->model, &model_batch, &listener, error);
}

/* Gradients of the whole step, summed over all ranks, and the sums of the loss. */
static Status accumulate(Trainer *trainer, StepSums *sums, Error *error) {
  const SequenceStage *stage = &trainer->stage;
  const int64_t micro_batches =
      stage->global_batch_size / (stage->micro_batch_size * trainer->rank->data_size);
  const size_t bytes = (size_t)model_table(trainer->model)->total * sizeof(float);
  LossSum loss = {0};
  Balance balance = {0};
  device_zero(trainer->rank->device, model_gradients(trainer->model), bytes);
  for (int64_t i = 0; i < micro_batches; i++) {
    TRY(run_micro_batch(trainer, i + 1 == micro_batches, &balance, error));
  }
  TRY(sharding_finish_gradients(&trainer->sharding, error));
  /* The one place in a step where a device that works on its own is waited for. */
  const double squares = optimizer_sum_of_squares(&trainer->optimizer, model_gradients(trainer->model));
  TRY(model_take_loss(trainer->model, &loss, error));
  trainer->rank->world->waits.exposed += device_waited(trainer->rank->device);
  double values[6] = {loss.nll,
                      (double)loss.targets,
                      squares,
                      stop_requested(trainer->stop) ? 1.0 : 0.0,
                      (double)balance.largest * trainer->rank->ring->size,
                      (double)balance.pairs};
  TRY(comm_all_reduce(trainer->rank->world, COMM_F64, COMM_SUM, values, 6, error));
  *sums = (StepSums){.nll = values[0],
                     .targets = values[1],
                     .squares = values[2],
                     .stops = values[3],
                     .balance = values[4] / values[5]};
  return STATUS_OK;
}

/* Updates the weights unless the loss or the gradient is not finite, and sets *skipped then. All ranks see
 * the same reduced numbers, so they decide alike. The new weights are on their way when it returns. */
static Status update(Trainer *trainer, double loss, OptimizerStep *step, bool *skipped, Error *error) {
  Progress *progress = &trainer->progress;
  *skipped = !isfinite(loss) || !isfinite(step->grad_norm);
  if (*skipped) {
    progress->skipped += 1;
    progress->skipped_in_a_row += 1;
    return STATUS_OK;
  }
  progress->skipped_in_a_row = 0;
  step->number = progress->step - progress->skipped + 1;
  for (int64_t group = 0; group < trainer->sharding.groups; group++) {
    optimizer_update_group(&trainer->optimizer, step, group, model_gradients(trainer->model),
                           model_weights(trainer->model));
    TRY(sharding_start_weights(&trainer->sharding, group, error));
  }
  return STATUS_OK;
}

/* What this rank has spent in communication so far, in all groups. */
static CommWaits waits(const Trainer *trainer) {
  const CommWaits *world = &trainer->rank->world->waits;
  const CommWaits *ring = &trainer->rank->ring->waits;
  return (CommWaits){.exposed = world->exposed + ring->exposed, .skew = world->skew + ring->skew};
}

Status trainer_step(Trainer *trainer, Error *error) {
  Progress *progress = &trainer->progress;
  const double begin = clock_seconds();
  const CommWaits before = waits(trainer);
  (void)device_waited(trainer->rank->device); /* in evaluations and savings since the last step */
  StepSums sums;
  TRY(accumulate(trainer, &sums, error));
  const double scale = 1.0 / sums.targets;
  OptimizerStep update_step = {.learning_rate = schedule_learning_rate(trainer->config, progress->step),
                               .gradient_scale = scale,
                               .grad_norm = sqrt(sums.squares) * scale};
  bool skipped = false;
  TRY(update(trainer, sums.nll * scale, &update_step, &skipped, error));
  TRY(device_check(trainer->rank->device, error));
  progress->step += 1;
  progress->tokens += schedule_step_tokens(trainer->config);
  trainer->stopping = sums.stops > 0.0;
  const double seconds = clock_seconds() - begin;
  const double tokens = (double)schedule_step_tokens(trainer->config);
  const CommWaits after = waits(trainer);
  const StepRecord step = {
      .step = progress->step,
      .loss = sums.nll * scale,
      .learning_rate = update_step.learning_rate,
      .grad_norm = update_step.grad_norm,
      .tokens = progress->tokens,
      .sequence_length = trainer->stage.sequence_length,
      .tokens_per_second = tokens / seconds,
      .step_ms = 1e3 * seconds,
      .exposed_comm_ms = 1e3 * (after.exposed - before.exposed),
      .skew_ms = 1e3 * (after.skew - before.skew),
      .skipped = skipped,
      .balance = sums.balance,
  };
  Error unrecorded = {0};
  if (run_log_step(trainer->log, &step, &unrecorded) != STATUS_OK) trainer_unrecorded(trainer, &unrecorded);
  if (progress->skipped_in_a_row < TRAINER_MOST_SKIPS) return STATUS_OK;
  return fail(error, STATUS_CONFIG,
              "the loss or its gradient was not finite in %d steps in a row, up to step %lld: lower "
              "optimizer.learning_rate or set optimizer.clip_grad, and resume from the last checkpoint",
              TRAINER_MOST_SKIPS, (long long)progress->step);
}
