/* The backward kernel of attention by tiles of queries: a block of threads takes all keys that its queries
 * see and adds to their dq. Scores are computed anew from lse, as in FlashAttention (T. Dao, 2023). Compiled
 * once for each element type, by attention_{f32,bf16}_backward.cu. */
#ifndef RINGGPT_CUDA_ATTENTION_BACKWARD_QUERIES_H
#define RINGGPT_CUDA_ATTENTION_BACKWARD_QUERIES_H

#include "kernels/cuda/attention_loads.h"

/* Sizes of a block of threads. Shared memory: q and dout (QUERIES rows each), two stages of k and v (KEYS
 * rows each), an exchange for each warp. */
template <typename T, int WIDTH> struct QueryTiles {
  static constexpr int ROW_BYTES = WIDTH * (int)sizeof(T);
  static constexpr int WARPS = ROW_BYTES <= 512 ? 4 : 2;
  static constexpr int THREADS = WARP_THREADS * WARPS;
  static constexpr int QUERIES = WARP_ROWS * WARPS;
  static constexpr int KEYS = ROW_BYTES <= 512 ? 32 : 16;
  static constexpr int ROW = SharedRow<T, WIDTH>::LENGTH;
  static constexpr int STAGE = 2 * KEYS * ROW;
  static constexpr int EXCHANGE = Exchange<T, KEYS>::FLOATS;
  static constexpr int BYTES =
      (2 * QUERIES * ROW + 2 * STAGE) * (int)sizeof(T) + WARPS * EXCHANGE * (int)sizeof(float);
  static constexpr int BLOCKS = Residents<BYTES, 2>::BLOCKS;
};

/* What a lane knows of one of its queries. */
struct QueryRow {
  Range keys; /* that it sees; none past the end of the run */
  float lse;
  float delta;
};

/* The two queries of a lane, the first of them `row`. */
template <typename T>
__device__ __forceinline__ void load_query_rows(const BackwardWork<T> *work, int64_t head, int64_t row,
                                                QueryRow (&rows)[2]) {
  const AttentionBlock *b = &work->block;
#pragma unroll
  for (int r = 0; r < 2; r++) {
    const int64_t index = row + 8 * r;
    const bool exists = index < b->query_length;
    rows[r].keys = visible_keys(b, index);
    rows[r].lse = exists ? work->state.lse[query_place(b, head, index)] : 0.0F;
    rows[r].delta = exists ? work->state.delta[query_place(b, head, index)] : 0.0F;
  }
}

/* Row r of a tile of raw scores s and of dp, the gradients of the weights, both of the keys from key0 on: s
 * becomes the gradient of the scaled scores. Keys that the query does not see get 0. */
template <int TILES>
__device__ __forceinline__ void differentiate_row(float (&s)[TILES][4], const float (&dp)[TILES][4], int r,
                                                  int64_t key0, float scale, const QueryRow *row) {
  const TileRange seen = within_tile(row->keys, key0, 8 * TILES);
#pragma unroll
  for (int n = 0; n < TILES; n++) {
#pragma unroll
    for (int h = 0; h < 2; h++) {
      const int e = 2 * r + h;
      const float p = exp2f(scale * s[n][e] - row->lse);
      s[n][e] = holds(seen, n * 8 + lane_column() + h) ? p * (dp[n][e] - row->delta) : 0.0F;
    }
  }
}

/* Adds what one tile of keys, from key0 on, gives to dq. `q` are the rows of this warp. */
template <typename T, int WIDTH>
__device__ __forceinline__ void fold_keys(const T *q, const T *stage, int64_t key0, float scale,
                                          const QueryRow (&rows)[2], float (&dq)[WIDTH / 8][4],
                                          float *exchange) {
  typedef QueryTiles<T, WIDTH> Tiles;
  float s[Tiles::KEYS / 8][4];
  float dp[Tiles::KEYS / 8][4];
  rows_product<WIDTH>(s, q, stage);
  rows_product<WIDTH>(dp, q + Tiles::QUERIES * Tiles::ROW, stage + Tiles::KEYS * Tiles::ROW);
#pragma unroll
  for (int r = 0; r < 2; r++) differentiate_row(s, dp, r, key0, scale, &rows[r]);
  columns_product<WIDTH>(dq, s, stage, exchange);
}

/* Blocks of threads: tiles of queries, last first because they see the most keys, by query heads. */
template <typename T, int WIDTH>
__global__ void __launch_bounds__(QueryTiles<T, WIDTH>::THREADS, QueryTiles<T, WIDTH>::BLOCKS)
    attention_backward_queries_kernel(const BackwardWork<T> work) {
  typedef QueryTiles<T, WIDTH> Tiles;
  EXTERN_SHARED(memory);
  T *q = (T *)memory;
  T *stages = q + 2 * Tiles::QUERIES * Tiles::ROW;
  float *exchange = (float *)(stages + 2 * Tiles::STAGE) + warp_index() * Tiles::EXCHANGE;
  const AttentionBlock *b = &work.block;
  const int64_t head = blockIdx.y;
  const int64_t kv_head = head / b->group;
  const int64_t row0 = (int64_t)(gridDim.x - 1 - blockIdx.x) * Tiles::QUERIES;
  const Range keys = visible_keys_of_rows(b, row0, Tiles::QUERIES);
  if (keys.begin >= keys.end) return;

  load_queries<T, WIDTH, Tiles::QUERIES, Tiles::THREADS>(q, &work, head, row0);
  load_keys<T, WIDTH, Tiles::KEYS, Tiles::THREADS>(stages, b, work.kv, kv_head, keys.begin);
  copy_async_commit();
  QueryRow rows[2];
  const int64_t lane_row0 = row0 + warp_index() * WARP_ROWS + lane_row();
  load_query_rows(&work, head, lane_row0, rows);
  float dq[WIDTH / 8][4];
  set_zero(dq);
  int stage = 0;
  for (int64_t key0 = keys.begin; key0 < keys.end; key0 += Tiles::KEYS, stage = 1 - stage) {
    const int64_t next = key0 + Tiles::KEYS;
    if (next < keys.end) {
      T *other = stages + (1 - stage) * Tiles::STAGE;
      load_keys<T, WIDTH, Tiles::KEYS, Tiles::THREADS>(other, b, work.kv, kv_head, next);
    }
    copy_async_commit();
    copy_async_wait<1>();
    __syncthreads();
    fold_keys<T, WIDTH>(q + warp_index() * WARP_ROWS * Tiles::ROW, stages + stage * Tiles::STAGE, key0,
                        b->scale_log2_e, rows, dq, exchange);
    __syncthreads(); /* before the next load overwrites this stage */
  }
#pragma unroll
  for (int r = 0; r < 2; r++) {
    if (lane_row0 + 8 * r >= b->query_length) continue;
    float *row = work.state.dq + query_place(b, head, lane_row0 + 8 * r) * b->head_dim;
    add_to_row(dq, r, 1.0F, row + lane_column(), b->head_dim / 8);
  }
}

#endif
