/* The description of a prepared set: DIR/dataset.json, which `prepare` writes last, so that a set that has it
 * is complete. */
#ifndef RINGGPT_DATA_DESCRIPTION_H
#define RINGGPT_DATA_DESCRIPTION_H

#include <stdint.h>

#include "data/tokenizer.h"
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

/* A file of the tokenizer, as it was when the set was prepared. */
typedef struct DescribedFile {
  char name[32];
  int64_t bytes;
  uint32_t crc32; /* zlib's, of the whole file */
} DescribedFile;

typedef struct Description {
  char tokenizer[512];                       /* as tokenizer_open takes it */
  int64_t vocab_size;                        /* token ids are below it */
  int32_t end_of_document;                   /* the token behind each document */
  DescribedFile files[TOKENIZER_MOST_FILES]; /* (file_count) */
  int64_t file_count;                        /* 0: it has none, or they were not noted down yet */
  SplitDescription splits[SPLIT_COUNT];
} Description;

/* "train" or "val". */
const char *split_name(Split split);

/* The path of shard `shard` of a split, in a new block that the caller frees. STATUS_SYSTEM. */
Status split_shard_path(const char *directory, Split split, int64_t shard, char **out, Error *error);

/* Reads and checks DIR/dataset.json. STATUS_NO_INPUT when there is none, STATUS_DATA when it is damaged. */
Status description_read(const char *directory, Description *out, Error *error);

/* Notes down the files of the set's tokenizer. */
void description_set_files(Description *description, const TokenizerFiles *files);

/* Whether these are the files with which the set was prepared; a set whose files were not noted down takes
 * any. *other: the name of the first that is not, NULL: there is none. */
void description_compare_files(const Description *description, const TokenizerFiles *files,
                               const char **other);

/* Writes DIR/dataset.json durably. STATUS_IO. */
Status description_write(const char *directory, const Description *description, Error *error);

#endif
