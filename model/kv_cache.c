/* The keys and values of all tokens seen so far. */
#include "model/kv_cache.h"

#include <stdlib.h>

#include "kernels/base/memory.h"

struct KvCache {
  Device *device;
  AttentionDims dims;
  int64_t layers;
  int64_t row;        /* elements of one position's k and v: 2 KV D */
  size_t piece_bytes; /* of a packed piece */
  size_t layer_bytes; /* of a layer's part of a block, packed as a whole or in pieces */
  int64_t capacity;   /* blocks of most_tokens */
  int64_t first;      /* blocks [first, end) are in use */
  int64_t end;
  int64_t spare_count;
  void **blocks; /* (capacity) each (layers, layer_bytes) */
  void **spares; /* (capacity) memory of forgotten blocks */
  elem *tail;    /* (layers, KV_BLOCK, row): the block that is not full yet, as rows */
};

static int64_t smaller(int64_t a, int64_t b) {
  return a < b ? a : b;
}

/* ---------------------------------------------------------------- life */

static Status build(KvCache *cache, Error *error) {
  const AttentionOps *ops = &cache->device->ops.attention;
  const size_t size = cache->device->ops.elem_size;
  const size_t whole_bytes = ops->kv_bytes(&cache->dims, KV_BLOCK);
  cache->piece_bytes = ops->kv_bytes(&cache->dims, KV_PIECE);
  cache->layer_bytes = KV_BLOCK / KV_PIECE * cache->piece_bytes;
  if (cache->layer_bytes < whole_bytes) cache->layer_bytes = whole_bytes;
  void *memory = NULL;
  TRY(memory_alloc((size_t)cache->capacity, sizeof(void *), "table of keys and values", &memory, error));
  cache->blocks = memory;
  TRY(memory_alloc((size_t)cache->capacity, sizeof(void *), "table of keys and values", &memory, error));
  cache->spares = memory;
  return device_alloc(cache->device, (size_t)(cache->layers * KV_BLOCK * cache->row) * size,
                      "latest keys and values", &cache->tail, error);
}

Status kv_cache_create(Device *device, const AttentionDims *dims, int64_t layers, int64_t most_tokens,
                       KvCache **out, Error *error) {
  void *memory = NULL;
  *out = NULL;
  TRY(memory_alloc(1, sizeof(KvCache), "keys and values", &memory, error));
  KvCache *cache = memory;
  *cache = (KvCache){.device = device,
                     .dims = *dims,
                     .layers = layers,
                     .row = 2 * dims->kv_heads * dims->head_dim,
                     .capacity = (most_tokens + KV_BLOCK - 1) / KV_BLOCK};
  const Status status = build(cache, error);
  if (status != STATUS_OK) {
    kv_cache_destroy(cache);
    return status;
  }
  *out = cache;
  return STATUS_OK;
}

void kv_cache_destroy(KvCache *cache) {
  if (cache == NULL) return;
  kv_cache_reset(cache);
  for (int64_t i = 0; i < cache->spare_count; i++) device_free(cache->device, cache->spares[i]);
  device_free(cache->device, cache->tail);
  free(cache->spares);
  free(cache->blocks);
  free(cache);
}

/* ---------------------------------------------------------------- memory */

Status kv_cache_reserve(KvCache *cache, int64_t end, Error *error) {
  const size_t bytes = (size_t)cache->layers * cache->layer_bytes;
  while (cache->end * KV_BLOCK < end) {
    if (cache->spare_count == 0) {
      TRY(device_alloc(cache->device, bytes, "keys and values", &cache->spares[0], error));
      cache->spare_count = 1;
    }
    cache->blocks[cache->end++] = cache->spares[--cache->spare_count];
  }
  return STATUS_OK;
}

static void forget_blocks(KvCache *cache, int64_t end) {
  for (; cache->first < end; cache->first++) {
    cache->spares[cache->spare_count++] = cache->blocks[cache->first];
  }
}

void kv_cache_forget(KvCache *cache, int64_t first) {
  forget_blocks(cache, smaller(first / KV_BLOCK, cache->end));
}

void kv_cache_reset(KvCache *cache) {
  forget_blocks(cache, cache->end);
  cache->first = 0;
  cache->end = 0;
}

int64_t kv_cache_blocks(const KvCache *cache) {
  return cache->end - cache->first + cache->spare_count;
}

/* ---------------------------------------------------------------- storing */

/* Where a layer's part of the block of `position` begins. */
static char *packed(const KvCache *cache, int64_t layer, int64_t position) {
  return (char *)cache->blocks[position / KV_BLOCK] + (size_t)layer * cache->layer_bytes;
}

static char *piece(const KvCache *cache, int64_t layer, int64_t position) {
  return packed(cache, layer, position) + (size_t)(position % KV_BLOCK / KV_PIECE) * cache->piece_bytes;
}

/* The row of `position` in a layer's tail. */
static char *tail_row(const KvCache *cache, int64_t layer, int64_t position) {
  const int64_t row = layer * KV_BLOCK + position % KV_BLOCK;
  return (char *)cache->tail + (size_t)(row * cache->row) * cache->device->ops.elem_size;
}

static const char *row_at(const KvCache *cache, const elem *rows, int64_t row, int64_t stride) {
  return (const char *)rows + (size_t)(row * stride) * cache->device->ops.elem_size;
}

static void pack(const KvCache *cache, int64_t count, const void *rows, int64_t stride, void *to) {
  const size_t k_bytes = (size_t)(cache->row / 2) * cache->device->ops.elem_size;
  cache->device->ops.attention.pack_kv(cache->device, &cache->dims, count, rows, (const char *)rows + k_bytes,
                                       stride, to);
}

/* Adds rows to the tail, at most to the end of the block of `begin`, and packs what that changes. */
static void append_to_tail(KvCache *cache, int64_t layer, int64_t begin, int64_t count, const elem *kv,
                           int64_t stride) {
  const size_t size = cache->device->ops.elem_size;
  const size_t bytes = (size_t)cache->row * size;
  device_copy_rows(cache->device, tail_row(cache, layer, begin), bytes, kv, (size_t)stride * size, bytes,
                   count);
  const int64_t end = begin + count;
  if (end % KV_BLOCK == 0) {
    pack(cache, KV_BLOCK, tail_row(cache, layer, end - KV_BLOCK), cache->row, packed(cache, layer, begin));
    return;
  }
  for (int64_t at = begin / KV_PIECE * KV_PIECE; at < end; at += KV_PIECE) {
    pack(cache, smaller(KV_PIECE, end - at), tail_row(cache, layer, at), cache->row, piece(cache, layer, at));
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
