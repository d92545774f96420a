/* One shard of tokens: the format of llm.c, as it is or compressed by gzip or BGZF, behind one interface.
 *
 *      0  256 x i32   header: [0] magic, [1] version, [2] number of tokens, the rest 0
 *   1024  tokens      magic 20240520, version 1: u16; magic 20240801, version 7: u32
 *
 * A shard is for one thread. */
#ifndef RINGGPT_DATA_SHARD_H
#define RINGGPT_DATA_SHARD_H

#include <stdint.h>

#include "kernels/base/status.h"

#define SHARD_HEADER_BYTES 1024

/* The most tokens of one shard: their number is an i32 of the header. */
#define SHARD_TOKENS_MAX INT32_MAX

typedef struct Shard Shard;

/* Fills in the header of a shard of `tokens` tokens of `token_bytes` (2 or 4) bytes. */
void shard_header(int64_t tokens, int token_bytes, uint8_t header[SHARD_HEADER_BYTES]);

/* Opens a shard and checks its header and size; a gzip file that is not BGZF is only checked as a whole at
 * the first read, or here if it promises no tokens. `vocab_size` bounds the token ids. STATUS_NO_INPUT,
 * STATUS_DATA. The caller closes *out. */
Status shard_open(const char *path, int64_t vocab_size, Shard **out, Error *error);

int64_t shard_tokens(const Shard *shard);

/* Bytes of one token in the file: 2 or 4. */
int shard_token_bytes(const Shard *shard);

/* Reads tokens [first, first + count), which the shard must hold, into tokens (count). STATUS_DATA for
 * damage, a token id beyond the vocabulary, and a file that changed since it was opened: the message names
 * file and offset. */
Status shard_read(Shard *shard, int64_t first, int64_t count, int32_t *tokens, Error *error);

/* Closes the file and frees the expanded block until the next read, and a gzip shard's index where its cache
 * file holds it, so that many shards can be kept. */
void shard_rest(Shard *shard);

/* Releases a shard; NULL is allowed. */
void shard_close(Shard *shard);

#endif
