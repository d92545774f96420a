/* The keys and values of the latest tokens, of every layer, packed as the attention blocks want them.
 *
 * Positions lie in blocks of KV_BLOCK, all made at once; a block takes the place of one that nobody asks for
 * any more. Packed keys cannot be added to, so the block that is not full yet lies there in pieces, and
 * besides as rows: only the piece that grew is packed again, and the full block once, as a whole. */
#ifndef RINGGPT_MODEL_KV_CACHE_H
#define RINGGPT_MODEL_KV_CACHE_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/base/status.h"
#include "kernels/device.h"
#include "kernels/ops.h"

enum {
  KV_BLOCK = 1024, /* positions of a block: enough that even one query's work is shared out over threads */
  KV_PIECE = 64    /* positions of a piece, divides KV_BLOCK: few enough to pack again for every token */
};

typedef struct KvCache KvCache;

/* What a cache has to hold. */
typedef struct KvCacheOptions {
  AttentionDims dims;
  int64_t layers;
  int64_t most_tokens; /* positions are less, >= 1 */
  int64_t kept;        /* no query asks for a position further back than so many before the end of what was
                          stored, >= 1 */
} KvCacheOptions;

/* Bytes of device memory that it takes, or ARENA_TOO_LARGE (kernels/base/arena.h). */
size_t kv_cache_bytes(const Ops *ops, const KvCacheOptions *options);

/* Makes a cache. device stays the caller's and outlives it. STATUS_SYSTEM without memory. */
Status kv_cache_create(Device *device, const KvCacheOptions *options, KvCache **out, Error *error);

/* Releases it; NULL is allowed. */
void kv_cache_destroy(KvCache *cache);

/* Stores the positions [begin, begin + count) of a layer, which follow on those that the layer holds; from 0
 * on begins another text. kv (count, 2 KV, D): the heads of k, then those of v, `stride` elements from row to
 * row. */
void kv_cache_append(KvCache *cache, int64_t layer, int64_t begin, int64_t count, const elem *kv,
                     int64_t stride);

/* Folds the keys of a layer into the state of the queries [begin, begin + count), which are the last
 * positions that it holds (AttentionOps.forward_block). first_key (count), device memory, within what is
 * kept; `first`: the first of it. */
void kv_cache_attend(const KvCache *cache, int64_t layer, int64_t begin, int64_t count, int64_t first,
                     const int64_t *first_key, void *state);

#endif
