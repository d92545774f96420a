/* What a task gave: as a table and a heat map, in a picture, and as JSON. */
#include "train/task_report.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/memory.h"
#include "train/plot.h"
#include "train/progress.h"

#define LABEL_BYTES 48

/* ---------------------------------------------------------------- results in common */

/* The share of right answers; NaN where nothing was asked. */
static double accuracy(const TaskScore *score) {
  return score->asked > 0 ? (double)score->right / (double)score->asked : (double)NAN;
}

/* Rows that say something: all depths, or the distances that were asked at. */
static int64_t used_rows(const TaskReport *report, int rows[TASK_ROWS]) {
  int64_t used = 0;
  for (int r = 0; r < TASK_ROWS; r++) {
    int64_t asked = 0;
    for (int64_t i = 0; i < report->count; i++) {
      asked += report->results[i].rows[r].asked;
    }
    if (asked > 0) rows[used++] = r;
  }
  return used;
}

static void label_row(const TaskReport *report, int row, char *label) {
  if (report->options->kind == TASK_MQAR) {
    (void)snprintf(label, LABEL_BYTES, "%lld - %lld", 1LL << row, (1LL << (row + 1)) - 1);
  } else {
    (void)snprintf(label, LABEL_BYTES, "%.1f %%", 100.0 * task_depth(row, report->options->depths));
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

static void fill_table(const TaskReport *report, Table *table) {
  int rows[TASK_ROWS];
  table->rows = used_rows(report, rows);
  table->columns = report->count;
  for (int64_t i = 0; i < table->rows; i++) {
    label_row(report, rows[i], table->labels[i]);
    table->row_labels[i] = table->labels[i];
  }
  for (int64_t j = 0; j < table->columns; j++) {
    progress_count(report->results[j].context, table->labels[TASK_ROWS + j], LABEL_BYTES);
    table->column_labels[j] = table->labels[TASK_ROWS + j];
    for (int64_t i = 0; i < table->rows; i++) {
      table->values[i * table->columns + j] = 100.0 * accuracy(&report->results[j].rows[rows[i]]);
    }
  }
}

static void print_score(const char *what, const TaskScore *score) {
  if (score->asked == 0) return;
  (void)printf("; %s %.2f %% of %lld", what, 100.0 * accuracy(score), (long long)score->asked);
}

/* One line for each context. */
static void print_totals(const TaskReport *report) {
  for (int64_t i = 0; i < report->count; i++) {
    const TaskResult *result = &report->results[i];
    char context[32];
    progress_count(result->context, context, sizeof context);
    (void)printf("context %s: %.2f %% of %lld answers right", context, 100.0 * accuracy(&result->total),
                 (long long)result->total.asked);
    if (report->options->kind == TASK_MQAR) {
      print_score("pair on the same rank", &result->own);
      print_score("on another rank", &result->remote);
    } else {
      print_score("tokens", &result->tokens);
    }
    (void)putchar('\n');
  }
}

/* What cannot be drawn is no failure of what was measured. */
static void draw(const PlotHeatMap *map, const char *path) {
  Error error = {0};
  if (path == NULL || strcmp(path, "-") == 0 || plot_heat_map(path, map, &error) == STATUS_OK) return;
  (void)fprintf(stderr, "ringgpt: warning: no picture %s: %s\n", path, error.text);
}

Status task_report_print(const TaskReport *report, const char *picture, Error *error) {
  void *memory = NULL;
  char title[96];
  if (report->count == 0) return STATUS_OK;
  TRY(memory_alloc(1, sizeof(Table), "table of results", &memory, error));
  Table *table = memory;
  fill_table(report, table);
  (void)snprintf(title, sizeof title, "%s: answers right, in %%%s", task_name(report->options->kind),
                 report->local_keys ? ", local keys only" : "");
  const PlotHeatMap map = {.title = title,
                           .x_title = "context",
                           .y_title = report->options->kind == TASK_MQAR ? "distance" : "depth",
                           .rows = table->rows,
                           .columns = table->columns,
                           .row_labels = table->row_labels,
                           .column_labels = table->column_labels,
                           .values = table->values,
                           .low = 0.0,
                           .high = 100.0};
  print_totals(report);
  (void)putchar('\n');
  plot_print_heat_map(stdout, &map);
  draw(&map, picture);
  free(memory);
  return STATUS_OK;
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

static json_t *row_json(const TaskReport *report, int row, const TaskScore *score) {
  json_t *object = score_json(score);
  if (report->options->kind == TASK_MQAR) {
    json_object_set_new(object, "nearest", json_integer((json_int_t)1 << row));
    json_object_set_new(object, "farthest", json_integer(((json_int_t)1 << (row + 1)) - 1));
  } else {
    json_object_set_new(object, "depth", json_real(task_depth(row, report->options->depths)));
  }
  return object;
}

static json_t *result_json(const TaskReport *report, const TaskResult *result) {
  json_t *object = score_json(&result->total);
  json_t *rows = json_array();
  for (int r = 0; r < TASK_ROWS; r++) {
    if (result->rows[r].asked > 0) json_array_append_new(rows, row_json(report, r, &result->rows[r]));
  }
  json_object_set_new(object, "context", json_integer(result->context));
  if (report->options->kind == TASK_MQAR) {
    json_object_set_new(object, "own", score_json(&result->own));
    json_object_set_new(object, "remote", score_json(&result->remote));
    json_object_set_new(object, "distances", rows);
  } else {
    json_object_set_new(object, "tokens", score_json(&result->tokens));
    json_object_set_new(object, "depths", rows);
  }
  return object;
}

Status task_report_json(const TaskReport *report, const char *path, Error *error) {
  json_t *contexts = json_array();
  for (int64_t i = 0; i < report->count; i++) {
    json_array_append_new(contexts, result_json(report, &report->results[i]));
  }
  json_t *root = json_object();
  json_object_set_new(root, "checkpoint", json_string(report->checkpoint));
  json_object_set_new(root, "task", json_string(task_name(report->options->kind)));
  json_object_set_new(root, "samples", json_integer(report->options->samples));
  json_object_set_new(root, "ring", json_integer(report->config->parallelism.ring));
  json_object_set_new(root, "local_keys_only", json_boolean(report->local_keys));
  json_object_set_new(root, "complete", json_boolean(report->complete));
  json_object_set_new(root, "contexts", contexts);
  const int failed = json_dump_file(root, path, JSON_INDENT(2) | JSON_REAL_PRECISION(17));
  json_decref(root);
  if (failed != 0) return fail(error, STATUS_IO, "%s: cannot write the results of the task", path);
  return STATUS_OK;
}
