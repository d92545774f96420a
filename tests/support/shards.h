/* Token shards for tests. Every helper ends the test as failed when something does not work. */
#ifndef RINGGPT_SUPPORT_SHARDS_H
#define RINGGPT_SUPPORT_SHARDS_H

#include <stddef.h>
#include <stdint.h>

typedef enum ShardForm { FORM_PLAIN, FORM_BGZF, FORM_GZIP } ShardForm;
#define FORM_COUNT 3

/* Tokens (count) below `vocab_size` that look like text: repetitive enough for deflate, the same each time.
 * The caller frees them. */
int32_t *shards_tokens(int64_t count, int32_t vocab_size);

/* The bytes of a llm.c shard with these tokens, a new block. */
uint8_t *shards_bytes(const int32_t *tokens, int64_t count, int token_bytes, size_t *bytes);

/* Writes data in one of the forms; the BGZF form has its first 1024 bytes as header, and an index beside it.
 */
void shards_write_bytes(const char *path, ShardForm form, const uint8_t *data, size_t bytes);

/* Writes a shard of these tokens. */
void shards_write(const char *path, ShardForm form, const int32_t *tokens, int64_t count, int token_bytes);

#endif
