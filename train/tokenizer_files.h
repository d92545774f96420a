/* The tokenizer that a checkpoint carries, so that it makes text wherever it is taken: from the data set into
 * the checkpoint, and found there again.
 *
 *   gpt2    vocab.json and merges.txt under Hugging Face's names, and a tokenizer_config.json by which
 *           AutoTokenizer knows what they are
 *   bytes   ringgpt_tokenizer.json: {"tokenizer": "bytes", "vocab_size": 257, "end_of_document": 256}
 */
#ifndef RINGGPT_TRAIN_TOKENIZER_FILES_H
#define RINGGPT_TRAIN_TOKENIZER_FILES_H

#include <stdint.h>

#include "checkpoints/checkpoint.h"
#include "kernels/base/status.h"

#define TOKENIZER_FILES_MOST 3

/* Start with `CarriedTokenizer tokenizer = {0};`. */
typedef struct CarriedTokenizer {
  CheckpointFile files[TOKENIZER_FILES_MOST]; /* (count) for CheckpointState.extra */
  char *owned[TOKENIZER_FILES_MOST];          /* (count) their data */
  int64_t count;                              /* 0: the data set does not say what its tokenizer is */
} CarriedTokenizer;

/* Collects the files for checkpoints of a run that trains on the shards of `pattern` (data.train). Those of
 * GPT-2's kind lie beside the shards; for a set that was prepared without them, they are looked for where
 * dataset.json says that they were. Without a dataset.json, or where they are no longer to be found, there
 * are none. STATUS_DATA when the set's own are damaged or of another tokenizer; otherwise fails as
 * dataset_open. Release *out with tokenizer_files_free. */
Status tokenizer_files_collect(const char *pattern, CarriedTokenizer *out, Error *error);

/* Releases what it holds and empties it. */
void tokenizer_files_free(CarriedTokenizer *tokenizer);

/* The name, as tokenizer_open takes it, of the tokenizer that lies in the directory of a checkpoint or of any
 * model, in a new block that the caller frees. Its files are verified where a manifest lists them.
 * STATUS_CONFIG when there is none that this program can read, STATUS_DATA when it is damaged. */
Status tokenizer_files_find(const char *directory, char **name, Error *error);

#endif
