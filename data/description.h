/* The description of a prepared set: DIR/dataset.json, which `prepare` writes last, so that a set that has it
 * is complete. */
#ifndef RINGGPT_DATA_DESCRIPTION_H
#define RINGGPT_DATA_DESCRIPTION_H

#include <stdint.h>

#include "kernels/base/status.h"

#define DESCRIPTION_FILE "dataset.json"

/* The splits of a set; their shards are named train_000000.bin.gz, val_000000.bin.gz, ... */
typedef enum Split { SPLIT_TRAIN, SPLIT_VAL } Split;
#define SPLIT_COUNT 2

/* The names of a split's shards have six digits. */
#define SPLIT_SHARDS_MAX 1000000

typedef struct SplitDescription {
  int64_t shards;
  int64_t tokens; /* end-of-document tokens included */
  int64_t documents;
  int64_t bytes; /* of text */
} SplitDescription;

typedef struct Description {
  char tokenizer[512];     /* as tokenizer_open takes it */
  int64_t vocab_size;      /* token ids are below it */
  int32_t end_of_document; /* the token behind each document */
  SplitDescription splits[SPLIT_COUNT];
} Description;

/* "train" or "val". */
const char *split_name(Split split);

/* The path of shard `shard` of a split, in a new block that the caller frees. STATUS_SYSTEM. */
Status split_shard_path(const char *directory, Split split, int64_t shard, char **out, Error *error);

/* Reads and checks DIR/dataset.json. STATUS_NO_INPUT when there is none, STATUS_DATA when it is damaged. */
Status description_read(const char *directory, Description *out, Error *error);

/* Writes DIR/dataset.json durably. STATUS_IO. */
Status description_write(const char *directory, const Description *description, Error *error);

#endif
