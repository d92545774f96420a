/* Shards read and checkpoints saved, held against the same bytes in a plain file of the same folder: read
 * from the page cache, or written and synced. Bytes of a shard are those of its tokens, not compressed. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "checkpoints/checkpoint.h"
#include "data/dataset.h"
#include "kernels/base/clock.h"
#include "kernels/base/file.h"
#include "kernels/base/memory.h"
#include "model/params.h"
#include "tests/bench/memory.h"
#include "tests/bench/scratch.h"

enum { TOKEN_BYTES = 2, VOCABULARY = 50257, KEEP = 2, MOST_WINDOWS = 512 };

#define SHARD_TOKENS ((int64_t)1 << 23)
#define QUICK_SHARD_TOKENS ((int64_t)1 << 12)

/* A plain file of `bytes`, and where they come from or go to. */
typedef struct Plain {
  char path[384];
  void *memory;
  size_t bytes;
} Plain;

static double read_plain(Bench *bench, void *context) {
  const Plain *plain = context;
  File file = FILE_CLOSED;
  const double start = clock_seconds();
  if (file_open_read(plain->path, &file, &bench->error) == STATUS_OK) {
    (void)file_read_exact_at(&file, 0, plain->memory, plain->bytes, &bench->error);
  }
  file_close(&file);
  return clock_seconds() - start;
}

static double write_plain(Bench *bench, void *context) {
  const Plain *plain = context;
  File file = FILE_CLOSED;
  const double start = clock_seconds();
  if (file_create(plain->path, &file, &bench->error) == STATUS_OK &&
      file_write_all(&file, plain->memory, plain->bytes, &bench->error) == STATUS_OK) {
    (void)file_sync_close(&file, &bench->error);
  }
  file_close(&file);
  return clock_seconds() - start;
}

static Status open_plain(const Scratch *scratch, size_t bytes, Plain *plain, Error *error) {
  (void)scratch_path(scratch, "plain", plain->path);
  plain->bytes = bytes;
  return memory_alloc(bytes, 1, "the benchmark", &plain->memory, error);
}

/* ---------------------------------------------------------------- shards */

typedef struct Reading {
  Dataset *dataset;
  int64_t length, windows; /* windows of `length` tokens of `all`, not in the order of the file */
  int64_t all;
  int32_t *tokens; /* (length) */
} Reading;

/* Windows from all over the file, each once: the odd number has no divisor in common with the power of two.
 */
static double read_windows(Bench *bench, void *context) {
  const Reading *reading = context;
  const double start = clock_seconds();
  for (int64_t i = 0; i < reading->windows && bench->error.status == STATUS_OK; i++) {
    const int64_t window = (i * 2731 + 11) % reading->all;
    (void)dataset_read(reading->dataset, window * reading->length, reading->length, reading->tokens,
                       &bench->error);
  }
  return clock_seconds() - start;
}

static void read_shards(Bench *bench, const Scratch *scratch, int64_t total, int64_t length) {
  Case c;
  char pattern[384];
  Reading reading = {.length = length, .all = total / length, .windows = total / length};
  if (reading.windows > MOST_WINDOWS) reading.windows = MOST_WINDOWS;
  Plain plain = {0};
  Error *error = &bench->error;
  void *tokens = NULL;
  if (!bench_begin(bench, &c, ELEMENT_F32, LIMIT_FILE, "shards read, BGZF, %lld windows of %lld tokens",
                   (long long)reading.windows, (long long)length)) {
    return;
  }
  c.tokens = (double)(reading.windows * length);
  c.work = TOKEN_BYTES * c.tokens;
  if (open_plain(scratch, (size_t)c.work, &plain, error) == STATUS_OK) {
    (void)write_plain(bench, &plain);
    (void)memory_alloc((size_t)length, sizeof(int32_t), "the benchmark", &tokens, error);
    (void)dataset_open(scratch_path(scratch, "train_*.bin.gz", pattern), VOCABULARY, &reading.dataset, error);
  }
  reading.tokens = tokens;
  bench->file = (FilePeak){read_plain, &plain, c.work};
  bench_repeat(bench, &c, read_windows, &reading);
  dataset_close(reading.dataset);
  free(tokens);
  free(plain.memory);
}

/* ---------------------------------------------------------------- checkpoints */

typedef struct Saving {
  TensorTable table;
  CheckpointRange range;
  CheckpointState state;
  CheckpointManifest manifest;
  Comm *world;
  char directory[384];
} Saving;

static double save(Bench *bench, void *context) {
  Saving *saving = context;
  const CheckpointLog log = {.warn = NULL};
  saving->manifest.step++;
  const double start = clock_seconds();
  (void)checkpoint_save(saving->directory, KEEP, &saving->manifest, &saving->state, &log, saving->world,
                        &bench->error);
  return clock_seconds() - start;
}

/* A GPT-2 of two layers, or a tiny one. `memory` then holds its weights and moments. */
static Status open_saving(const Bench *bench, const Scratch *scratch, Saving *saving, Plain *plain,
                          Error *error) {
  const ModelConfig model = {.vocab_size = bench->quick ? 64 : 8192,
                             .hidden_size = bench->quick ? 16 : 768,
                             .num_hidden_layers = 2,
                             .num_attention_heads = 1,
                             .num_key_value_heads = 1,
                             .intermediate_size = bench->quick ? 32 : 3072,
                             .max_position_embeddings = 64,
                             .initializer_range = 0.02,
                             .position = POSITION_LEARNED,
                             .norm = NORM_LAYERNORM,
                             .activation = ACTIVATION_GELU,
                             .bias = true,
                             .tie_word_embeddings = true};
  TRY(params_build(&model, &saving->table, NULL, error));
  const int64_t total = saving->table.total;
  TRY(open_plain(scratch, 3 * (size_t)total * sizeof(float), plain, error));
  float *floats = plain->memory;
  for (int i = 0; i < 3; i++) params_init(&saving->table, (uint64_t)i, floats + i * total);
  saving->range = (CheckpointRange){0, total};
  saving->state = (CheckpointState){.table = &saving->table,
                                    .weights = floats,
                                    .ranges = &saving->range,
                                    .range_count = 1,
                                    .m = floats + total,
                                    .v = floats + 2 * total,
                                    .model_config = "{}\n",
                                    .run_config = "\n"};
  saving->manifest = (CheckpointManifest){.ring = 1, .data = 1, .threads = 1, .transport = "local"};
  (void)scratch_path(scratch, "checkpoints", saving->directory);
  return comm_local_create(1, &saving->world, error);
}

static void save_checkpoints(Bench *bench, const Scratch *scratch) {
  Case c;
  Saving saving = {0};
  Plain plain = {0};
  if (!bench_begin(bench, &c, ELEMENT_F32, LIMIT_FILE, "checkpoint saved, GPT-2 of two layers")) return;
  (void)open_saving(bench, scratch, &saving, &plain, &bench->error);
  c.work = (double)plain.bytes;
  bench->file = (FilePeak){write_plain, &plain, c.work};
  bench_repeat(bench, &c, save, &saving);
  comm_destroy(saving.world);
  params_free(&saving.table, NULL);
  free(plain.memory);
}

void bench_files(Bench *bench) {
  Scratch scratch = {.path = ""};
  const int64_t total = bench->quick ? QUICK_SHARD_TOKENS : SHARD_TOKENS;
  if (scratch_create(&scratch, &bench->error) != STATUS_OK ||
      scratch_shards(&scratch, total, VOCABULARY, &bench->error) != STATUS_OK) {
    bench_leave_out(bench, "shards and checkpoints", true, bench->error.text);
  } else {
    read_shards(bench, &scratch, total, bench->quick ? 64 : 1024);
    bench_release(bench);
    read_shards(bench, &scratch, total, bench->quick ? 1024 : 65536);
    bench_release(bench);
    save_checkpoints(bench, &scratch);
  }
  bench_release(bench);
  scratch_remove(&scratch);
}
