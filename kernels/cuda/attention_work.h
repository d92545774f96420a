/* The attention blocks of the CUDA device: layouts of the travelling and running buffers, what a kernel is
 * told, and who sees whom. Shared by the kernels (attention_forward.h, attention_backward_keys.h,
 * attention_backward_queries.h) and by attention.cu, which packs, begins and ends.
 *
 * Layouts, L the length of the run, T the element type; rows are D long, without padding, so that each starts
 * at a multiple of 16 bytes:
 *   kv        T: k (L, D), v (L, D)           for each of the KV key heads
 *   dkv       float: dk (L, D), dv (L, D)     for each of the KV key heads
 *   forward   T q (H, L, D); float values (H, L, D), maximum (H, L), sum (H, L)
 *   backward  T q (H, L, D), dout (H, L, D); float dq (H, L, D), lse (H, L), delta (H, L)
 * Scores, maxima and lse are kept times log2(e), so that exp2 serves for exp. */
#ifndef RINGGPT_CUDA_ATTENTION_WORK_H
#define RINGGPT_CUDA_ATTENTION_WORK_H

#include <math.h>

#include "kernels/cuda/elements.h"

#define LOG2_E 1.4426950408889634
#define LN_2 0.6931471805599453

/* The running state of the forward pass. */
template <typename T> struct ForwardState {
  T *q;           /* (H, L, D) */
  float *values;  /* (H, L, D): sum of exp(score - maximum) v */
  float *maximum; /* (H, L): largest score so far, -inf before the first */
  float *sum;     /* (H, L): sum of exp(score - maximum) */
};

/* The running state of the backward pass. */
template <typename T> struct BackwardState {
  T *q;         /* (H, L, D) */
  T *dout;      /* (H, L, D) */
  float *dq;    /* (H, L, D): sum over keys of dscore k, without the scale */
  float *lse;   /* (H, L): times log2(e) */
  float *delta; /* (H, L): rowsum(dout * out), which is also the sum of p dp
                   over all keys */
};

template <typename T>
static inline ForwardState<T> forward_state(const AttentionDims *dims, int64_t length, void *state) {
  const int64_t rows = dims->heads * length;
  const int64_t count = rows * dims->head_dim;
  ForwardState<T> s;
  s.q = (T *)state;
  s.values = (float *)(s.q + count);
  s.maximum = s.values + count;
  s.sum = s.maximum + rows;
  return s;
}

template <typename T>
static inline BackwardState<T> backward_state(const AttentionDims *dims, int64_t length, void *state) {
  const int64_t rows = dims->heads * length;
  const int64_t count = rows * dims->head_dim;
  BackwardState<T> s;
  s.q = (T *)state;
  s.dout = s.q + count;
  s.dq = (float *)(s.dout + count);
  s.lse = s.dq + count;
  s.delta = s.lse + rows;
  return s;
}

/* A run of queries against a run of keys, as AttentionOps has it. */
struct AttentionBlock {
  int64_t query_length;
  int64_t query_start;
  int64_t key_length;
  int64_t key_start;
  const int64_t *first_key; /* (query_length), device memory */
  int kv_heads;
  int group;          /* query heads that share a key head */
  int head_dim;       /* D */
  float scale;        /* factor on q . k */
  float scale_log2_e; /* the same times log2(e) */
};

template <typename T> struct ForwardWork {
  AttentionBlock block;
  ForwardState<T> state;
  const T *kv;
};

template <typename T> struct BackwardWork {
  AttentionBlock block;
  BackwardState<T> state;
  const T *kv;
  float *dkv;
};

/* Put one block's kernels into the compute queue. For T = float and bf16, each in a file of its own. */
template <typename T> void attention_forward_launch(Device *device, const ForwardWork<T> *work);
template <typename T> void attention_backward_launch(Device *device, const BackwardWork<T> *work);

/* Kernels are compiled for heads of 32, 64, 96, 128 and 256 columns; smaller heads are padded with zeros in
 * shared memory. */
enum { HEAD_WIDTHS = 5 };

/* The index of the narrowest of those widths that holds head_dim, or a failure of the device and -1. */
int attention_width_index(Device *device, int head_dim);

/* Blocks of tiles that cover a run, as an extent of a grid. */
static inline unsigned attention_tiles(int64_t length, int tile) {
  return (unsigned)((length + tile - 1) / tile);
}

/* Lets a kernel use `bytes` of shared memory of its own choice; false when the device has failed. */
template <typename Kernel>
static inline bool attention_allow_shared(Device *device, Kernel *kernel, int bytes) {
  const int64_t most = cuda_device(device)->block_shared_bytes;
  if (bytes > most) {
    device_fail(
        device, STATUS_CONFIG,
        "attention with heads of this size needs %d bytes of shared memory a block, this GPU has %lld: "
        "train.precision bf16 or smaller heads need less",
        bytes, (long long)most);
    return false;
  }
  return cuda_ok(device, cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
                 "attention: shared memory");
}

/* ---------------------------------------------------------------- who sees whom */

/* Indices [begin, end) of a run. */
struct Range {
  int64_t begin;
  int64_t end;
};

__device__ __forceinline__ int64_t clamp(int64_t value, int64_t low, int64_t high) {
  return value < low ? low : value > high ? high : value;
}

/* The keys of the block that query i sees; none where i is past the end of the run. */
__device__ __forceinline__ Range visible_keys(const AttentionBlock *b, int64_t i) {
  Range keys = {0, 0};
  if (i >= b->query_length) return keys;
  keys.begin = clamp(b->first_key[i] - b->key_start, 0, b->key_length);
  keys.end = clamp(b->query_start + i + 1 - b->key_start, 0, b->key_length);
  return keys;
}

/* The keys that any of `count` queries from row0 on may see: the first key never falls with the query, and
 * the last rises with it. */
__device__ __forceinline__ Range visible_keys_of_rows(const AttentionBlock *b, int64_t row0, int count) {
  const int64_t last = (row0 + count < b->query_length ? row0 + count : b->query_length) - 1;
  Range keys = visible_keys(b, row0);
  keys.end = visible_keys(b, last).end;
  return keys;
}

/* A range cut to a tile of `count` from `start` on, counted from there. */
struct TileRange {
  int begin;
  int end;
};

__device__ __forceinline__ TileRange within_tile(Range range, int64_t start, int count) {
  TileRange cut;
  cut.begin = (int)clamp(range.begin - start, 0, count);
  cut.end = (int)clamp(range.end - start, 0, count);
  return cut;
}

__device__ __forceinline__ bool holds(TileRange range, int index) {
  return index >= range.begin && index < range.end;
}

/* The queries that may see any of `count` keys from key0 on. Those whose first key lies behind these keys
 * come last; where they begin is found by halving. */
__device__ __forceinline__ Range seeing_queries(const AttentionBlock *b, int64_t key0, int count) {
  const int64_t last = b->key_start + (key0 + count < b->key_length ? key0 + count : b->key_length) - 1;
  Range queries;
  queries.begin = clamp(b->key_start + key0 - b->query_start, 0, b->query_length);
  int64_t low = queries.begin;
  int64_t high = b->query_length;
  while (low < high) {
    const int64_t middle = low + (high - low) / 2;
    if (b->first_key[middle] <= last) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  queries.end = low;
  return queries;
}

/* ---------------------------------------------------------------- places */

/* Key key0 of a key head in kv; its value lies key_length * head_dim behind. */
__device__ __forceinline__ int64_t key_offset(const AttentionBlock *b, int64_t kv_head, int64_t key0) {
  return (kv_head * 2 * b->key_length + key0) * b->head_dim;
}

__device__ __forceinline__ int64_t value_distance(const AttentionBlock *b) {
  return b->key_length * b->head_dim;
}

/* The place of a query among the rows of all heads. */
__device__ __forceinline__ int64_t query_place(const AttentionBlock *b, int64_t head, int64_t row) {
  return head * b->query_length + row;
}

#endif
