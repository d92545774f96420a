/* The keys and values of all tokens seen so far, of every layer, packed as the attention blocks want them.
 *
 * Positions lie in blocks of KV_BLOCK, made one by one as the text grows. Packed keys cannot be added to, so
 * the block that is not full yet lies there in pieces, and besides as rows: only the piece that grew is
 * packed again, and the full block once, as a whole. */
#ifndef RINGGPT_MODEL_KV_CACHE_H
#define RINGGPT_MODEL_KV_CACHE_H

#include <stdint.h>

#include "kernels/base/status.h"
#include "kernels/device.h"
#include "kernels/ops.h"

enum {
  KV_BLOCK = 1024, /* positions of a block: enough that even one query's work is shared out over threads */
  KV_PIECE = 64    /* positions of a piece, divides KV_BLOCK: few enough to pack again for every token */
};

typedef struct KvCache KvCache;

/* Makes an empty cache for the positions [0, most_tokens) of `layers` layers. device stays the caller's and
 * outlives it. STATUS_SYSTEM without memory. */
Status kv_cache_create(Device *device, const AttentionDims *dims, int64_t layers, int64_t most_tokens,
                       KvCache **out, Error *error);

/* Releases it; NULL is allowed. */
void kv_cache_destroy(KvCache *cache);

/* Makes room in all layers for the positions before `end`, at most most_tokens. STATUS_SYSTEM without memory;
 * what the cache holds stays. */
Status kv_cache_reserve(KvCache *cache, int64_t end, Error *error);

/* Stores the positions [begin, begin + count) of a layer, for which there is room and which follow on those
 * that the layer holds. kv (count, 2 KV, D): the heads of k, then those of v, `stride` elements from row to
 * row. */
void kv_cache_append(KvCache *cache, int64_t layer, int64_t begin, int64_t count, const elem *kv,
                     int64_t stride);

/* Folds the keys of a layer into the state of the queries [begin, begin + count), which are the last
 * positions that it holds (AttentionOps.forward_block). first_key (count), device memory, not before what was
 * forgotten; `first`: the first of it. */
void kv_cache_attend(const KvCache *cache, int64_t layer, int64_t begin, int64_t count, int64_t first,
                     const int64_t *first_key, void *state);

/* Says that nobody asks for a position before `first` any more: memory of blocks that end before it is kept
 * for later ones. */
void kv_cache_forget(KvCache *cache, int64_t first);

/* Forgets everything; memory stays. */
void kv_cache_reset(KvCache *cache);

/* Blocks that there is memory for, in use or not. */
int64_t kv_cache_blocks(const KvCache *cache);

#endif
