/* What all that `ringgpt eval` measures has in common: see the header. */
#include "train/eval_run.h"

#include <stdio.h>

#include "train/hf_model.h"
#include "train/host_weights.h"
#include "train/memory_check.h"
#include "train/memory_reserve.h"
#include "train/overlap.h"

/* Checks what can be wrong before anything large is taken. */
static Status check(const EvalRun *run, Rank *rank, MemoryPlan *memory, Error *error) {
  char warning[1024];
  TRY(memory_check(run->config, rank, run->tasks ? MEMORY_TASKS : MEMORY_EVALUATION, memory, error));
  TRY(hf_model_check(&run->config->model, run->checkpoint, warning, sizeof warning, error));
  if (warning[0] != '\0' && rank->world->rank == 0) (void)fprintf(stderr, "ringgpt: warning: %s\n", warning);
  return run->measure->check(run->context, rank, error);
}

/* Says what overlap of the ring's traffic needs here. It takes memory for a moment: before the rest is taken.
 */
static Status forecast_overlap(const EvalRun *run, Rank *rank, Error *error) {
  char text[OVERLAP_TEXT_BYTES];
  TRY(overlap_forecast(run->config, rank, false, text, sizeof text, error));
  if (rank->world->rank == 0) (void)fprintf(stderr, "%s\n", text);
  return STATUS_OK;
}

static Status load(const EvalRun *run, const MemoryPlan *memory, EvalPlace *place, Error *error) {
  Rank *rank = place->rank;
  MemoryPlaces places;
  const Config *config = run->config;
  const ModelOptions options = {.config = config->model,
                                .loss_chunk = config->train.loss_chunk,
                                .mlp_chunk = config->train.mlp_chunk,
                                .local_keys = run->local_keys};
  TRY(model_create(rank->device, rank->ring, &options, &place->model, error));
  TRY(host_weights_load(run->checkpoint, rank->device, place->model, rank->world, error));
  /* After what the weights take on their way. */
  TRY(memory_reserve(config, memory, rank, NULL, place->model, &places, error));
  place->memory = places.evaluation;
  return STATUS_OK;
}

/* One context after the other. */
static Status compute(EvalRun *run, EvalPlace *place, Error *error) {
  const int64_t count = run->config->eval.contexts.count;
  Rank *rank = place->rank;
  const bool first = rank->world->rank == 0;
  double total = 0.0;
  Status status = STATUS_OK;
  for (int64_t i = 0; i < count; i++) total += run->measure->work(run->context, rank, place->model, i);
  eval_watch_begin(&place->watch, rank, run->stop, total);
  for (int64_t i = 0; i < count && status == STATUS_OK; i++) {
    eval_watch_part(&place->watch, run->measure->work(run->context, rank, place->model, i));
    status = run->measure->compute(run->context, place, i, error);
    if (status == STATUS_OK && first) run->finished += 1;
  }
  if (first) eval_watch_place(&place->watch, run->place, sizeof run->place);
  eval_watch_end(&place->watch);
  return status;
}

static Status run_rank(Rank *rank, void *context, Error *error) {
  EvalRun *run = context;
  EvalPlace place = {.rank = rank};
  MemoryPlan memory;
  Status status = STATUS_OK;
  TRY_GOTO(check(run, rank, &memory, error), done);
  TRY_GOTO(forecast_overlap(run, rank, error), done);
  TRY_GOTO(load(run, &memory, &place, error), done);
  status = compute(run, &place, error);
done:
  if (status != STATUS_OK) rank_abort(rank, error);
  model_destroy(place.model);
  return status;
}

static Status run_and_report(EvalRun *run, const CommandLine *line, Error *error) {
  const Status status = grid_run(run->config, line->processes, run_rank, run, error);
  if (status != STATUS_OK && status != STATUS_STOPPED) return status;
  /* The results are rank 0's. */
  if (line->processes != NULL && line->processes->rank != 0) return status;
  TRY(run->measure->report(run->context, line, run->finished, error));
  if (status == STATUS_OK) return STATUS_OK;
  return eval_watch_stopped(run->place, run->finished, run->config->eval.contexts.count, error);
}

Status eval_run(EvalRun *run, const CommandLine *line, Error *error) {
  TRY(stop_watch_start(&run->stop, error));
  const Status status = run_and_report(run, line, error);
  /* As in training, a signal that comes again must not change the exit code of what has stopped. */
  if (status != STATUS_STOPPED) stop_watch_end(run->stop);
  return status;
}
