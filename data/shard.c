/* One shard of tokens, plain, gzip or BGZF. */
#include "data/shard.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "data/bgzf.h"
#include "data/gzip.h"
#include "data/little_endian.h"
#include "kernels/base/file.h"

#define SHARD_MAGIC_U16 20240520U
#define SHARD_VERSION_U16 1U
#define SHARD_MAGIC_U32 20240801U
#define SHARD_VERSION_U32 7U

/* Bytes of tokens that are read and converted at once. */
#define SHARD_PIECE_BYTES 32768

typedef enum ShardPacking { SHARD_PLAIN, SHARD_BGZF, SHARD_GZIP } ShardPacking;

struct Shard {
  char *path;
  File file;          /* closed while the shard rests */
  int64_t file_bytes; /* when it was opened */
  ShardPacking packing;
  int token_bytes;
  int64_t tokens;
  int64_t vocab_size;
  bool indexed;       /* `index` is there; a plain shard needs none */
  bool index_kept;    /* the index of a gzip shard lies in its cache file, too */
  BlockIndex index;   /* of a compressed shard */
  uint8_t *block;     /* the expanded block at hand, or NULL */
  int64_t block_held; /* its number */
};

/* Bytes of the whole shard, without compression. */
static int64_t data_bytes(const Shard *shard) {
  return SHARD_HEADER_BYTES + shard->tokens * shard->token_bytes;
}

void shard_header(int64_t tokens, int token_bytes, uint8_t header[SHARD_HEADER_BYTES]) {
  memset(header, 0, SHARD_HEADER_BYTES);
  store_u32(header, token_bytes == 2 ? SHARD_MAGIC_U16 : SHARD_MAGIC_U32);
  store_u32(header + 4, token_bytes == 2 ? SHARD_VERSION_U16 : SHARD_VERSION_U32);
  store_u32(header + 8, (uint32_t)tokens);
}

static Status parse_header(Shard *shard, const uint8_t *header, Error *error) {
  const uint32_t magic = load_u32(header);
  const uint32_t version = load_u32(header + 4);
  const uint32_t tokens = load_u32(header + 8);
  if (magic != SHARD_MAGIC_U16 && magic != SHARD_MAGIC_U32) {
    return fail(error, STATUS_DATA,
                "%s: is not a token shard: byte 0 holds %u, not the magic number %u or %u; `ringgpt prepare` "
                "makes shards of text",
                shard->path, magic, SHARD_MAGIC_U16, SHARD_MAGIC_U32);
  }
  shard->token_bytes = magic == SHARD_MAGIC_U16 ? 2 : 4;
  if (version != (shard->token_bytes == 2 ? SHARD_VERSION_U16 : SHARD_VERSION_U32)) {
    return fail(error, STATUS_DATA, "%s: the shard's version at byte 4 is %u, which is not known",
                shard->path, version);
  }
  if (tokens > SHARD_TOKENS_MAX) {
    return fail(error, STATUS_DATA, "%s: the number of tokens at byte 8 is negative: damaged", shard->path);
  }
  shard->tokens = tokens;
  return STATUS_OK;
}

/* Makes the index of a gzip shard, from its cache or by expanding the whole file once. */
static Status index_gzip(Shard *shard, Error *error) {
  Error ignored = {0}; /* of a folder that cannot be written: the index is then in memory only */
  if (block_index_load(&shard->file, BLOCK_GZIP, &shard->index)) {
    shard->index_kept = shard->index.data_bytes == data_bytes(shard);
    if (shard->index_kept) return STATUS_OK;
    block_index_free(&shard->index);
  }
  TRY(gzip_scan(&shard->file, data_bytes(shard), &shard->index, error));
  shard->index_kept = block_index_save(&shard->file, BLOCK_GZIP, &shard->index, &ignored) == STATUS_OK;
  return STATUS_OK;
}

/* Makes the index of a compressed shard, if it is not there yet. */
static Status make_index(Shard *shard, Error *error) {
  if (shard->indexed || shard->packing == SHARD_PLAIN) return STATUS_OK;
  if (shard->packing == SHARD_GZIP) {
    TRY(index_gzip(shard, error));
  } else if (!block_index_load(&shard->file, BLOCK_BGZF, &shard->index)) {
    TRY(bgzf_scan(&shard->file, &shard->index, error));
  }
  shard->indexed = true;
  return STATUS_OK;
}

static Status expand_block(Shard *shard, int64_t block, Error *error) {
  if (shard->block != NULL && shard->block_held == block) return STATUS_OK;
  free(shard->block);
  shard->block = malloc((size_t)block_index_bytes(&shard->index, block));
  if (shard->block == NULL) {
    return fail(error, STATUS_SYSTEM, "%s: no memory left to expand a block", shard->path);
  }
  Status status = shard->packing == SHARD_BGZF
                      ? bgzf_expand(&shard->file, &shard->index, block, shard->block, error)
                      : gzip_expand(&shard->file, &shard->index, block, shard->block, error);
  if (status != STATUS_OK) {
    free(shard->block);
    shard->block = NULL;
  }
  shard->block_held = block;
  return status;
}

/* Reads bytes of the expanded shard; the range must lie in it. */
static Status read_bytes(Shard *shard, int64_t offset, uint8_t *to, int64_t bytes, Error *error) {
  if (shard->packing == SHARD_PLAIN) {
    return file_read_exact_at(&shard->file, offset, to, (size_t)bytes, error);
  }
  while (bytes > 0) {
    const int64_t block = block_index_find(&shard->index, offset);
    const int64_t inside = offset - shard->index.points[block].data_offset;
    const int64_t there = block_index_bytes(&shard->index, block) - inside;
    const int64_t part = bytes < there ? bytes : there;
    TRY(expand_block(shard, block, error));
    memcpy(to, shard->block + inside, (size_t)part);
    to += part;
    offset += part;
    bytes -= part;
  }
  return STATUS_OK;
}

/* Finds how the shard is packed and reads its header. */
static Status read_header(Shard *shard, uint8_t *header, Error *error) {
  const size_t start =
      shard->file_bytes < SHARD_HEADER_BYTES ? (size_t)shard->file_bytes : SHARD_HEADER_BYTES;
  if (start == 0) return fail(error, STATUS_DATA, "%s: is empty", shard->path);
  TRY(file_read_exact_at(&shard->file, 0, header, start, error));
  if (bgzf_recognise(header, start)) {
    shard->packing = SHARD_BGZF;
    TRY(make_index(shard, error));
    if (shard->index.data_bytes < SHARD_HEADER_BYTES) {
      return fail(error, STATUS_DATA, "%s: expands to %lld bytes, less than the %d of a token shard's header",
                  shard->path, (long long)shard->index.data_bytes, SHARD_HEADER_BYTES);
    }
    return read_bytes(shard, 0, header, SHARD_HEADER_BYTES, error);
  }
  if (start >= 2 && header[0] == 0x1f && header[1] == 0x8b) {
    shard->packing = SHARD_GZIP;
    return gzip_head(&shard->file, header, SHARD_HEADER_BYTES, error);
  }
  shard->packing = SHARD_PLAIN;
  if (start < SHARD_HEADER_BYTES) {
    return fail(error, STATUS_DATA, "%s: has %zu bytes, less than the %d of a token shard's header",
                shard->path, start, SHARD_HEADER_BYTES);
  }
  return STATUS_OK;
}

/* Checks that the shard holds what its header promises, as far as that is known without expanding it. A gzip
 * shard without tokens is expanded all the same: nothing of it will be read, which would show the damage. */
static Status check_size(Shard *shard, Error *error) {
  const int64_t promised = data_bytes(shard);
  if (shard->packing == SHARD_GZIP) return shard->tokens == 0 ? make_index(shard, error) : STATUS_OK;
  const int64_t there = shard->packing == SHARD_PLAIN ? shard->file_bytes : shard->index.data_bytes;
  if (there == promised) return STATUS_OK;
  return fail(
      error, STATUS_DATA,
      "%s: its header promises %lld tokens of %d bytes, %lld bytes in all, but there are %lld: the file "
      "is %s",
      shard->path, (long long)shard->tokens, shard->token_bytes, (long long)promised, (long long)there,
      there < promised ? "truncated" : "damaged, or something was appended to it");
}

Status shard_open(const char *path, int64_t vocab_size, Shard **out, Error *error) {
  uint8_t header[SHARD_HEADER_BYTES];
  *out = NULL;
  Status status = STATUS_OK;
  Shard *shard = calloc(1, sizeof *shard);
  if (shard == NULL) return fail(error, STATUS_SYSTEM, "%s: no memory left to open it", path);
  shard->file = FILE_CLOSED;
  shard->vocab_size = vocab_size;
  shard->path = strdup(path);
  if (shard->path == NULL) {
    status = fail(error, STATUS_SYSTEM, "%s: no memory left to open it", path);
    goto close;
  }
  TRY_GOTO(file_open_read(path, &shard->file, error), close);
  TRY_GOTO(file_size(&shard->file, &shard->file_bytes, error), close);
  TRY_GOTO(read_header(shard, header, error), close);
  TRY_GOTO(parse_header(shard, header, error), close);
  TRY_GOTO(check_size(shard, error), close);
  *out = shard;
  return STATUS_OK;
close:
  shard_close(shard);
  return status;
}

int64_t shard_tokens(const Shard *shard) {
  return shard->tokens;
}

int shard_token_bytes(const Shard *shard) {
  return shard->token_bytes;
}

/* Opens the file of a shard that rested; it must not have changed. */
static Status wake(Shard *shard, Error *error) {
  int64_t now = 0;
  if (shard->file.descriptor < 0) TRY(file_open_read(shard->path, &shard->file, error));
  TRY(file_size(&shard->file, &now, error));
  if (now != shard->file_bytes) {
    return fail(error, STATUS_DATA, "%s: changed while it was in use: it had %lld bytes and has %lld now",
                shard->path, (long long)shard->file_bytes, (long long)now);
  }
  return make_index(shard, error);
}

/* Turns `count` tokens as the file holds them into ids. */
static void convert_tokens(const uint8_t *raw, int token_bytes, int64_t count, int32_t *tokens) {
  if (token_bytes == 2) {
    for (int64_t i = 0; i < count; i++) tokens[i] = load_u16(raw + 2 * i);
  } else {
    for (int64_t i = 0; i < count; i++) tokens[i] = (int32_t)load_u32(raw + 4 * i);
  }
}

/* Checks the ids of tokens [first, first + count). */
static Status check_tokens(const Shard *shard, int64_t first, int64_t count, const int32_t *tokens,
                           Error *error) {
  uint32_t largest = 0; /* an id of 2^31 or more is negative in `tokens`, and large here */
  for (int64_t i = 0; i < count; i++) largest = (uint32_t)tokens[i] > largest ? (uint32_t)tokens[i] : largest;
  if (largest < shard->vocab_size) return STATUS_OK;
  int64_t i = 0;
  while ((uint32_t)tokens[i] < shard->vocab_size) i++;
  return fail(
      error, STATUS_DATA,
      "%s: token %lld, at byte %lld%s, is %u, but the vocabulary has %lld entries: the shard is damaged "
      "or was made with another tokenizer",
      shard->path, (long long)(first + i), (long long)(SHARD_HEADER_BYTES + (first + i) * shard->token_bytes),
      shard->packing == SHARD_PLAIN ? "" : " of its data", (unsigned)tokens[i], (long long)shard->vocab_size);
}

Status shard_read(Shard *shard, int64_t first, int64_t count, int32_t *tokens, Error *error) {
  uint8_t raw[SHARD_PIECE_BYTES];
  const int64_t piece = SHARD_PIECE_BYTES / shard->token_bytes;
  TRY(wake(shard, error));
  while (count > 0) {
    const int64_t part = count < piece ? count : piece;
    const int64_t offset = SHARD_HEADER_BYTES + first * shard->token_bytes;
    TRY(read_bytes(shard, offset, raw, part * shard->token_bytes, error));
    convert_tokens(raw, shard->token_bytes, part, tokens);
    TRY(check_tokens(shard, first, part, tokens, error));
    tokens += part;
    first += part;
    count -= part;
  }
  return STATUS_OK;
}

void shard_rest(Shard *shard) {
  file_close(&shard->file);
  free(shard->block);
  shard->block = NULL;
  /* Its windows are 32 KiB for each block: they are read again where that is possible. */
  if (shard->index_kept) {
    block_index_free(&shard->index);
    shard->indexed = false;
    shard->index_kept = false;
  }
}

void shard_close(Shard *shard) {
  if (shard == NULL) return;
  shard_rest(shard);
  block_index_free(&shard->index);
  free(shard->path);
  free(shard);
}
