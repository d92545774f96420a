/* ringgpt eval: perplexity of a checkpoint at one or several contexts, in total and by position. */
#include <stdlib.h>

#include "kernels/base/memory.h"
#include "train/agreement.h"
#include "train/batches.h"
#include "train/command_config.h"
#include "train/commands.h"
#include "train/eval_report.h"
#include "train/eval_run.h"
#include "train/perplexity.h"

typedef struct Evaluation {
  const Config *config;
  const char *checkpoint;
  PerplexityTask *tasks; /* (contexts) */
  Perplexity *results;   /* (contexts), written by world rank 0 */
} Evaluation;

/* ---------------------------------------------------------------- what every rank runs */

static Status check(const void *measure, Rank *rank, Error *error) {
  const Evaluation *evaluation = measure;
  return agreement_data(rank->world, evaluation->config, evaluation->config->data.val, error);
}

static double work(const void *measure, const Rank *rank, const Model *model, int64_t i) {
  const Evaluation *evaluation = measure;
  return perplexity_work(model, &evaluation->config->model, &evaluation->tasks[i].windows, rank->data_size);
}

static Status compute(void *measure, EvalPlace *place, int64_t i, Error *error) {
  const Evaluation *evaluation = measure;
  PerplexityTask task = evaluation->tasks[i];
  Perplexity result;
  task.watch = &place->watch;
  task.memory = place->memory;
  TRY(perplexity_run(evaluation->config, place->rank, place->model, &task, &result, error));
  if (place->rank->world->rank == 0) evaluation->results[i] = result;
  return STATUS_OK;
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

/* The windows of every context: what is too short is found before anything is computed. */
static Status plan(Evaluation *evaluation, Error *error) {
  const Config *config = evaluation->config;
  int32_t end_of_document = -1;
  TRY(batches_end_of_document(config, config->data.val, &end_of_document, error));
  for (int64_t i = 0; i < config->eval.contexts.count; i++) {
    PerplexityTask *task = &evaluation->tasks[i];
    *task = (PerplexityTask){.pattern = config->data.val, .end_of_document = end_of_document};
    TRY(perplexity_plan(config, config->data.val, config->eval.contexts.values[i], &task->windows, error));
  }
  return STATUS_OK;
}

static Status report(const void *measure, const CommandLine *line, int64_t finished, Error *error) {
  const Evaluation *evaluation = measure;
  const EvalReport results = {.config = evaluation->config,
                              .checkpoint = evaluation->checkpoint,
                              .results = evaluation->results,
                              .count = finished,
                              .complete = finished == evaluation->config->eval.contexts.count};
  const char *json = command_line_flag(line, "json");
  const char *picture = command_line_flag(line, "plot");
  eval_report_print(&results);
  if (picture != NULL) eval_report_plot(&results, picture);
  return json == NULL ? STATUS_OK : eval_report_json(&results, json, error);
}

Status command_eval(const CommandLine *line, Error *error) {
  static const EvalMeasure measure = {.check = check, .work = work, .compute = compute, .report = report};
  Config config;
  void *tasks = NULL;
  void *results = NULL;
  Status status = STATUS_OK;
  TRY(command_config_load(line, &config, error));
  if (command_line_flag(line, "task") != NULL) return command_eval_task(line, &config, error);
  TRY(check_config(line, &config, error));
  const size_t count = (size_t)config.eval.contexts.count;
  TRY_GOTO(memory_alloc(count, sizeof(PerplexityTask), "contexts", &tasks, error), done);
  TRY_GOTO(memory_alloc(count, sizeof(Perplexity), "results", &results, error), done);
  Evaluation evaluation = {.config = &config,
                           .checkpoint = command_line_flag(line, "checkpoint"),
                           .tasks = tasks,
                           .results = results};
  TRY_GOTO(plan(&evaluation, error), done);
  EvalRun run = {
      .config = &config, .checkpoint = evaluation.checkpoint, .measure = &measure, .context = &evaluation};
  status = eval_run(&run, line, error);
done:
  free(results);
  free(tasks);
  return status;
}
