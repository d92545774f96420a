/* Writes the tokens of one split into shards of a chosen size. */
#include "data/split_writer.h"

#include <stdlib.h>

#include "data/little_endian.h"
#include "data/shard.h"

/* Bytes of tokens that are converted at once. */
#define PIECE_BYTES 32768

static Status begin_shard(SplitWriter *writer, Error *error) {
  uint8_t header[SHARD_HEADER_BYTES];
  char *path = NULL;
  if (writer->shards == SPLIT_SHARDS_MAX) {
    return fail(error, STATUS_USAGE, "%s: more than %d shards: give more tokens per shard", writer->directory,
                SPLIT_SHARDS_MAX);
  }
  TRY(split_shard_path(writer->directory, writer->split, writer->shards, &path, error));
  /* The number of tokens is not known yet: bgzf_finish replaces the header. */
  shard_header(0, writer->token_bytes, header);
  const Status status = bgzf_create(path, header, sizeof header, &writer->shard, error);
  free(path);
  TRY(status);
  writer->shards++;
  writer->in_shard = 0;
  return STATUS_OK;
}

Status split_writer_finish(SplitWriter *writer, Error *error) {
  uint8_t header[SHARD_HEADER_BYTES];
  BgzfWriter *shard = writer->shard;
  if (shard == NULL) return STATUS_OK;
  writer->shard = NULL;
  shard_header(writer->in_shard, writer->token_bytes, header);
  return bgzf_finish(shard, header, error);
}

static void convert_tokens(const int32_t *tokens, int64_t count, int token_bytes, uint8_t *raw) {
  if (token_bytes == 2) {
    for (int64_t i = 0; i < count; i++) store_u16(raw + 2 * i, (uint16_t)tokens[i]);
  } else {
    for (int64_t i = 0; i < count; i++) store_u32(raw + 4 * i, (uint32_t)tokens[i]);
  }
}

Status split_writer_append(SplitWriter *writer, const int32_t *tokens, int64_t count, Error *error) {
  uint8_t raw[PIECE_BYTES];
  const int64_t piece = PIECE_BYTES / writer->token_bytes;
  while (count > 0) {
    if (writer->shard == NULL) TRY(begin_shard(writer, error));
    const int64_t room = writer->shard_tokens - writer->in_shard;
    int64_t part = count < piece ? count : piece;
    if (part > room) part = room;
    convert_tokens(tokens, part, writer->token_bytes, raw);
    TRY(bgzf_write(writer->shard, raw, (size_t)(part * writer->token_bytes), error));
    tokens += part;
    count -= part;
    writer->in_shard += part;
    writer->tokens += part;
    if (writer->in_shard == writer->shard_tokens) TRY(split_writer_finish(writer, error));
  }
  return STATUS_OK;
}

void split_writer_abandon(SplitWriter *writer) {
  bgzf_abandon(writer->shard);
  writer->shard = NULL;
}
