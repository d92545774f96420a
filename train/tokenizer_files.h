/* The tokenizer that a checkpoint carries, so that it makes text wherever it is taken: from the data set into
 * the checkpoint, and found there again.
 *
 *   gpt2    vocab.json and merges.txt under Hugging Face's names, and a tokenizer_config.json by which the
 *           AutoTokenizer of transformers knows what they are; beside a model of Mistral's type (a sliding
 *           window) AutoTokenizer asks for a tokenizer.json instead, and GPT2Tokenizer reads them
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
  int64_t count;
  char *missing; /* why a set that says what its tokenizer is gives no files: a line to be told; or NULL */
} CarriedTokenizer;

/* Collects the files for checkpoints of a run that trains on the shards of `pattern` (data.train). Those of
 * GPT-2's kind lie beside the shards; for a set that was prepared without them, they are looked for where
 * dataset.json says that they were. Without a dataset.json there are none, nor where the set's are no longer
 * to be found. STATUS_DATA when the set's own are damaged or of another tokenizer, STATUS_NO_INPUT when files
 * are there and cannot be read; otherwise fails as dataset_open. Release *out with tokenizer_files_free. */
Status tokenizer_files_collect(const char *pattern, CarriedTokenizer *out, Error *error);

/* Releases what it holds and empties it. */
void tokenizer_files_free(CarriedTokenizer *tokenizer);

/* The name, as tokenizer_open takes it, of the tokenizer that lies in the directory of a checkpoint or of any
 * model, in a new block that the caller frees. What a manifest lists of its files must be there and whole:
 * otherwise STATUS_DATA. STATUS_CONFIG when there is none that this program can read. */
Status tokenizer_files_find(const char *directory, char **name, Error *error);

#endif
