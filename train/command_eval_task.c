/* ringgpt eval --task: how much of what is hidden in its context a checkpoint finds, at one or several
 * contexts. */
#include <stdlib.h>
#include <string.h>

#include "kernels/base/memory.h"
#include "train/agreement.h"
#include "train/commands.h"
#include "train/eval_report.h"
#include "train/eval_run.h"
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
  TaskResult *results; /* (contexts), written by world rank 0 */
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

static Status check(const void *measure, Rank *rank, Error *error) {
  const Evaluation *evaluation = measure;
  if (evaluation->options.kind != TASK_NEEDLE) return STATUS_OK;
  return agreement_data(rank->world, evaluation->config, evaluation->config->data.val, error);
}

static double work(const void *measure, const Rank *rank, const Model *model, int64_t i) {
  const Evaluation *evaluation = measure;
  const Config *config = evaluation->config;
  return task_work(config, rank, model, &evaluation->options, config->eval.contexts.values[i]);
}

static Status compute(void *measure, EvalPlace *place, int64_t i, Error *error) {
  const Evaluation *evaluation = measure;
  const Config *config = evaluation->config;
  TaskResult result;
  TRY(task_run(config, place->rank, place->model, &evaluation->options, config->eval.contexts.values[i],
               place->memory, &place->watch, &result, error));
  if (place->rank->world->rank == 0) evaluation->results[i] = result;
  return STATUS_OK;
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

static Status report(const void *measure, const CommandLine *line, int64_t finished, Error *error) {
  const Evaluation *evaluation = measure;
  const TaskReport results = {.config = evaluation->config,
                              .checkpoint = evaluation->checkpoint,
                              .options = &evaluation->options,
                              .local_keys = evaluation->local_keys,
                              .results = evaluation->results,
                              .count = finished,
                              .complete = finished == evaluation->config->eval.contexts.count};
  const char *json = command_line_flag(line, "json");
  TRY(task_report_print(&results, command_line_flag(line, "plot"), error));
  return json == NULL ? STATUS_OK : task_report_json(&results, json, error);
}

Status command_eval_task(const CommandLine *line, const Config *config, Error *error) {
  static const EvalMeasure measure = {.check = check, .work = work, .compute = compute, .report = report};
  Evaluation evaluation = {.config = config,
                           .checkpoint = command_line_flag(line, "checkpoint"),
                           .local_keys = command_line_flag(line, "local-keys-only") != NULL};
  EvalRun run = {.config = config,
                 .checkpoint = evaluation.checkpoint,
                 .tasks = true,
                 .local_keys = evaluation.local_keys,
                 .measure = &measure,
                 .context = &evaluation};
  char *tokenizer = NULL;
  void *memory = NULL;
  Status status = STATUS_OK;
  TRY(read_flags(line, &evaluation.options, error));
  TRY(task_check(config, evaluation.options.kind, error));
  TRY_GOTO(find_tokenizer(line, &evaluation.options, &tokenizer, error), done);
  TRY_GOTO(memory_alloc((size_t)config->eval.contexts.count, sizeof(TaskResult), "results", &memory, error),
           done);
  evaluation.results = memory;
  status = eval_run(&run, line, error);
done:
  free(memory);
  free(tokenizer);
  return status;
}
