/* The keys and values of the latest tokens: see the header. */
#include "model/kv_cache.h"

#include <stdlib.h>

#include "kernels/base/arena.h"
#include "kernels/base/memory.h"

/* The sizes that follow from the options. */
typedef struct Sizes {
  int64_t row;        /* elements of one position's k and v: 2 KV D */
  size_t piece_bytes; /* of a packed piece */
  size_t layer_bytes; /* of a layer's part of a block, packed as a whole or in pieces */
  int64_t blocks;
  size_t block_bytes; /* of all layers */
  size_t tail_bytes;
} Sizes;

struct KvCache {
  Device *device;
  AttentionDims dims;
  Sizes sizes;
  char *blocks; /* (blocks, layers, layer_bytes): block i of the text in place i mod blocks */
  elem *tail;   /* (layers, KV_BLOCK, row): the block that is not full yet, as rows */
};

static int64_t smaller(int64_t a, int64_t b) {
  return a < b ? a : b;
}

/* Blocks that n positions in a row touch at most, wherever they lie. */
static int64_t touched(int64_t n) {
  return n / KV_BLOCK + (n % KV_BLOCK > 1 ? 2 : 1);
}

/* ---------------------------------------------------------------- life */

static Sizes sizes_of(const Ops *ops, const KvCacheOptions *options) {
  const AttentionDims *dims = &options->dims;
  const size_t layers = (size_t)options->layers;
  const size_t whole = ops->attention.kv_bytes(dims, KV_BLOCK);
  Sizes sizes = {.row = 2 * dims->kv_heads * dims->head_dim,
                 .piece_bytes = ops->attention.kv_bytes(dims, KV_PIECE),
                 .blocks = smaller((options->most_tokens - 1) / KV_BLOCK + 1, touched(options->kept))};
  const size_t pieces = KV_BLOCK / KV_PIECE * sizes.piece_bytes;
  sizes.layer_bytes = pieces > whole ? pieces : whole;
  sizes.block_bytes = arena_times(layers, sizes.layer_bytes);
  sizes.tail_bytes = arena_times(arena_times(layers, KV_BLOCK), (size_t)sizes.row * ops->elem_size);
  return sizes;
}

size_t kv_cache_bytes(const Ops *ops, const KvCacheOptions *options) {
  const Sizes sizes = sizes_of(ops, options);
  return arena_plus(arena_times((size_t)sizes.blocks, sizes.block_bytes), sizes.tail_bytes);
}

Status kv_cache_create(Device *device, const KvCacheOptions *options, KvCache **out, Error *error) {
  Status status = STATUS_OK;
  void *memory = NULL;
  *out = NULL;
  TRY(memory_alloc(1, sizeof(KvCache), "keys and values", &memory, error));
  KvCache *cache = memory;
  *cache = (KvCache){.device = device, .dims = options->dims, .sizes = sizes_of(&device->ops, options)};
  const Sizes *sizes = &cache->sizes;
  const size_t bytes = arena_times((size_t)sizes->blocks, sizes->block_bytes);
  TRY_GOTO(device_alloc(device, bytes, "keys and values", &memory, error), destroy);
  cache->blocks = memory;
  TRY_GOTO(device_alloc(device, sizes->tail_bytes, "latest keys and values", &cache->tail, error), destroy);
  *out = cache;
  return STATUS_OK;
destroy:
  kv_cache_destroy(cache);
  return status;
}

void kv_cache_destroy(KvCache *cache) {
  if (cache == NULL) return;
  device_free(cache->device, cache->tail);
  device_free(cache->device, cache->blocks);
  free(cache);
}

/* ---------------------------------------------------------------- storing */

/* Where a layer's part of the block of `position` begins. */
static char *packed(const KvCache *cache, int64_t layer, int64_t position) {
  const size_t place = (size_t)(position / KV_BLOCK % cache->sizes.blocks);
  return cache->blocks + place * cache->sizes.block_bytes + (size_t)layer * cache->sizes.layer_bytes;
}

static char *piece(const KvCache *cache, int64_t layer, int64_t position) {
  return packed(cache, layer, position) + (size_t)(position % KV_BLOCK / KV_PIECE) * cache->sizes.piece_bytes;
}

/* The row of `position` in a layer's tail. */
static char *tail_row(const KvCache *cache, int64_t layer, int64_t position) {
  const int64_t row = layer * KV_BLOCK + position % KV_BLOCK;
  return (char *)cache->tail + (size_t)(row * cache->sizes.row) * cache->device->ops.elem_size;
}

static const char *row_at(const KvCache *cache, const elem *rows, int64_t row, int64_t stride) {
  return (const char *)rows + (size_t)(row * stride) * cache->device->ops.elem_size;
}

static void pack(const KvCache *cache, int64_t count, const void *rows, int64_t stride, void *to) {
  const size_t k_bytes = (size_t)(cache->sizes.row / 2) * cache->device->ops.elem_size;
  cache->device->ops.attention.pack_kv(cache->device, &cache->dims, count, rows, (const char *)rows + k_bytes,
                                       stride, to);
}

/* Adds rows to the tail, at most to the end of the block of `begin`, and packs what that changes. */
static void append_to_tail(KvCache *cache, int64_t layer, int64_t begin, int64_t count, const elem *kv,
                           int64_t stride) {
  const size_t size = cache->device->ops.elem_size;
  const size_t bytes = (size_t)cache->sizes.row * size;
  device_copy_rows(cache->device, tail_row(cache, layer, begin), bytes, kv, (size_t)stride * size, bytes,
                   count);
  const int64_t end = begin + count;
  if (end % KV_BLOCK == 0) {
    pack(cache, KV_BLOCK, tail_row(cache, layer, end - KV_BLOCK), cache->sizes.row,
         packed(cache, layer, begin));
    return;
  }
  for (int64_t at = begin / KV_PIECE * KV_PIECE; at < end; at += KV_PIECE) {
    pack(cache, smaller(KV_PIECE, end - at), tail_row(cache, layer, at), cache->sizes.row,
         piece(cache, layer, at));
  }
}

void kv_cache_append(KvCache *cache, int64_t layer, int64_t begin, int64_t count, const elem *kv,
                     int64_t stride) {
  for (int64_t done = 0; done < count;) {
    const int64_t at = begin + done;
    const int64_t part = smaller(count - done, KV_BLOCK - at % KV_BLOCK);
    const char *rows = row_at(cache, kv, done, stride);
    if (part == KV_BLOCK) {
      pack(cache, part, rows, stride, packed(cache, layer, at));
    } else {
      append_to_tail(cache, layer, at, part, rows, stride);
    }
    done += part;
  }
}

/* ---------------------------------------------------------------- reading */

void kv_cache_attend(const KvCache *cache, int64_t layer, int64_t begin, int64_t count, int64_t first,
                     const int64_t *first_key, void *state) {
  const int64_t end = begin + count;
  const int64_t whole_end = end / KV_BLOCK * KV_BLOCK;
  for (int64_t at = 0, length = 0; at < end; at += length) {
    length = at < whole_end ? KV_BLOCK : smaller(KV_PIECE, end - at);
    if (at + length <= first) continue;
    const void *kv = at < whole_end ? packed(cache, layer, at) : piece(cache, layer, at);
    cache->device->ops.attention.forward_block(cache->device, &cache->dims, count, begin, first_key, state,
                                               length, at, kv);
  }
}
