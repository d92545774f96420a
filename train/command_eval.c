/* ringgpt eval: perplexity of a checkpoint at one or several contexts, in total and by position. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoints/checkpoint.h"
#include "kernels/base/memory.h"
#include "train/agreement.h"
#include "train/batches.h"
#include "train/command_config.h"
#include "train/commands.h"
#include "train/config.h"
#include "train/eval_report.h"
#include "train/eval_watch.h"
#include "train/grid.h"
#include "train/hf_model.h"
#include "train/host_weights.h"
#include "train/memory_check.h"
#include "train/overlap.h"
#include "train/perplexity.h"
#include "train/stop.h"

typedef struct Evaluation {
  const Config *config;
  const char *checkpoint;
  StopWatch *stop;
  /* Written by world rank 0. */
  Perplexity *results; /* (contexts) */
  int64_t finished;    /* of them */
  char place[256];     /* how far it came, where it was stopped */
} Evaluation;

/* The windows of every context, to tasks (contexts): what is too short is found before anything is computed.
 */
static Status plan(const Config *config, PerplexityTask *tasks, Error *error) {
  int32_t end_of_document = -1;
  TRY(batches_end_of_document(config, config->data.val, &end_of_document, error));
  for (int64_t i = 0; i < config->eval.contexts.count; i++) {
    tasks[i] = (PerplexityTask){.pattern = config->data.val, .end_of_document = end_of_document};
    TRY(perplexity_plan(config, config->data.val, config->eval.contexts.values[i], &tasks[i].windows, error));
  }
  return STATUS_OK;
}

/* Evaluates at one context after the other under a watch. */
static Status run_tasks(Rank *rank, Evaluation *evaluation, Model *model, const PerplexityTask *tasks,
                        Error *error) {
  const Config *config = evaluation->config;
  const int64_t count = config->eval.contexts.count;
  const bool first = rank->world->rank == 0;
  double total = 0.0;
  Status status = STATUS_OK;
  EvalWatch watch;
  for (int64_t i = 0; i < count; i++) {
    total += perplexity_work(model, &config->model, &tasks[i].windows, rank->data_size);
  }
  eval_watch_begin(&watch, rank, evaluation->stop, total);
  for (int64_t i = 0; i < count && status == STATUS_OK; i++) {
    Perplexity result;
    PerplexityTask task = tasks[i];
    task.watch = &watch;
    eval_watch_part(&watch, perplexity_work(model, &config->model, &task.windows, rank->data_size));
    status = perplexity_run(config, rank, model, &task, &result, error);
    if (status == STATUS_OK && first) evaluation->results[evaluation->finished++] = result;
  }
  if (first) eval_watch_place(&watch, evaluation->place, sizeof evaluation->place);
  eval_watch_end(&watch);
  return status;
}

/* Says what overlap of the ring's traffic needs here. Collective. */
static Status forecast_overlap(const Config *config, Rank *rank, Error *error) {
  char text[OVERLAP_TEXT_BYTES];
  TRY(overlap_forecast(config, rank, false, text, sizeof text, error));
  if (rank->world->rank == 0) (void)fprintf(stderr, "%s\n", text);
  return STATUS_OK;
}

/* What every rank runs. */
static Status evaluate(Rank *rank, void *context, Error *error) {
  Evaluation *evaluation = context;
  const Config *config = evaluation->config;
  const ModelOptions options = {
      .config = config->model, .loss_chunk = config->train.loss_chunk, .mlp_chunk = config->train.mlp_chunk};
  PerplexityTask tasks[CONFIG_LIST_LENGTH];
  Model *model = NULL;
  Status status = STATUS_OK;
  char warning[1024];
  MemoryPlan memory;
  TRY_GOTO(memory_check(config, rank, false, &memory, error), done);
  TRY_GOTO(hf_model_check(&config->model, evaluation->checkpoint, warning, sizeof warning, error), done);
  if (warning[0] != '\0' && rank->world->rank == 0) (void)fprintf(stderr, "ringgpt: warning: %s\n", warning);
  TRY_GOTO(agreement_data(rank->world, config, config->data.val, error), done);
  TRY_GOTO(plan(config, tasks, error), done);
  /* It takes memory for a moment: before the rest is taken. */
  TRY_GOTO(forecast_overlap(config, rank, error), done);
  TRY_GOTO(model_create(rank->device, rank->ring, &options, &model, error), done);
  for (int64_t i = 0; i < config->eval.contexts.count; i++) {
    const Layout layout = batches_layout(config, config->eval.contexts.values[i], rank->ring->size);
    TRY_GOTO(model_reserve(model, 1, &layout, error), done);
  }
  TRY_GOTO(host_weights_load(evaluation->checkpoint, rank->device, model, rank->world, error), done);
  status = run_tasks(rank, evaluation, model, tasks, error);
done:
  if (status != STATUS_OK) rank_abort(rank, error);
  model_destroy(model);
  return status;
}

/* ---------------------------------------------------------------- the command */

static Status check_config(const CommandLine *line, const Config *config, Error *error) {
  static const char *const of_tasks[] = {"depths", "samples", "local-keys-only", "tokenizer"};
  for (size_t i = 0; i < sizeof of_tasks / sizeof of_tasks[0]; i++) {
    if (command_line_flag(line, of_tasks[i]) == NULL) continue;
    return fail(error, STATUS_USAGE, "--%s is for --task", of_tasks[i]);
  }
  if (config->data.val[0] == '\0') {
    return fail(error, STATUS_CONFIG, "%s: data.val names no shards to evaluate on", line->arguments[0]);
  }
  const char *picture = command_line_flag(line, "plot");
  return picture == NULL ? STATUS_OK : eval_report_check_plot(picture, error);
}

/* What is known of the contexts that were finished, to everywhere it is asked for. */
static Status report(const CommandLine *line, const Evaluation *evaluation, Error *error) {
  const EvalReport results = {.config = evaluation->config,
                              .checkpoint = evaluation->checkpoint,
                              .results = evaluation->results,
                              .count = evaluation->finished,
                              .complete = evaluation->finished == evaluation->config->eval.contexts.count};
  const char *json = command_line_flag(line, "json");
  const char *picture = command_line_flag(line, "plot");
  eval_report_print(&results);
  if (picture != NULL) eval_report_plot(&results, picture);
  return json == NULL ? STATUS_OK : eval_report_json(&results, json, error);
}

static Status run(const CommandLine *line, Evaluation *evaluation, Error *error) {
  const Status status = grid_run(evaluation->config, line->processes, evaluate, evaluation, error);
  if (status != STATUS_OK && status != STATUS_STOPPED) return status;
  /* The results are rank 0's. */
  if (line->processes != NULL && line->processes->rank != 0) return status;
  TRY(report(line, evaluation, error));
  if (status == STATUS_OK) return STATUS_OK;
  return eval_watch_stopped(evaluation->place, evaluation->finished, evaluation->config->eval.contexts.count,
                            error);
}

Status command_eval(const CommandLine *line, Error *error) {
  Config config;
  void *memory = NULL;
  Status status = STATUS_OK;
  TRY(command_config_load(line, &config, error));
  if (command_line_flag(line, "task") != NULL) return command_eval_task(line, &config, error);
  TRY(check_config(line, &config, error));
  TRY(memory_alloc((size_t)config.eval.contexts.count, sizeof(Perplexity), "results", &memory, error));
  Evaluation evaluation = {
      .config = &config, .checkpoint = command_line_flag(line, "checkpoint"), .results = memory};
  TRY_GOTO(stop_watch_start(&evaluation.stop, error), done);
  status = run(line, &evaluation, error);
  /* As in training, a signal that comes again must not change the exit code of what has stopped. */
  if (status != STATUS_STOPPED) stop_watch_end(evaluation.stop);
done:
  free(memory);
  return status;
}
