/* Training runs inside a test. */
#include "tests/support/training.h"
#include "tests/support/expect.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/prepare.h"
#include "tests/support/compare.h"
#include "tests/support/temp_dir.h"
#include "tests/support/unit.h"
#include "train/grid.h"
#include "train/stop.h"
#include "train/trainer.h"

enum { DOCUMENTS = 240, WORDS = 64, PATH_BYTES = 512 };

/* Text with something to learn: words of a small vocabulary, each likely to be followed by a few others. */
static void write_document(const char *path, Random *random) {
  static const char *const words[] = {"ring", "hop",  "shard", "key",   "value", "head",  "loss", "norm",
                                      "rank", "step", "token", "model", "query", "state", "sum",  "mask"};
  char text[WORDS * 8] = "";
  size_t used = 0;
  int64_t word = random_below(random, 16);
  for (int i = 0; i < WORDS; i++) {
    used += (size_t)snprintf(text + used, sizeof text - used, "%s ", words[word]);
    word = (word * 5 + 1 + random_below(random, 3)) % 16;
  }
  temp_file_write(path, text, used);
}

char *training_path(const char *directory, const char *name) {
  char *path = NULL;
  assert_true(asprintf(&path, "%s/%s", directory, name) > 0);
  return path;
}

/* Shards in DIRECTORY/data: about 100,000 bytes in documents of some hundred. */
static void prepare_shards(const char *directory) {
  Random random = {5};
  const char *paths[DOCUMENTS];
  char *names[DOCUMENTS];
  for (int i = 0; i < DOCUMENTS; i++) {
    char name[32];
    (void)snprintf(name, sizeof name, "doc%03d.txt", i);
    names[i] = training_path(directory, name);
    paths[i] = names[i];
    write_document(names[i], &random);
  }
  char *out = training_path(directory, "data");
  const PrepareOptions options = {.out = out,
                                  .tokenizer = "bytes",
                                  .val_fraction = 0.2,
                                  .seed = 1,
                                  .shard_tokens = 30000,
                                  .paths = paths,
                                  .path_count = DOCUMENTS};
  Description description;
  Error error = {0};
  expect_ok(prepare(&options, &description, &error), &error);
  for (int i = 0; i < DOCUMENTS; i++) free(names[i]);
  free(out);
}

int training_set_up(void **state) {
  if (temp_dir_set_up(state) != 0) return -1;
  prepare_shards(training_directory(state));
  return 0;
}

const char *training_directory(void **state) {
  return ((const TempDir *)*state)->path;
}

Config training_config(const char *directory, const char *name, const char *const overrides[]) {
  enum { OWN = 3, MOST = 32 };
  char own[OWN][PATH_BYTES];
  char *all[MOST];
  int64_t count = 0;
  (void)snprintf(own[0], PATH_BYTES, "run.dir=%s/%s", directory, name);
  (void)snprintf(own[1], PATH_BYTES, "data.train=%s/data/train_*.bin.gz", directory);
  (void)snprintf(own[2], PATH_BYTES, "data.val=%s/data/val_*.bin.gz", directory);
  for (int i = 0; i < OWN; i++) all[count++] = own[i];
  char *copies[MOST] = {NULL};
  for (int i = 0; overrides != NULL && overrides[i] != NULL && count < MOST; i++) {
    copies[i] = strdup(overrides[i]);
    all[count++] = copies[i];
  }
  Config config;
  Error error = {0};
  const Status status = config_load("configs/tiny.yaml", all, count, &config, &error);
  for (int i = 0; i < MOST; i++) free(copies[i]);
  expect_ok(status, &error);
  return config;
}

Status training_run(const Config *config, Error *error) {
  StopWatch *stop = NULL;
  TRY(stop_watch_start(&stop, error));
  TrainerStart start = {.config = config, .stop = stop};
  const Status status = grid_run(config, NULL, trainer_run, &start, error);
  stop_watch_end(stop);
  return status;
}

static double real_or_nan(const json_t *value) {
  return json_is_number(value) ? json_number_value(value) : (double)NAN;
}

static void read_step(const json_t *record, Metrics *metrics) {
  if (json_object_get(record, "loss") == NULL || json_object_get(record, "eval") != NULL) return;
  assert_true(metrics->count < TRAINING_MOST_STEPS);
  const int64_t i = metrics->count++;
  assert_int_equal(json_integer_value(json_object_get(record, "step")), i + 1);
  metrics->loss[i] = real_or_nan(json_object_get(record, "loss"));
  metrics->learning_rate[i] = real_or_nan(json_object_get(record, "lr"));
  metrics->grad_norm[i] = real_or_nan(json_object_get(record, "grad_norm"));
  metrics->sequence_length[i] = json_integer_value(json_object_get(record, "sequence_length"));
  metrics->skipped[i] = json_is_true(json_object_get(record, "skipped"));
}

Metrics training_read_metrics(const Config *config) {
  Metrics metrics = {0};
  char *path = training_path(config->run.dir, "metrics.jsonl");
  char *text = temp_file_read_text(path);
  char *rest = NULL;
  char *end = strrchr(text, '\n'); /* what is behind it is being written by a run */
  text[end == NULL ? 0 : end - text] = '\0';
  for (char *line = strtok_r(text, "\n", &rest); line != NULL; line = strtok_r(NULL, "\n", &rest)) {
    json_t *record = json_loads(line, 0, NULL);
    assert_non_null(record);
    read_step(record, &metrics);
    json_decref(record);
  }
  free(text);
  free(path);
  return metrics;
}

Metrics training_metrics(const Config *config) {
  Error error = {0};
  expect_ok(training_run(config, &error), &error);
  return training_read_metrics(config);
}

char *training_checkpoint(const Config *config, int64_t step, const char *file) {
  char name[128];
  (void)snprintf(name, sizeof name, "checkpoints/step_%08lld/%s", (long long)step, file);
  return training_path(config->run.dir, name);
}

static void same_file(const Config *a, const Config *b, int64_t step, const char *file) {
  char *paths[2] = {training_checkpoint(a, step, file), training_checkpoint(b, step, file)};
  char command[3 * PATH_BYTES];
  (void)snprintf(command, sizeof command, "cmp '%s' '%s'", paths[0], paths[1]);
  if (system(command) != 0) fail_msg("%s and %s differ", paths[0], paths[1]);
  free(paths[0]);
  free(paths[1]);
}

void training_same_state(const Config *a, const Config *b, int64_t step) {
  same_file(a, b, step, "model.safetensors");
  const int64_t ranks = config_ranks(a);
  assert_int_equal(ranks, config_ranks(b));
  for (int64_t rank = 0; rank < ranks; rank++) {
    char file[96];
    (void)snprintf(file, sizeof file, "optimizer-%05lld-of-%05lld.safetensors", (long long)rank,
                   (long long)ranks);
    same_file(a, b, step, file);
  }
}
