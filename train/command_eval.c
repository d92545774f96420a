/* ringgpt eval: perplexity of a checkpoint at one or several contexts, in total and by position. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "checkpoints/checkpoint.h"
#include "kernels/base/memory.h"
#include "train/agreement.h"
#include "train/batches.h"
#include "train/commands.h"
#include "train/config.h"
#include "train/grid.h"
#include "train/hf_model.h"
#include "train/host_weights.h"
#include "train/overlap.h"
#include "train/perplexity.h"
#include "train/progress.h"

typedef struct Evaluation {
  const Config *config;
  const char *checkpoint;
  Perplexity *results; /* (contexts), written by world rank 0 */
} Evaluation;

static void show_progress(void *state, int64_t done, int64_t total) {
  (void)state;
  char bar[128];
  progress_bar(done, total, -1.0, bar, sizeof bar);
  (void)fprintf(stderr, "\r%s window %lld of %lld ", bar, (long long)done, (long long)total);
  if (done == total) (void)fputs("\r\033[K", stderr);
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
  const Evaluation *evaluation = context;
  const Config *config = evaluation->config;
  const ModelOptions options = {
      .config = config->model, .loss_chunk = config->train.loss_chunk, .mlp_chunk = config->train.mlp_chunk};
  Model *model = NULL;
  Status status = STATUS_OK;
  PerplexityTask task = {.pattern = config->data.val,
                         .tokens = config->eval.tokens,
                         .progress = isatty(STDERR_FILENO) != 0 ? show_progress : NULL};
  char warning[1024];
  TRY_GOTO(hf_model_check(&config->model, evaluation->checkpoint, warning, sizeof warning, error), done);
  if (warning[0] != '\0' && rank->world->rank == 0) (void)fprintf(stderr, "ringgpt: warning: %s\n", warning);
  TRY_GOTO(model_create(rank->device, rank->ring, &options, &model, error), done);
  for (int64_t i = 0; i < config->eval.contexts.count; i++) {
    TRY_GOTO(model_reserve(model, 1, config->eval.contexts.values[i], error), done);
  }
  TRY_GOTO(host_weights_load(evaluation->checkpoint, rank->device, model, rank->world, error), done);
  TRY_GOTO(agreement_data(rank->world, config, task.pattern, error), done);
  TRY_GOTO(batches_end_of_document(config, task.pattern, &task.end_of_document, error), done);
  TRY_GOTO(forecast_overlap(config, rank, error), done);
  for (int64_t i = 0; i < config->eval.contexts.count; i++) {
    Perplexity result;
    task.context = config->eval.contexts.values[i];
    TRY_GOTO(perplexity_run(config, rank, model, &task, &result, error), done);
    if (rank->world->rank == 0) evaluation->results[i] = result;
  }
done:
  if (status != STATUS_OK) rank_abort(rank, error);
  model_destroy(model);
  return status;
}

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

static void print_result(const Perplexity *result) {
  char context[32];
  progress_count(result->context, context, sizeof context);
  (void)printf("context %s, %lld window%s, every position scored with its full prefix\n", context,
               (long long)result->windows, result->windows == 1 ? "" : "s");
  (void)printf("  %-19s %12s %9s %9s %11s\n", "position", "tokens", "nll", "+/-", "perplexity");
  for (int i = 0; i < PERPLEXITY_BUCKETS; i++) {
    if (result->buckets[i].tokens == 0) continue;
    int64_t first = 0;
    int64_t last = 0;
    char position[48];
    perplexity_range(i, &first, &last);
    if (last >= result->context) last = result->context - 1;
    (void)snprintf(position, sizeof position, first == last ? "%lld" : "%lld - %lld", (long long)first,
                   (long long)last);
    print_row(position, &result->buckets[i]);
  }
  print_row("all", &result->total);
  (void)putchar('\n');
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
  json_object_set_new(object, "context", json_integer(result->context));
  json_object_set_new(object, "windows", json_integer(result->windows));
  set_numbers(object, &result->total);
  for (int i = 0; i < PERPLEXITY_BUCKETS; i++) {
    if (result->buckets[i].tokens == 0) continue;
    int64_t first = 0;
    int64_t last = 0;
    perplexity_range(i, &first, &last);
    json_t *bucket = json_object();
    json_object_set_new(bucket, "first", json_integer(first));
    json_object_set_new(bucket, "last", json_integer(last < result->context ? last : result->context - 1));
    set_numbers(bucket, &result->buckets[i]);
    json_array_append_new(positions, bucket);
  }
  json_object_set_new(object, "positions", positions);
  return object;
}

static Status write_json(const char *path, const Evaluation *evaluation, Error *error) {
  json_t *contexts = json_array();
  for (int64_t i = 0; i < evaluation->config->eval.contexts.count; i++) {
    json_array_append_new(contexts, result_json(&evaluation->results[i]));
  }
  json_t *root = json_object();
  json_object_set_new(root, "checkpoint", json_string(evaluation->checkpoint));
  json_object_set_new(root, "data", json_string(evaluation->config->data.val));
  json_object_set_new(root, "mode", json_string("full prefix"));
  json_object_set_new(root, "contexts", contexts);
  const int failed = json_dump_file(root, path, JSON_INDENT(2) | JSON_REAL_PRECISION(17));
  json_decref(root);
  if (failed != 0) return fail(error, STATUS_IO, "%s: cannot write the results of the evaluation", path);
  return STATUS_OK;
}

/* ---------------------------------------------------------------- the command */

/* Loads the configuration with --context as eval.contexts, so that one parser and one check serve both. */
static Status load_config(const CommandLine *line, Config *config, Error *error) {
  const char *contexts = command_line_flag(line, "context");
  char override[CONFIG_TEXT_BYTES];
  const int length =
      snprintf(override, sizeof override, "eval.contexts=[%s]", contexts == NULL ? "" : contexts);
  if (length < 0 || (size_t)length >= sizeof override) {
    return fail(error, STATUS_USAGE, "--context: more than %d characters", CONFIG_TEXT_BYTES - 32);
  }
  void *memory = NULL;
  TRY(memory_alloc((size_t)line->count, sizeof(char *), "overrides", &memory, error));
  char **overrides = memory;
  for (int64_t i = 1; i < line->count; i++) overrides[i - 1] = line->arguments[i];
  overrides[line->count - 1] = override;
  const int64_t count = contexts == NULL ? line->count - 1 : line->count;
  const Status status = config_load(line->arguments[0], overrides, count, config, error);
  free(memory);
  return status;
}

static Status check_config(const CommandLine *line, const Config *config, Error *error) {
  if (config->data.val[0] == '\0') {
    return fail(error, STATUS_CONFIG, "%s: data.val names no shards to evaluate on", line->arguments[0]);
  }
  return STATUS_OK;
}

Status command_eval(const CommandLine *line, Error *error) {
  Config config;
  void *memory = NULL;
  Status status = STATUS_OK;
  TRY(load_config(line, &config, error));
  TRY(check_config(line, &config, error));
  TRY(memory_alloc((size_t)config.eval.contexts.count, sizeof(Perplexity), "results", &memory, error));
  Evaluation evaluation = {
      .config = &config, .checkpoint = command_line_flag(line, "checkpoint"), .results = memory};
  TRY_GOTO(grid_run(&config, line->processes, evaluate, &evaluation, error), done);
  /* The results are rank 0's. */
  if (line->processes != NULL && line->processes->rank != 0) goto done;
  for (int64_t i = 0; i < config.eval.contexts.count; i++) print_result(&evaluation.results[i]);
  const char *json = command_line_flag(line, "json");
  if (json != NULL) status = write_json(json, &evaluation, error);
done:
  free(memory);
  return status;
}
