/* Tiles of attention out of the packed buffers: pairs of rows that its kernels need together. */
#ifndef RINGGPT_CUDA_ATTENTION_LOADS_H
#define RINGGPT_CUDA_ATTENTION_LOADS_H

#include "kernels/cuda/attention_tile.h"
#include "kernels/cuda/attention_work.h"

/* Starts to load ROWS rows each of two arrays: those of b come behind those of a. */
template <typename T, int WIDTH, int ROWS, int THREADS>
__device__ __forceinline__ void load_pair(T *to, const T *a, const T *b, int64_t rows, int head_dim) {
  load_rows<T, WIDTH, ROWS, THREADS>(to, a, rows, head_dim);
  load_rows<T, WIDTH, ROWS, THREADS>(to + ROWS * SharedRow<T, WIDTH>::LENGTH, b, rows, head_dim);
}

/* k and v of a key head from key0 on. */
template <typename T, int WIDTH, int ROWS, int THREADS>
__device__ __forceinline__ void load_keys(T *to, const AttentionBlock *b, const T *kv, int64_t kv_head,
                                          int64_t key0) {
  const T *k = kv + key_offset(b, kv_head, key0);
  load_pair<T, WIDTH, ROWS, THREADS>(to, k, k + value_distance(b), b->key_length - key0, b->head_dim);
}

/* q and dout of a query head from row0 on. */
template <typename T, int WIDTH, int ROWS, int THREADS>
__device__ __forceinline__ void load_queries(T *to, const BackwardWork<T> *work, int64_t head, int64_t row0) {
  const AttentionBlock *b = &work->block;
  const int64_t offset = query_place(b, head, row0) * b->head_dim;
  load_pair<T, WIDTH, ROWS, THREADS>(to, work->state.q + offset, work->state.dout + offset,
                                     b->query_length - row0, b->head_dim);
}

#endif
