/* What an evaluation found: tables, JSON and a picture. */
#include "train/eval_report.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernels/base/memory.h"
#include "train/plot.h"
#include "train/progress.h"

/* ---------------------------------------------------------------- for people */

static void print_row(const char *position, const PerplexityBucket *bucket) {
  char tokens[32];
  progress_count(bucket->tokens, tokens, sizeof tokens);
  (void)printf("  %-19s %12s %9.4f", position, tokens, perplexity_mean(bucket));
  const double deviation = perplexity_standard_error(bucket);
  if (isfinite(deviation)) {
    (void)printf(" %9.4f", deviation);
  } else {
    (void)printf(" %9s", "-");
  }
  (void)printf(" %11.3f\n", exp(perplexity_mean(bucket)));
}

static void print_title(const Windows *windows) {
  char context[32];
  char stride[32];
  progress_count(windows->context, context, sizeof context);
  progress_count(windows->stride, stride, sizeof stride);
  (void)printf("context %s, %lld window%s, ", context, (long long)windows->count,
               windows->count == 1 ? "" : "s");
  if (windows->mode == EVAL_FULL) (void)puts("every position scored with its full prefix");
  if (windows->mode == EVAL_LLAMA_CPP) (void)puts("llama.cpp: the second half of each is scored");
  if (windows->mode == EVAL_STRIDED) (void)printf("strided by %s: new tokens are scored\n", stride);
}

static void print_result(const Config *config, const Perplexity *result) {
  const int64_t context = result->windows.context;
  print_title(&result->windows);
  (void)printf("  %-19s %12s %9s %9s %11s\n", "position", "tokens", "nll", "+/-", "perplexity");
  for (int i = 0; i < PERPLEXITY_BUCKETS; i++) {
    if (result->buckets[i].tokens == 0) continue;
    int64_t first = 0;
    int64_t last = 0;
    char position[48];
    perplexity_range(i, &first, &last);
    if (last >= context) last = context - 1;
    (void)snprintf(position, sizeof position, first == last ? "%lld" : "%lld - %lld", (long long)first,
                   (long long)last);
    print_row(position, &result->buckets[i]);
  }
  print_row("all", &result->total);
  if (config->data.document_mask && config->parallelism.ring > 1) {
    (void)printf("balance %.2f: attention of the rank that has most of it, over the mean\n", result->balance);
  }
  if (result->windows.mode == EVAL_LLAMA_CPP) {
    /* The last line of llama.cpp's tool, as it prints it. */
    (void)printf("Final estimate: PPL = %.4f +/- %.5f\n", exp(perplexity_mean(&result->total)),
                 perplexity_exp_error(&result->total));
  }
  (void)putchar('\n');
}

void eval_report_print(const EvalReport *report) {
  for (int64_t i = 0; i < report->count; i++) print_result(report->config, &report->results[i]);
}

/* ---------------------------------------------------------------- for programs */

static json_t *number(double value) {
  return isfinite(value) ? json_real(value) : json_null();
}

/* Adds the numbers of a bucket to an object; NULL stays NULL. */
static void set_numbers(json_t *object, const PerplexityBucket *bucket) {
  json_object_set_new(object, "tokens", json_integer(bucket->tokens));
  json_object_set_new(object, "nll", number(perplexity_mean(bucket)));
  json_object_set_new(object, "standard_error", number(perplexity_standard_error(bucket)));
  json_object_set_new(object, "perplexity", number(exp(perplexity_mean(bucket))));
}

static json_t *result_json(const Perplexity *result) {
  json_t *object = json_object();
  json_t *positions = json_array();
  const int64_t context = result->windows.context;
  json_object_set_new(object, "context", json_integer(context));
  json_object_set_new(object, "windows", json_integer(result->windows.count));
  json_object_set_new(object, "stride", json_integer(result->windows.stride));
  json_object_set_new(object, "balance", number(result->balance));
  set_numbers(object, &result->total);
  for (int i = 0; i < PERPLEXITY_BUCKETS; i++) {
    if (result->buckets[i].tokens == 0) continue;
    int64_t first = 0;
    int64_t last = 0;
    perplexity_range(i, &first, &last);
    json_t *bucket = json_object();
    json_object_set_new(bucket, "first", json_integer(first));
    json_object_set_new(bucket, "last", json_integer(last < context ? last : context - 1));
    set_numbers(bucket, &result->buckets[i]);
    json_array_append_new(positions, bucket);
  }
  json_object_set_new(object, "positions", positions);
  return object;
}

Status eval_report_json(const EvalReport *report, const char *path, Error *error) {
  json_t *contexts = json_array();
  for (int64_t i = 0; i < report->count; i++) {
    json_array_append_new(contexts, result_json(&report->results[i]));
  }
  json_t *root = json_object();
  json_object_set_new(root, "checkpoint", json_string(report->checkpoint));
  json_object_set_new(root, "data", json_string(report->config->data.val));
  json_object_set_new(root, "mode", json_string(windows_mode_name(report->config->eval.mode)));
  json_object_set_new(root, "complete", json_boolean(report->complete));
  json_object_set_new(root, "contexts", contexts);
  const int failed = json_dump_file(root, path, JSON_INDENT(2) | JSON_REAL_PRECISION(17));
  json_decref(root);
  if (failed != 0) return fail(error, STATUS_IO, "%s: cannot write the results of the evaluation", path);
  return STATUS_OK;
}

/* ---------------------------------------------------------------- for the eye */

/* One line of the diagram and what it is made of. */
typedef struct Line {
  char name[64];
  double x[PERPLEXITY_BUCKETS];
  double y[PERPLEXITY_BUCKETS];
  double e[PERPLEXITY_BUCKETS];
} Line;

/* A point in the middle of each bucket; position 0 has no place on a scale of powers. */
static PlotLine make_line(const Perplexity *result, Line *line) {
  char context[32];
  int64_t count = 0;
  progress_count(result->windows.context, context, sizeof context);
  (void)snprintf(line->name, sizeof line->name, "context %s", context);
  for (int i = 1; i < PERPLEXITY_BUCKETS; i++) {
    const PerplexityBucket *bucket = &result->buckets[i];
    int64_t first = 0;
    int64_t last = 0;
    if (bucket->tokens == 0) continue;
    perplexity_range(i, &first, &last);
    if (last >= result->windows.context) last = result->windows.context - 1;
    line->x[count] = ((double)first + (double)last) / 2.0;
    line->y[count] = perplexity_mean(bucket);
    line->e[count++] = perplexity_standard_error(bucket);
  }
  return (PlotLine){.name = line->name, .count = count, .x = line->x, .y = line->y, .e = line->e};
}

static Status draw(const EvalReport *report, const char *path, Error *error) {
  PlotLine lines[CONFIG_LIST_LENGTH];
  char title[2 * CONFIG_TEXT_BYTES];
  void *memory = NULL;
  Status status = STATUS_OK;
  TRY(memory_alloc((size_t)report->count, sizeof(Line), "picture", &memory, error));
  for (int64_t i = 0; i < report->count; i++) lines[i] = make_line(&report->results[i], (Line *)memory + i);
  (void)snprintf(title, sizeof title, "perplexity by position, %s%s",
                 windows_mode_name(report->config->eval.mode), report->complete ? "" : " (incomplete)");
  const PlotPositions positions = {.title = title, .count = report->count, .lines = lines};
  const bool file = strcmp(path, "-") != 0;
  if (file) TRY_GOTO(plot_positions(path, &positions, error), done);
  if (!file || isatty(STDOUT_FILENO) != 0) status = plot_print_positions(&positions, error);
done:
  free(memory);
  return status;
}

void eval_report_plot(const EvalReport *report, const char *path) {
  Error error = {0};
  if (report->count == 0 || draw(report, path, &error) == STATUS_OK) return;
  (void)fprintf(stderr, "ringgpt: warning: no picture %s: %s\n", path, error.text);
}

Status eval_report_check_plot(const char *path, Error *error) {
  return strcmp(path, "-") == 0 ? STATUS_OK : plot_check_path("plot", path, error);
}
