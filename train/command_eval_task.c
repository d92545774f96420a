/* ringgpt eval --task: how much of what is hidden in its context a checkpoint finds, at one or several
 * contexts. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/memory.h"
#include "train/agreement.h"
#include "train/commands.h"
#include "train/eval_report.h"
#include "train/eval_watch.h"
#include "train/grid.h"
#include "train/hf_model.h"
#include "train/host_weights.h"
#include "train/memory_check.h"
#include "train/stop.h"
#include "train/task_report.h"
#include "train/tasks.h"
#include "train/tokenizer_files.h"

#define DEFAULT_DEPTHS 5
#define DEFAULT_SAMPLES 4
#define MOST_SAMPLES 1000000

typedef struct Evaluation {
  const Config *config;
  const char *checkpoint;
  TaskOptions options;
  bool local_keys;
  StopWatch *stop;
  /* Written by world rank 0. */
  TaskResult *results; /* (contexts) */
  int64_t finished;    /* of them */
  char place[256];     /* how far it came, where it was stopped */
} Evaluation;

/* ---------------------------------------------------------------- flags */

static Status read_kind(const CommandLine *line, TaskKind *kind, Error *error) {
  const char *name = command_line_flag(line, "task");
  for (*kind = TASK_NEEDLE; *kind < TASK_KINDS; (*kind)++) {
    if (strcmp(name, task_name(*kind)) == 0) return STATUS_OK;
  }
  return fail(error, STATUS_USAGE, "--task is '%.60s'; it must be needle, passkey or mqar", name);
}

static Status read_flags(const CommandLine *line, TaskOptions *options, Error *error) {
  const char *depths = command_line_flag(line, "depths");
  const char *samples = command_line_flag(line, "samples");
  const char *tokenizer = command_line_flag(line, "tokenizer");
  const char *plot = command_line_flag(line, "plot");
  options->depths = DEFAULT_DEPTHS;
  options->samples = DEFAULT_SAMPLES;
  TRY(read_kind(line, &options->kind, error));
  if (options->kind == TASK_MQAR && (depths != NULL || tokenizer != NULL))
    return fail(error, STATUS_USAGE, "%s is for --task needle and passkey, not for mqar",
                depths != NULL ? "--depths" : "--tokenizer");
  if (depths != NULL) TRY(command_line_integer("--depths", depths, 1, TASK_ROWS, &options->depths, error));
  if (samples != NULL)
    TRY(command_line_integer("--samples", samples, 1, MOST_SAMPLES, &options->samples, error));
  return plot == NULL ? STATUS_OK : eval_report_check_plot(plot, error);
}

/* ---------------------------------------------------------------- what every rank runs */

static Status load_model(Rank *rank, const Evaluation *evaluation, Model **model, Error *error) {
  const Config *config = evaluation->config;
  const ModelOptions options = {.config = config->model,
                                .loss_chunk = config->train.loss_chunk,
                                .mlp_chunk = config->train.mlp_chunk,
                                .local_keys = evaluation->local_keys};
  char warning[1024];
  MemoryPlan memory;
  TRY(memory_check(config, rank, false, &memory, error));
  TRY(hf_model_check(&config->model, evaluation->checkpoint, warning, sizeof warning, error));
  if (warning[0] != '\0' && rank->world->rank == 0) (void)fprintf(stderr, "ringgpt: warning: %s\n", warning);
  if (evaluation->options.kind == TASK_NEEDLE)
    TRY(agreement_data(rank->world, config, config->data.val, error));
  TRY(model_create(rank->device, rank->ring, &options, model, error));
  for (int64_t i = 0; i < config->eval.contexts.count; i++) {
    const Layout layout = layout_zigzag(config->eval.contexts.values[i], rank->ring->size);
    TRY(model_reserve(*model, 1, &layout, error));
  }
  return host_weights_load(evaluation->checkpoint, rank->device, *model, rank->world, error);
}

/* One context after the other under a watch. */
static Status run_contexts(Rank *rank, Evaluation *evaluation, Model *model, Error *error) {
  const Config *config = evaluation->config;
  const IntegerList *contexts = &config->eval.contexts;
  const bool first = rank->world->rank == 0;
  double total = 0.0;
  Status status = STATUS_OK;
  EvalWatch watch;
  for (int64_t i = 0; i < contexts->count; i++) {
    total += task_work(config, rank, model, &evaluation->options, contexts->values[i]);
  }
  eval_watch_begin(&watch, rank, evaluation->stop, total);
  for (int64_t i = 0; i < contexts->count && status == STATUS_OK; i++) {
    TaskResult result;
    eval_watch_part(&watch, task_work(config, rank, model, &evaluation->options, contexts->values[i]));
    status = task_run(config, rank, model, &evaluation->options, contexts->values[i], &watch, &result, error);
    if (status == STATUS_OK && first) evaluation->results[evaluation->finished++] = result;
  }
  if (first) eval_watch_place(&watch, evaluation->place, sizeof evaluation->place);
  eval_watch_end(&watch);
  return status;
}

static Status evaluate(Rank *rank, void *context, Error *error) {
  Evaluation *evaluation = context;
  Model *model = NULL;
  Status status = load_model(rank, evaluation, &model, error);
  if (status == STATUS_OK) status = run_contexts(rank, evaluation, model, error);
  if (status != STATUS_OK) rank_abort(rank, error);
  model_destroy(model);
  return status;
}

/* ---------------------------------------------------------------- the command */

/* The tokenizer: as the command line says, or the checkpoint's own in *found, which the caller frees. */
static Status find_tokenizer(const CommandLine *line, TaskOptions *options, char **found, Error *error) {
  options->tokenizer = command_line_flag(line, "tokenizer");
  if (options->kind == TASK_MQAR || options->tokenizer != NULL) return STATUS_OK;
  TRY(tokenizer_files_find(command_line_flag(line, "checkpoint"), found, error));
  options->tokenizer = *found;
  return STATUS_OK;
}

/* What is known of the contexts that were finished, to everywhere it is asked for. */
static Status report(const CommandLine *line, const Evaluation *evaluation, Error *error) {
  const TaskReport results = {.config = evaluation->config,
                              .checkpoint = evaluation->checkpoint,
                              .options = &evaluation->options,
                              .local_keys = evaluation->local_keys,
                              .results = evaluation->results,
                              .count = evaluation->finished,
                              .complete = evaluation->finished == evaluation->config->eval.contexts.count};
  const char *json = command_line_flag(line, "json");
  TRY(task_report_print(&results, command_line_flag(line, "plot"), error));
  return json == NULL ? STATUS_OK : task_report_json(&results, json, error);
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

Status command_eval_task(const CommandLine *line, const Config *config, Error *error) {
  Evaluation evaluation = {.config = config,
                           .checkpoint = command_line_flag(line, "checkpoint"),
                           .local_keys = command_line_flag(line, "local-keys-only") != NULL};
  char *tokenizer = NULL;
  void *memory = NULL;
  Status status = STATUS_OK;
  TRY(read_flags(line, &evaluation.options, error));
  TRY(task_check(config, evaluation.options.kind, error));
  TRY_GOTO(find_tokenizer(line, &evaluation.options, &tokenizer, error), done);
  TRY_GOTO(memory_alloc((size_t)config->eval.contexts.count, sizeof(TaskResult), "results", &memory, error),
           done);
  evaluation.results = memory;
  TRY_GOTO(stop_watch_start(&evaluation.stop, error), done);
  status = run(line, &evaluation, error);
  /* A signal that comes again must not change the exit code of what has stopped. */
  if (status != STATUS_STOPPED) stop_watch_end(evaluation.stop);
done:
  free(memory);
  free(tokenizer);
  return status;
}
