/* ringgpt inspect: what a shard, a prepared set, a checkpoint or a safetensors file holds, and whether it is
 * whole: everything is read and checked before anything is printed about it. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "checkpoints/checkpoint.h"
#include "checkpoints/hf_config.h"
#include "checkpoints/safetensors.h"
#include "data/bgzf.h"
#include "data/description.h"
#include "data/shard.h"
#include "kernels/base/file.h"
#include "kernels/base/memory.h"
#include "train/commands.h"
#include "train/progress.h"

#define MODEL_FILE "model.safetensors"
#define PIECE_TOKENS 65536
#define COUNT_BYTES 32

/* What was found in a shard. */
typedef struct ShardReport {
  const char *packing;
  int64_t file_bytes;
  int token_bytes;
  int64_t tokens;
  int32_t largest; /* token id; -1: there is none */
} ShardReport;

static Status join(const char *directory, const char *name, char path[PATH_MAX], Error *error) {
  if (snprintf(path, PATH_MAX, "%s/%s", directory, name) < PATH_MAX) return STATUS_OK;
  return fail(error, STATUS_IO, "%s/%s: the path is too long", directory, name);
}

static bool holds(const char *directory, const char *name) {
  char path[PATH_MAX];
  Error ignored = {0};
  return join(directory, name, path, &ignored) == STATUS_OK && file_exists(path);
}

/* ---------------------------------------------------------------- shards */

static Status find_packing(const char *path, ShardReport *report, Error *error) {
  uint8_t start[BGZF_HEADER_BYTES] = {0};
  File file = FILE_CLOSED;
  Status status = STATUS_OK;
  TRY(file_open_read(path, &file, error));
  TRY_GOTO(file_size(&file, &report->file_bytes, error), close);
  const size_t there =
      report->file_bytes < BGZF_HEADER_BYTES ? (size_t)report->file_bytes : BGZF_HEADER_BYTES;
  TRY_GOTO(file_read_exact_at(&file, 0, start, there, error), close);
  const bool gzip = start[0] == 0x1f && start[1] == 0x8b;
  report->packing = bgzf_recognise(start, there) ? "BGZF" : gzip ? "gzip" : "not compressed";
close:
  file_close(&file);
  return status;
}

/* Reads a whole shard, with all its checks. */
static Status read_shard(const char *path, int64_t vocab_size, ShardReport *report, Error *error) {
  Shard *shard = NULL;
  void *memory = NULL;
  Status status = STATUS_OK;
  *report = (ShardReport){.largest = -1};
  TRY(find_packing(path, report, error));
  TRY(memory_alloc(PIECE_TOKENS, sizeof(int32_t), "the tokens of a shard", &memory, error));
  int32_t *tokens = memory;
  TRY_GOTO(shard_open(path, vocab_size, &shard, error), done);
  report->tokens = shard_tokens(shard);
  report->token_bytes = shard_token_bytes(shard);
  for (int64_t first = 0; first < report->tokens; first += PIECE_TOKENS) {
    const int64_t left = report->tokens - first;
    const int64_t count = left < PIECE_TOKENS ? left : PIECE_TOKENS;
    TRY_GOTO(shard_read(shard, first, count, tokens, error), done);
    for (int64_t i = 0; i < count; i++)
      if (tokens[i] > report->largest) report->largest = tokens[i];
  }
done:
  shard_close(shard);
  free(memory);
  return status;
}

static void print_shard(const char *path, const ShardReport *report) {
  char bytes[COUNT_BYTES], tokens[COUNT_BYTES];
  progress_count(report->file_bytes, bytes, sizeof bytes);
  progress_count(report->tokens, tokens, sizeof tokens);
  (void)printf("%s: whole shard, %s, %s bytes: %s tokens of %d bytes, largest id %d\n", path, report->packing,
               bytes, tokens, report->token_bytes, (int)report->largest);
}

static Status inspect_shard(const char *path, Error *error) {
  ShardReport report;
  TRY(read_shard(path, INT32_MAX, &report, error));
  print_shard(path, &report);
  return STATUS_OK;
}

static Status inspect_split(const char *directory, const Description *set, Split split, Error *error) {
  const SplitDescription *described = &set->splits[split];
  int64_t tokens = 0;
  for (int64_t i = 0; i < described->shards; i++) {
    char *path = NULL;
    ShardReport report;
    TRY(split_shard_path(directory, split, i, &path, error));
    const Status status = read_shard(path, set->vocab_size, &report, error);
    if (status == STATUS_OK) print_shard(path, &report);
    free(path);
    TRY(status);
    tokens += report.tokens;
  }
  if (tokens == described->tokens) return STATUS_OK;
  return fail(error, STATUS_DATA,
              "%s: its " DESCRIPTION_FILE
              " says that %s has %lld tokens, but its shards hold %lld: prepare it anew",
              directory, split_name(split), (long long)described->tokens, (long long)tokens);
}

static Status inspect_set(const char *directory, Error *error) {
  Description set;
  TRY(description_read(directory, &set, error));
  for (int split = 0; split < SPLIT_COUNT; split++) TRY(inspect_split(directory, &set, (Split)split, error));
  (void)printf("%s: whole prepared set, tokenizer %s, vocabulary of %lld, end of document %d\n", directory,
               set.tokenizer, (long long)set.vocab_size, (int)set.end_of_document);
  for (int split = 0; split < SPLIT_COUNT; split++) {
    char documents[COUNT_BYTES], tokens[COUNT_BYTES];
    progress_count(set.splits[split].documents, documents, sizeof documents);
    progress_count(set.splits[split].tokens, tokens, sizeof tokens);
    (void)printf("  %-5s  %s documents, %s tokens\n", split_name((Split)split), documents, tokens);
  }
  return STATUS_OK;
}

/* ---------------------------------------------------------------- checkpoints */

static void print_tensors(const Safetensors *tensors) {
  int64_t elements = 0;
  char count[COUNT_BYTES];
  for (int64_t i = 0; i < tensors->count; i++) {
    const SafetensorsEntry *entry = &tensors->entries[i];
    (void)printf("  %-56s %-5s [", entry->name, entry->dtype);
    for (int d = 0; d < entry->rank; d++) (void)printf("%s%lld", d ? ", " : "", (long long)entry->shape[d]);
    (void)printf("]\n");
    elements += entry->count;
  }
  progress_count(elements, count, sizeof count);
  (void)printf("  %lld tensors, %s elements\n", (long long)tensors->count, count);
}

static Status inspect_tensors(const char *path, Error *error) {
  Safetensors tensors = SAFETENSORS_CLOSED;
  TRY(safetensors_open(path, &tensors, error));
  (void)printf("%s: safetensors file with a sound header; it carries no checksum of its data\n", path);
  print_tensors(&tensors);
  safetensors_close(&tensors);
  return STATUS_OK;
}

static void print_manifest(const char *path, const CheckpointManifest *manifest, const HfConfig *model) {
  const time_t seconds = (time_t)manifest->time;
  struct tm utc;
  char saved[32], tokens[COUNT_BYTES];
  (void)strftime(saved, sizeof saved, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&seconds, &utc));
  progress_count(manifest->tokens, tokens, sizeof tokens);
  (void)printf("%s: whole checkpoint, saved %s\n", path, saved);
  (void)printf("  step %lld, %s tokens seen, %lld steps skipped\n", (long long)manifest->step, tokens,
               (long long)manifest->skipped_steps);
  (void)printf("  ring %lld x data %lld, transport %s, threads of a rank: %lld\n", (long long)manifest->ring,
               (long long)manifest->data, manifest->transport, (long long)manifest->threads);
  (void)printf("  %lld layers, hidden %lld, heads %lld, key and value heads %lld, vocabulary %lld\n",
               (long long)model->num_hidden_layers, (long long)model->hidden_size,
               (long long)model->num_attention_heads, (long long)model->num_key_value_heads,
               (long long)model->vocab_size);
}

static Status inspect_checkpoint(const char *directory, Error *error) {
  CheckpointManifest manifest;
  HfConfig model;
  Safetensors tensors = SAFETENSORS_CLOSED;
  char weights[PATH_MAX];
  TRY(checkpoint_verify(directory, &manifest, error));
  TRY(hf_config_read(directory, &model, error));
  TRY(join(directory, MODEL_FILE, weights, error));
  TRY(safetensors_open(weights, &tensors, error));
  print_manifest(directory, &manifest, &model);
  print_tensors(&tensors);
  safetensors_close(&tensors);
  return STATUS_OK;
}

/* ---------------------------------------------------------------- what is it? */

static Status inspect_directory(const char *path, Error *error) {
  char weights[PATH_MAX];
  if (holds(path, MANIFEST_NAME)) return inspect_checkpoint(path, error);
  if (holds(path, DESCRIPTION_FILE)) return inspect_set(path, error);
  if (!holds(path, MODEL_FILE))
    return fail(error, STATUS_NO_INPUT,
                "%s: is no checkpoint (no " MANIFEST_NAME "), no prepared set (no " DESCRIPTION_FILE
                ") and has no " MODEL_FILE "; name a directory that is, or a file in it",
                path);
  TRY(join(path, MODEL_FILE, weights, error));
  return inspect_tensors(weights, error);
}

Status command_inspect(const CommandLine *line, Error *error) {
  const char *path = line->arguments[0];
  const char *ending = strrchr(path, '.');
  struct stat info;
  if (stat(path, &info) == 0 && S_ISDIR(info.st_mode)) return inspect_directory(path, error);
  if (ending && strcmp(ending, ".safetensors") == 0) return inspect_tensors(path, error);
  return inspect_shard(path, error);
}
