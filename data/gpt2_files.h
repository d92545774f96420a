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

#include <stdint.h>

#include "data/bpe.h"
#include "kernels/base/status.h"

/* Reads both files of `directory` into a new encoder. Fails as tokenizer_gpt2_open. */
Status gpt2_files_read(const char *directory, Bpe **out, int64_t *vocab_size, int32_t *end_of_document,
                       Error *error);

#endif
