/* Byte-pair encoding of one word: neighbouring tokens are merged, always the pair that was learned first. */
#ifndef RINGGPT_DATA_BPE_H
#define RINGGPT_DATA_BPE_H

#include <stddef.h>
#include <stdint.h>

#include "data/tokenizer.h"
#include "kernels/base/status.h"

typedef struct Bpe Bpe;

/* Makes an encoder without merges. byte_tokens (256): the token of each single byte. STATUS_SYSTEM. The
 * caller releases *out with bpe_destroy. */
Status bpe_create(const int32_t byte_tokens[256], Bpe **out, Error *error);

/* Adds the next merge: the pair (left, right) becomes `merged`. A pair that is there already keeps its place.
 * STATUS_SYSTEM. */
Status bpe_add_merge(Bpe *bpe, int32_t left, int32_t right, int32_t merged, Error *error);

/* Appends the tokens of one word to the list; time is bytes x log(bytes). STATUS_SYSTEM. */
Status bpe_encode(Bpe *bpe, const char *word, size_t bytes, TokenList *list, Error *error);

/* Releases an encoder; NULL is allowed. */
void bpe_destroy(Bpe *bpe);

#endif
