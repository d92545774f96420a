/* Training runs in which some steps have no finite loss. */
#include "tests/support/poison.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoints/checkpoint.h"
#include "kernels/base/memory.h"
#include "model/params.h"
#include "tests/support/expect.h"
#include "tests/support/temp_dir.h"
#include "tests/support/training.h"
#include "tests/support/unit.h"
#include "train/grid.h"
#include "train/hf_model.h"

enum { LENGTH = 64, SAMPLES = POISON_STEPS * POISON_BATCH };

/* Saves the checkpoint of step 0. */
static Status save_poisoned(Rank *rank, void *context, Error *error) {
  const Config *config = context;
  TensorTable table;
  void *memory[3] = {NULL};
  char *text = NULL;
  TRY(params_build(&config->model, &table, NULL, error));
  for (int i = 0; i < 3; i++) {
    TRY(memory_alloc((size_t)table.total, sizeof(float), "weights", &memory[i], error));
  }
  float *weights = memory[0];
  params_init(&table, 1, weights);
  weights[(int64_t)'Z' * config->model.hidden_size] = NAN;
  TRY(hf_model_text(&config->model, 256, &text, error));
  CheckpointManifest manifest = {
      .ring = config->parallelism.ring, .data = config->parallelism.data, .threads = 1, .transport = "local"};
  CheckpointRange range;
  comm_part(table.total, rank->world->rank, rank->world->size, &range.begin, &range.end);
  const CheckpointState save = {.table = &table,
                                .weights = weights,
                                .ranges = &range,
                                .range_count = 1,
                                .m = (float *)memory[1] + range.begin,
                                .v = (float *)memory[2] + range.begin,
                                .model_config = text,
                                .run_config = ""};
  char directory[CONFIG_TEXT_BYTES + 16];
  (void)snprintf(directory, sizeof directory, "%s/checkpoints", config->run.dir);
  const CheckpointLog log = {0};
  const Status status = checkpoint_save(directory, 2, &manifest, &save, &log, rank->world, error);
  free(text);
  for (int i = 0; i < 3; i++) free(memory[i]);
  params_free(&table, NULL);
  return status;
}

void poison_shard(const char *path, int64_t first, int64_t end) {
  const int64_t count = SAMPLES * LENGTH + 1;
  uint16_t *shard = calloc((size_t)(512 + count), sizeof *shard);
  assert_non_null(shard);
  const int32_t header[3] = {20240520, 1, (int32_t)count};
  memcpy(shard, header, sizeof header);
  for (int64_t i = 0; i < count; i++) {
    const int64_t sample = i / LENGTH;
    shard[512 + i] = (uint16_t)('a' + (i * i + sample) % 16);
    if (i % LENGTH == 5 && sample >= first && sample < end) shard[512 + i] = 'Z';
  }
  temp_file_write(path, shard, (size_t)(512 + count) * sizeof *shard);
  free(shard);
}

Config poison_config(const char *directory, const char *name, char **shard) {
  char data[CONFIG_TEXT_BYTES];
  *shard = training_path(directory, name);
  (void)snprintf(data, sizeof data, "data.train=%s", *shard);
  const char *const overrides[] = {data,
                                   "data.shuffle=false",
                                   "data.document_mask=false",
                                   "data.val=",
                                   "train.sequence_length=64",
                                   "train.global_batch_size=2",
                                   "train.micro_batch_size=1",
                                   "train.steps=24",
                                   "checkpoint.every=1",
                                   "checkpoint.keep=40",
                                   NULL};
  char run[64];
  (void)snprintf(run, sizeof run, "run-%s", name);
  const Config config = training_config(directory, run, overrides);
  Error error = {0};
  Config copy = config;
  expect_ok(grid_run(&config, NULL, save_poisoned, &copy, &error), &error);
  return config;
}
