/* Loading a configuration, filling in what follows from the rest, and writing it out again. */
#include "train/config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "model/rope.h"
#include "train/option_value.h"
#include "train/options.h"
#include "train/yaml_reader.h"

/* ---------------------------------------------------------------- load */

/* The name of a run from the file's: without folders and ending. */
static void name_from_path(const char *path, RunConfig *run) {
  const char *slash = strrchr(path, '/');
  const char *base = slash ? slash + 1 : path;
  const char *dot = strrchr(base, '.');
  const size_t length = dot ? (size_t)(dot - base) : strlen(base);
  const bool fits = length > 0 && length < sizeof run->name;
  (void)snprintf(run->name, sizeof run->name, "%.*s", fits ? (int)length : 3, fits ? base : "run");
}

/* What Hugging Face takes for what the scaling of positions leaves out. */
static void resolve_rope(ModelConfig *model, const TrainConfig *train) {
  RopeScaling *scaling = &model->rope_scaling;
  const bool yarn = scaling->rope_type == ROPE_YARN;
  if (yarn && scaling->beta_fast == 0) scaling->beta_fast = ROPE_BETA_FAST;
  if (yarn && scaling->beta_slow == 0) scaling->beta_slow = ROPE_BETA_SLOW;
  if (model->max_position_embeddings != 0 || scaling->rope_type == ROPE_DYNAMIC) return;
  const double extended = scaling->factor * (double)scaling->original_max_position_embeddings;
  const bool extends = yarn || scaling->rope_type == ROPE_LLAMA3;
  model->max_position_embeddings =
      extends && extended >= 1 && extended < 0x1p31 ? (int64_t)extended : train->sequence_length;
}

static void resolve_model(ModelConfig *model, const TrainConfig *train) {
  if (model->num_key_value_heads == 0) model->num_key_value_heads = model->num_attention_heads;
  resolve_rope(model, train);
  if (model->intermediate_size > 0) return;
  const int64_t width = model->hidden_size;
  if (model->activation == ACTIVATION_GELU)
    model->intermediate_size = 4 * width;
  else /* two matrices go in where gelu has one: 8/3 C makes as many weights, rounded up for the products */
    model->intermediate_size = (8 * width + 3 * 64 - 1) / (3 * 64) * 64;
}

/* Fills in the values that were left to follow from others. */
static Status resolve(const char *path, Config *config, Error *error) {
  RunConfig *run = &config->run;
  if (!*run->name) name_from_path(path, run);
  if (!*run->dir) {
    const int length = snprintf(run->dir, sizeof run->dir, "runs/%s", run->name);
    if (length >= (int)sizeof run->dir)
      return fail(error, STATUS_CONFIG, "%s: 'run.name' is too long for a directory; set run.dir", path);
  }
  resolve_model(&config->model, &config->train);
  SchedulerConfig *scheduler = &config->scheduler;
  const int64_t steps = config->train.steps;
  if (scheduler->warmup_steps < 0) scheduler->warmup_steps = steps / 50;
  if (scheduler->name == SCHEDULER_WSD && scheduler->decay_steps == 0)
    scheduler->decay_steps = steps < 10 ? 1 : steps / 10;
  if (config->eval.contexts.count == 0)
    config->eval.contexts = (IntegerList){.count = 1, .values = {config->train.sequence_length}};
  return STATUS_OK;
}

static Status apply_file(const char *path, Config *config, Error *error) {
  YamlDocument document;
  Status status = yaml_reader_load(path, &document, error);
  if (status == STATUS_OK) status = options_apply(&document, config, error);
  yaml_reader_free(&document);
  return status;
}

Status config_load(const char *path, char *const overrides[], int64_t count, Config *out, Error *error) {
  /* Padding bytes too, so that equal configurations are equal in memory. */
  memset(out, 0, sizeof *out);
  TRY(options_set_defaults(out, error));
  TRY(apply_file(path, out, error));
  for (int64_t i = 0; i < count; i++) TRY(options_override(overrides[i], out, error));
  TRY(resolve(path, out, error));
  return config_check(out, path, error);
}

/* ---------------------------------------------------------------- what follows */

int64_t config_ranks(const Config *config) {
  return config->parallelism.ring * config->parallelism.data;
}

/* ---------------------------------------------------------------- dump */

static int emit_mapping_start(yaml_emitter_t *emitter) {
  yaml_event_t event;
  return yaml_mapping_start_event_initialize(&event, NULL, NULL, 1, YAML_BLOCK_MAPPING_STYLE) &&
         yaml_emitter_emit(emitter, &event);
}

static int emit_mapping_end(yaml_emitter_t *emitter) {
  yaml_event_t event;
  return yaml_mapping_end_event_initialize(&event) && yaml_emitter_emit(emitter, &event);
}

static int emit_key(yaml_emitter_t *emitter, const char *key) {
  yaml_event_t event;
  return yaml_scalar_event_initialize(&event, NULL, NULL, (const yaml_char_t *)key, (int)strlen(key), 1, 0,
                                      YAML_PLAIN_SCALAR_STYLE) &&
         yaml_emitter_emit(emitter, &event);
}

/* Bytes of a path of mappings that two options share: "model.rope_scaling." */
static size_t common_path(const char *a, const char *b) {
  size_t common = 0;
  for (size_t i = 0; a[i] && a[i] == b[i]; i++)
    if (a[i] == '.') common = i + 1;
  return common;
}

/* Goes from one path of mappings to another: closes those that end, opens those that begin. */
static int emit_path(yaml_emitter_t *emitter, const char *from, const char *to) {
  const size_t common = common_path(from, to);
  int good = 1;
  for (const char *dot = strchr(from + common, '.'); good && dot; dot = strchr(dot + 1, '.'))
    good = emit_mapping_end(emitter);
  for (const char *at = to + common; good && *at; at += strcspn(at, ".") + 1) {
    char key[OPTION_NAME_BYTES];
    (void)snprintf(key, sizeof key, "%.*s", (int)strcspn(at, "."), at);
    good = emit_key(emitter, key) && emit_mapping_start(emitter);
  }
  return good;
}

/* Emits all options, those of one section, and of a group in it, in a mapping of their own. */
static int emit_options(const Config *config, yaml_emitter_t *emitter) {
  int64_t count;
  const Option *table = options_table(&count);
  char path[OPTION_NAME_BYTES] = "", name[OPTION_NAME_BYTES];
  int good = emit_mapping_start(emitter);
  for (int64_t i = 0; good && i < count; i++) {
    const Option *option = &table[i];
    option_name(option, name, sizeof name);
    const char *dot = strrchr(name, '.');
    const size_t length = dot ? (size_t)(dot - name) + 1 : 0;
    char next[OPTION_NAME_BYTES];
    (void)snprintf(next, sizeof next, "%.*s", (int)length, name);
    good = emit_path(emitter, path, next) && emit_key(emitter, name + length) &&
           option_value_emit(option, config, emitter);
    memcpy(path, next, sizeof path);
  }
  return good && emit_path(emitter, path, "") && emit_mapping_end(emitter);
}

static int emit_document(const Config *config, yaml_emitter_t *emitter) {
  yaml_event_t event;
  return yaml_stream_start_event_initialize(&event, YAML_UTF8_ENCODING) &&
         yaml_emitter_emit(emitter, &event) &&
         yaml_document_start_event_initialize(&event, NULL, NULL, NULL, 1) &&
         yaml_emitter_emit(emitter, &event) && emit_options(config, emitter) &&
         yaml_document_end_event_initialize(&event, 1) && yaml_emitter_emit(emitter, &event) &&
         yaml_stream_end_event_initialize(&event) && yaml_emitter_emit(emitter, &event) &&
         yaml_emitter_flush(emitter);
}

Status config_dump(const Config *config, char **text, Error *error) {
  *text = NULL;
  size_t length = 0;
  FILE *stream = open_memstream(text, &length);
  if (!stream) return fail_errno(error, STATUS_SYSTEM, errno, "no memory to write the configuration");
  yaml_emitter_t emitter;
  int good = yaml_emitter_initialize(&emitter);
  if (good) {
    yaml_emitter_set_output_file(&emitter, stream);
    yaml_emitter_set_width(&emitter, -1);
    yaml_emitter_set_unicode(&emitter, 1);
    good = emit_document(config, &emitter);
    yaml_emitter_delete(&emitter);
  }
  if (fclose(stream) == 0 && good) return STATUS_OK;
  free(*text);
  *text = NULL;
  return fail(error, STATUS_SYSTEM, "no memory to write the configuration");
}
