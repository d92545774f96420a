/* A set of shards seen as one long stream of tokens. */
#include "data/dataset.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <zlib.h>

#include "data/shard.h"
#include "data/shard_names.h"

/* Shards whose files are open at a time: a set may have more shards than a process may open files. */
#define DATASET_AWAKE 16

struct Dataset {
  int64_t count;
  Shard **shards;               /* (count) */
  uint32_t crc32;               /* dataset_crc32 */
  int64_t *starts;              /* (count + 1) first token of each shard in the stream */
  int64_t awake[DATASET_AWAKE]; /* shards whose files are open, -1: none */
  int next_to_rest;             /* the entry of `awake` that is replaced next */
};

/* The file of one shard is about to be used: closes that of the one that was opened longest ago. */
static void keep_awake(Dataset *dataset, int64_t shard) {
  for (int i = 0; i < DATASET_AWAKE; i++) {
    if (dataset->awake[i] == shard) return;
  }
  int64_t *entry = &dataset->awake[dataset->next_to_rest];
  if (*entry >= 0) shard_rest(dataset->shards[*entry]);
  *entry = shard;
  dataset->next_to_rest = (dataset->next_to_rest + 1) % DATASET_AWAKE;
}

static void identify(Dataset *dataset, const void *data, size_t bytes) {
  dataset->crc32 = (uint32_t)crc32_z(dataset->crc32, data, bytes);
}

/* Enters an open shard into the identity of the set. */
static Status identify_shard(Dataset *dataset, const char *path, const Shard *shard, Error *error) {
  const char *slash = strrchr(path, '/');
  const char *name = slash == NULL ? path : slash + 1;
  struct stat info;
  if (stat(path, &info) != 0) {
    return fail_errno(error, STATUS_NO_INPUT, errno, "%s: cannot be opened", path);
  }
  const int64_t numbers[] = {(int64_t)info.st_size, shard_tokens(shard)};
  identify(dataset, name, strlen(name) + 1);
  identify(dataset, numbers, sizeof numbers);
  return STATUS_OK;
}

/* Opens the next shard of the list and enters it behind the others. */
static Status add_shard(Dataset *dataset, const char *path, int64_t vocab_size, Error *error) {
  const int64_t shard = dataset->count;
  TRY(shard_open(path, vocab_size, &dataset->shards[shard], error));
  dataset->count++;
  const int width = shard_token_bytes(dataset->shards[shard]);
  const int first_width = shard_token_bytes(dataset->shards[0]);
  if (width != first_width) {
    return fail(error, STATUS_DATA,
                "%s: has tokens of %d bytes, but the shards before it have %d: they are of different sets",
                path, width, first_width);
  }
  dataset->starts[shard + 1] = dataset->starts[shard] + shard_tokens(dataset->shards[shard]);
  keep_awake(dataset, shard);
  return identify_shard(dataset, path, dataset->shards[shard], error);
}

static Status check_description(const Dataset *dataset, const ShardNames *names, int64_t vocab_size,
                                Error *error) {
  if (names->described && names->description.vocab_size > vocab_size) {
    return fail(error, STATUS_CONFIG,
                "%s/" DESCRIPTION_FILE
                ": the set was prepared with a vocabulary of %lld entries (tokenizer %s), "
                "but the model's has %lld: set model.vocab_size to %lld or more",
                names->directory, (long long)names->description.vocab_size, names->description.tokenizer,
                (long long)vocab_size, (long long)names->description.vocab_size);
  }
  if (names->tokens >= 0 && names->tokens != dataset_tokens(dataset)) {
    return fail(error, STATUS_DATA,
                "%s/" DESCRIPTION_FILE
                ": promises %lld tokens, but the shards hold %lld: prepare the set again",
                names->directory, (long long)names->tokens, (long long)dataset_tokens(dataset));
  }
  return STATUS_OK;
}

static Status open_shards(Dataset *dataset, const ShardNames *names, int64_t vocab_size, Error *error) {
  dataset->shards = calloc((size_t)names->count, sizeof(Shard *));
  dataset->starts = calloc((size_t)names->count + 1, sizeof *dataset->starts);
  if (dataset->shards == NULL || dataset->starts == NULL) {
    return fail(error, STATUS_SYSTEM, "%s: no memory left for %lld shards", names->directory,
                (long long)names->count);
  }
  for (int64_t i = 0; i < names->count; i++) TRY(add_shard(dataset, names->paths[i], vocab_size, error));
  if (names->described) {
    const int32_t end_of_document = names->description.end_of_document;
    identify(dataset, &end_of_document, sizeof end_of_document);
  }
  return check_description(dataset, names, vocab_size, error);
}

Status dataset_open(const char *pattern, int64_t vocab_size, Dataset **out, Error *error) {
  *out = NULL;
  Status status = STATUS_OK;
  ShardNames names = {0};
  Dataset *dataset = calloc(1, sizeof *dataset);
  if (dataset == NULL) return fail(error, STATUS_SYSTEM, "%s: no memory left to open it", pattern);
  for (int i = 0; i < DATASET_AWAKE; i++) dataset->awake[i] = -1;
  TRY_GOTO(shard_names_find(pattern, &names, error), close);
  TRY_GOTO(open_shards(dataset, &names, vocab_size, error), close);
  *out = dataset;
  dataset = NULL;
close:
  shard_names_free(&names);
  dataset_close(dataset);
  return status;
}

int64_t dataset_tokens(const Dataset *dataset) {
  return dataset->starts[dataset->count];
}

uint32_t dataset_crc32(const Dataset *dataset) {
  return dataset->crc32;
}

/* The shard that holds a token of the stream. */
static int64_t find_shard(const Dataset *dataset, int64_t token) {
  int64_t low = 0;
  int64_t high = dataset->count;
  while (high - low > 1) {
    const int64_t middle = low + (high - low) / 2;
    if (dataset->starts[middle] <= token) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return low;
}

Status dataset_read(Dataset *dataset, int64_t first, int64_t count, int32_t *tokens, Error *error) {
  while (count > 0) {
    const int64_t shard = find_shard(dataset, first);
    const int64_t there = dataset->starts[shard + 1] - first;
    const int64_t part = count < there ? count : there;
    keep_awake(dataset, shard);
    TRY(shard_read(dataset->shards[shard], first - dataset->starts[shard], part, tokens, error));
    tokens += part;
    first += part;
    count -= part;
  }
  return STATUS_OK;
}

void dataset_close(Dataset *dataset) {
  if (dataset == NULL) return;
  for (int64_t i = 0; i < dataset->count; i++) shard_close(dataset->shards[i]);
  free(dataset->shards);
  free(dataset->starts);
  free(dataset);
}

Status dataset_describe(const char *pattern, Description *out, bool *found, Error *error) {
  ShardNames names = {0};
  TRY(shard_names_find(pattern, &names, error));
  *found = names.described;
  *out = names.description;
  shard_names_free(&names);
  return STATUS_OK;
}
