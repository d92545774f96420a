/* The files of GPT-2's tokenizer: a vocabulary as JSON and a list of merges as text.
 *
 *   vocab.json   {"!": 0, ..., "<|endoftext|>": 50256}: tokens and their ids, which are 0 ... n - 1
 *   merges.txt   "#version: 0.2", then one merge a line, in the order in which they were learned: "left
 * right"
 *
 * In both a token is written with one printable character for each of its bytes: the bytes of printable
 * Latin-1 characters stand for themselves, the other 68 for U+0100 and on, in order. */
#ifndef RINGGPT_DATA_GPT2_FILES_H
#define RINGGPT_DATA_GPT2_FILES_H

#include <stdbool.h>
#include <stdint.h>

#include "data/bpe.h"
#include "data/tokenizer.h"
#include "kernels/base/status.h"

#define GPT2_VOCABULARY_FILE "vocab.json"
#define GPT2_MERGES_FILE "merges.txt"

/* What the two files say. Start with `Gpt2Files files = {0};`. */
typedef struct Gpt2Files {
  Bpe *bpe;                /* the merges */
  int64_t vocab_size;      /* token ids are below it */
  int32_t end_of_document; /* "<|endoftext|>" */
  char *text;              /* the bytes of all tokens, one behind the other; end_of_document has none */
  int64_t *starts;         /* (vocab_size + 1) where those of each token begin */
} Gpt2Files;

/* Reads both files of `directory`. Fails as tokenizer_gpt2_open; the caller releases *out in any case. */
Status gpt2_files_read(const char *directory, Gpt2Files *out, Error *error);

/* Releases what it holds and empties it. */
void gpt2_files_free(Gpt2Files *files);

/* Whether the directory has both files, under either of their names. */
bool gpt2_files_exist(const char *directory);

/* The contents of both files as they are, for tokenizer_read_files. */
Status gpt2_files_load(const char *directory, TokenizerFiles *out, Error *error);

#endif
