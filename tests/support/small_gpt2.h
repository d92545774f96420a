/* A small tokenizer of GPT-2's kind for tests: 60 merges that were learned from a few sentences. Token b is
 * the byte b, token 256 + i is merge i, the last one ends a document. */
#ifndef RINGGPT_SUPPORT_SMALL_GPT2_H
#define RINGGPT_SUPPORT_SMALL_GPT2_H

#include <stddef.h>
#include <stdint.h>

#include "tests/support/temp_dir.h"

#define SMALL_GPT2_MERGES 60
#define SMALL_GPT2_VOCAB (256 + SMALL_GPT2_MERGES + 1)

/* Writes its two files into a folder of the temporary directory, under these names. */
void small_gpt2_write(TempDir *directory, const char *folder, const char *vocabulary_name,
                      const char *merges_name);

/* The bytes of a token below the last, by the list of merges, into `out` of 16 bytes; returns their number.
 */
size_t small_gpt2_token(int32_t token, char *out);

#endif
