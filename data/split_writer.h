/* Writes the tokens of one split into shards of a chosen size. */
#ifndef RINGGPT_DATA_SPLIT_WRITER_H
#define RINGGPT_DATA_SPLIT_WRITER_H

#include <stdint.h>

#include "data/bgzf.h"
#include "data/description.h"
#include "kernels/base/status.h"

/* Fill in the first four, the rest zero. */
typedef struct SplitWriter {
  const char *directory;
  Split split;
  int token_bytes;      /* 2 or 4 */
  int64_t shard_tokens; /* tokens of each shard but the last */
  BgzfWriter *shard;    /* the shard under way, or NULL */
  int64_t in_shard;     /* tokens in it */
  int64_t shards;       /* begun so far */
  int64_t tokens;       /* written so far */
} SplitWriter;

/* Appends tokens (count), which must fit token_bytes. STATUS_IO. */
Status split_writer_append(SplitWriter *writer, const int32_t *tokens, int64_t count, Error *error);

/* Completes the last shard. STATUS_IO. */
Status split_writer_finish(SplitWriter *writer, Error *error);

/* Gives up the shard under way. */
void split_writer_abandon(SplitWriter *writer);

#endif
