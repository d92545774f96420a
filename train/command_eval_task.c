/* ringgpt eval --task: how much of what is hidden in its context a checkpoint finds, at one or several
 * contexts, as a table, a heat map and JSON. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "data/recall.h"
#include "kernels/base/memory.h"
#include "train/commands.h"
#include "train/grid.h"
#include "train/hf_model.h"
#include "train/host_weights.h"
#include "train/plot.h"
#include "train/progress.h"
#include "train/tasks.h"
#include "train/tokenizer_files.h"

#define DEFAULT_DEPTHS 5
#define DEFAULT_SAMPLES 4
#define MOST_SAMPLES 1000000
#define LABEL_BYTES 48

static const char *const task_names[] = {
    [TASK_NEEDLE] = "needle", [TASK_PASSKEY] = "passkey", [TASK_MQAR] = "mqar"};
enum { TASKS = sizeof task_names / sizeof task_names[0] };

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
  for (int i = 0; i < TASKS; i++) {
    if (strcmp(name, task_names[i]) != 0) continue;
    *kind = (TaskKind)i;
    return STATUS_OK;
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
  return plot == NULL ? STATUS_OK : plot_check_path("plot", plot, error);
}

/* ---------------------------------------------------------------- what every rank runs */

static void show_progress(void *state, int64_t done, int64_t total) {
  (void)state;
  char bar[128];
  progress_bar(done, total, -1.0, bar, sizeof bar);
  (void)fprintf(stderr, "\r%s sample %lld of %lld ", bar, (long long)done, (long long)total);
  if (done == total) (void)fputs("\r\033[K", stderr);
}

static Status load_model(Rank *rank, const Evaluation *evaluation, Model **model, Error *error) {
  const Config *config = evaluation->config;
  const ModelOptions options = {.config = config->model,
                                .loss_chunk = config->train.loss_chunk,
                                .mlp_chunk = config->train.mlp_chunk,
                                .local_keys = evaluation->local_keys};
  char warning[1024];
  TRY(hf_model_check(&config->model, evaluation->checkpoint, warning, sizeof warning, error));
  if (warning[0] != '\0' && rank->world->rank == 0) (void)fprintf(stderr, "ringgpt: warning: %s\n", warning);
  TRY(model_create(rank->device, rank->ring, &options, model, error));
  for (int64_t i = 0; i < config->eval.contexts.count; i++) {
    TRY(model_reserve(*model, 1, config->eval.contexts.values[i], error));
  }
  return host_weights_load(evaluation->checkpoint, rank->device, *model, rank->world, error);
}

static Status evaluate(Rank *rank, void *context, Error *error) {
  const Evaluation *evaluation = context;
  const IntegerList *contexts = &evaluation->config->eval.contexts;
  Model *model = NULL;
  Status status = load_model(rank, evaluation, &model, error);
  for (int64_t i = 0; i < contexts->count && status == STATUS_OK; i++) {
    TaskResult result;
    status =
        task_run(evaluation->config, rank, model, &evaluation->options, contexts->values[i], &result, error);
    if (status == STATUS_OK && rank->world->rank == 0) evaluation->results[i] = result;
  }
  if (status != STATUS_OK) rank_abort(rank, error);
  model_destroy(model);
  return status;
}

/* ---------------------------------------------------------------- results in common */

/* The share of right answers; NaN where nothing was asked. */
static double accuracy(const TaskScore *score) {
  return score->asked > 0 ? (double)score->right / (double)score->asked : (double)NAN;
}

/* Rows that say something: all depths, or the distances that were asked at. */
static int64_t used_rows(const Evaluation *evaluation, int rows[TASK_ROWS]) {
  int64_t used = 0;
  for (int r = 0; r < TASK_ROWS; r++) {
    int64_t asked = 0;
    for (int64_t i = 0; i < evaluation->config->eval.contexts.count; i++) {
      asked += evaluation->results[i].rows[r].asked;
    }
    if (asked > 0) rows[used++] = r;
  }
  return used;
}

static void label_row(const Evaluation *evaluation, int row, char *label) {
  if (evaluation->options.kind == TASK_MQAR) {
    (void)snprintf(label, LABEL_BYTES, "%lld - %lld", 1LL << row, (1LL << (row + 1)) - 1);
  } else {
    (void)snprintf(label, LABEL_BYTES, "%.1f %%", 100.0 * task_depth(row, evaluation->options.depths));
  }
}

/* ---------------------------------------------------------------- for people */

/* The accuracy in percent of each row at each context. */
typedef struct Table {
  int64_t rows;
  int64_t columns;
  char labels[TASK_ROWS + CONFIG_LIST_LENGTH][LABEL_BYTES]; /* of the rows, then of the columns */
  const char *row_labels[TASK_ROWS];
  const char *column_labels[CONFIG_LIST_LENGTH];
  double values[TASK_ROWS * CONFIG_LIST_LENGTH];
} Table;

static void fill_table(const Evaluation *evaluation, Table *table) {
  int rows[TASK_ROWS];
  table->rows = used_rows(evaluation, rows);
  table->columns = evaluation->config->eval.contexts.count;
  for (int64_t i = 0; i < table->rows; i++) {
    label_row(evaluation, rows[i], table->labels[i]);
    table->row_labels[i] = table->labels[i];
  }
  for (int64_t j = 0; j < table->columns; j++) {
    progress_count(evaluation->results[j].context, table->labels[TASK_ROWS + j], LABEL_BYTES);
    table->column_labels[j] = table->labels[TASK_ROWS + j];
    for (int64_t i = 0; i < table->rows; i++) {
      table->values[i * table->columns + j] = 100.0 * accuracy(&evaluation->results[j].rows[rows[i]]);
    }
  }
}

static void print_score(const char *what, const TaskScore *score) {
  if (score->asked == 0) return;
  (void)printf("; %s %.2f %% of %lld", what, 100.0 * accuracy(score), (long long)score->asked);
}

/* One line for each context. */
static void print_totals(const Evaluation *evaluation) {
  for (int64_t i = 0; i < evaluation->config->eval.contexts.count; i++) {
    const TaskResult *result = &evaluation->results[i];
    char context[32];
    progress_count(result->context, context, sizeof context);
    (void)printf("context %s: %.2f %% of %lld answers right", context, 100.0 * accuracy(&result->total),
                 (long long)result->total.asked);
    if (evaluation->options.kind == TASK_MQAR) {
      print_score("pair on the same rank", &result->own);
      print_score("on another rank", &result->remote);
    } else {
      print_score("tokens", &result->tokens);
    }
    (void)putchar('\n');
  }
}

static Status show_results(const Evaluation *evaluation, const char *picture, Error *error) {
  void *memory = NULL;
  char title[96];
  TRY(memory_alloc(1, sizeof(Table), "table of results", &memory, error));
  Table *table = memory;
  fill_table(evaluation, table);
  (void)snprintf(title, sizeof title, "%s: answers right, in %%%s", task_names[evaluation->options.kind],
                 evaluation->local_keys ? ", local keys only" : "");
  const PlotHeatMap map = {.title = title,
                           .x_title = "context",
                           .y_title = evaluation->options.kind == TASK_MQAR ? "distance" : "depth",
                           .rows = table->rows,
                           .columns = table->columns,
                           .row_labels = table->row_labels,
                           .column_labels = table->column_labels,
                           .values = table->values,
                           .low = 0.0,
                           .high = 100.0};
  print_totals(evaluation);
  (void)putchar('\n');
  plot_print_heat_map(stdout, &map);
  const Status status = picture == NULL ? STATUS_OK : plot_heat_map(picture, &map, error);
  free(memory);
  return status;
}

/* ---------------------------------------------------------------- for programs */

static json_t *score_json(const TaskScore *score) {
  const double share = accuracy(score);
  json_t *object = json_object();
  json_object_set_new(object, "asked", json_integer(score->asked));
  json_object_set_new(object, "right", json_integer(score->right));
  json_object_set_new(object, "accuracy", isfinite(share) ? json_real(share) : json_null());
  return object;
}

static json_t *row_json(const Evaluation *evaluation, int row, const TaskScore *score) {
  json_t *object = score_json(score);
  if (evaluation->options.kind == TASK_MQAR) {
    json_object_set_new(object, "nearest", json_integer((json_int_t)1 << row));
    json_object_set_new(object, "farthest", json_integer(((json_int_t)1 << (row + 1)) - 1));
  } else {
    json_object_set_new(object, "depth", json_real(task_depth(row, evaluation->options.depths)));
  }
  return object;
}

static json_t *result_json(const Evaluation *evaluation, const TaskResult *result) {
  json_t *object = score_json(&result->total);
  json_t *rows = json_array();
  for (int r = 0; r < TASK_ROWS; r++) {
    if (result->rows[r].asked > 0) json_array_append_new(rows, row_json(evaluation, r, &result->rows[r]));
  }
  json_object_set_new(object, "context", json_integer(result->context));
  if (evaluation->options.kind == TASK_MQAR) {
    json_object_set_new(object, "own", score_json(&result->own));
    json_object_set_new(object, "remote", score_json(&result->remote));
    json_object_set_new(object, "distances", rows);
  } else {
    json_object_set_new(object, "tokens", score_json(&result->tokens));
    json_object_set_new(object, "depths", rows);
  }
  return object;
}

static Status write_json(const char *path, const Evaluation *evaluation, Error *error) {
  json_t *contexts = json_array();
  for (int64_t i = 0; i < evaluation->config->eval.contexts.count; i++) {
    json_array_append_new(contexts, result_json(evaluation, &evaluation->results[i]));
  }
  json_t *root = json_object();
  json_object_set_new(root, "checkpoint", json_string(evaluation->checkpoint));
  json_object_set_new(root, "task", json_string(task_names[evaluation->options.kind]));
  json_object_set_new(root, "samples", json_integer(evaluation->options.samples));
  json_object_set_new(root, "ring", json_integer(evaluation->config->parallelism.ring));
  json_object_set_new(root, "local_keys_only", json_boolean(evaluation->local_keys));
  json_object_set_new(root, "contexts", contexts);
  const int failed = json_dump_file(root, path, JSON_INDENT(2) | JSON_REAL_PRECISION(17));
  json_decref(root);
  if (failed != 0) return fail(error, STATUS_IO, "%s: cannot write the results of the task", path);
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

static Status report(const CommandLine *line, const Evaluation *evaluation, Error *error) {
  const char *json = command_line_flag(line, "json");
  /* The results are rank 0's. */
  if (line->processes != NULL && line->processes->rank != 0) return STATUS_OK;
  if (json != NULL) TRY(write_json(json, evaluation, error));
  return show_results(evaluation, command_line_flag(line, "plot"), error);
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
  if (isatty(STDERR_FILENO) != 0) evaluation.options.progress = show_progress;
  TRY_GOTO(find_tokenizer(line, &evaluation.options, &tokenizer, error), done);
  TRY_GOTO(memory_alloc((size_t)config->eval.contexts.count, sizeof(TaskResult), "results", &memory, error),
           done);
  evaluation.results = memory;
  TRY_GOTO(grid_run(config, line->processes, evaluate, &evaluation, error), done);
  status = report(line, &evaluation, error);
done:
  free(memory);
  free(tokenizer);
  return status;
}
