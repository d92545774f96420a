/* The forward kernel of attention: one block of threads folds all keys that a tile of queries sees into the
 * running state of these queries, by the online softmax of M. Milakov and N. Gimelshein (2018), tiled as in
 * FlashAttention (T. Dao, 2023). Compiled once for each element type, by attention_{f32,bf16}_forward.cu. */
#ifndef RINGGPT_CUDA_ATTENTION_FORWARD_H
#define RINGGPT_CUDA_ATTENTION_FORWARD_H

#include "kernels/cuda/attention_loads.h"

/* Sizes of a block of threads. Tiles of keys come in two stages: one is computed on while the next is under
 * way. Shared memory: q (QUERIES rows), two stages of k and v (KEYS rows each), an exchange for each warp. */
template <typename T, int WIDTH> struct ForwardTiles {
  static constexpr int ROW_BYTES = WIDTH * (int)sizeof(T);
  static constexpr int WARPS = 4;
  static constexpr int THREADS = WARP_THREADS * WARPS;
  static constexpr int QUERIES = WARP_ROWS * WARPS;
  static constexpr int KEYS = ROW_BYTES <= 256 ? 64 : ROW_BYTES <= 512 ? 32 : 16;
  static constexpr int ROW = SharedRow<T, WIDTH>::LENGTH;
  static constexpr int STAGE = 2 * KEYS * ROW;
  static constexpr int EXCHANGE = Exchange<T, KEYS>::FLOATS;
  static constexpr int BYTES =
      (QUERIES * ROW + 2 * STAGE) * (int)sizeof(T) + WARPS * EXCHANGE * (int)sizeof(float);
  static constexpr int BLOCKS = Residents<BYTES, 3>::BLOCKS;
};

/* The running softmax of one query. */
struct RunningRow {
  int64_t index; /* of the query in its run */
  Range keys;    /* that it sees; none past the end of the run */
  float maximum;
  float sum; /* this lane's part: those of four lanes together are the row's */
};

/* The two rows of a lane, the first of them `row`, and their weighted values out of the state. */
template <typename T, int VALUES>
__device__ __forceinline__ void load_state(const ForwardWork<T> *work, int64_t head, int64_t row,
                                           RunningRow (&rows)[2], float (&values)[VALUES][4]) {
  const AttentionBlock *b = &work->block;
#pragma unroll
  for (int r = 0; r < 2; r++) {
    const int64_t index = row + 8 * r;
    const int64_t place = query_place(b, head, index);
    const bool exists = index < b->query_length;
    rows[r].index = index;
    rows[r].keys = visible_keys(b, index);
    rows[r].maximum = exists ? work->state.maximum[place] : -INFINITY;
    rows[r].sum = exists && lane_column() == 0 ? work->state.sum[place] : 0.0F;
    load_row(values, r, work->state.values + place * b->head_dim + lane_column(),
             exists ? b->head_dim / 8 : 0);
  }
}

template <typename T, int VALUES>
__device__ __forceinline__ void store_state(const ForwardWork<T> *work, int64_t head,
                                            const RunningRow (&rows)[2], const float (&values)[VALUES][4]) {
  const AttentionBlock *b = &work->block;
#pragma unroll
  for (int r = 0; r < 2; r++) {
    float sum = rows[r].sum;
    sum += __shfl_xor_sync(WHOLE_WARP, sum, 1);
    sum += __shfl_xor_sync(WHOLE_WARP, sum, 2);
    if (rows[r].index >= b->query_length) continue;
    const int64_t place = query_place(b, head, rows[r].index);
    store_row(values, r, work->state.values + place * b->head_dim + lane_column(), b->head_dim / 8);
    if (lane_column() != 0) continue;
    work->state.maximum[place] = rows[r].maximum;
    work->state.sum[place] = sum;
  }
}

/* Row r of a tile of raw scores, that of the keys from key0 on: scales them and sets those of keys that the
 * query does not see to -inf. Returns the largest of these and the maximum so far. */
template <int SCORES>
__device__ __forceinline__ float mask_scores(float (&s)[SCORES][4], int r, int64_t key0, float scale,
                                             const RunningRow *row) {
  const TileRange seen = within_tile(row->keys, key0, 8 * SCORES);
  float maximum = row->maximum;
#pragma unroll
  for (int n = 0; n < SCORES; n++) {
#pragma unroll
    for (int h = 0; h < 2; h++) {
      float *score = &s[n][2 * r + h];
      *score = holds(seen, n * 8 + lane_column() + h) ? scale * *score : -INFINITY;
      maximum = fmaxf(maximum, *score);
    }
  }
  maximum = fmaxf(maximum, __shfl_xor_sync(WHOLE_WARP, maximum, 1));
  return fmaxf(maximum, __shfl_xor_sync(WHOLE_WARP, maximum, 2));
}

/* Row r of a tile of raw scores becomes the weights exp(score - maximum), with the running row, its weighted
 * values and its sum brought to the new maximum. */
template <int SCORES, int VALUES>
__device__ __forceinline__ void fold_scores(float (&s)[SCORES][4], int r, int64_t key0, float scale,
                                            RunningRow *row, float (&values)[VALUES][4]) {
  const float maximum = mask_scores(s, r, key0, scale, row);
  /* Before a row's first key its maximum is -inf: exponents are taken from 0 then, and all weights are 0. */
  const float base = maximum == -INFINITY ? 0.0F : maximum;
  const float rescale = exp2f(row->maximum - base);
  row->maximum = maximum;
  row->sum *= rescale;
#pragma unroll
  for (int n = 0; n < SCORES; n++) {
#pragma unroll
    for (int h = 0; h < 2; h++) {
      float *score = &s[n][2 * r + h];
      *score = exp2f(*score - base);
      row->sum += *score;
    }
  }
#pragma unroll
  for (int n = 0; n < VALUES; n++) {
    values[n][2 * r] *= rescale;
    values[n][2 * r + 1] *= rescale;
  }
}

/* Blocks of threads: tiles of queries, last first because they see the most keys, by query heads. */
template <typename T, int WIDTH>
__global__ void __launch_bounds__(ForwardTiles<T, WIDTH>::THREADS, ForwardTiles<T, WIDTH>::BLOCKS)
    attention_forward_kernel(const ForwardWork<T> work) {
  typedef ForwardTiles<T, WIDTH> Tiles;
  EXTERN_SHARED(memory);
  T *q = (T *)memory;
  T *stages = q + Tiles::QUERIES * Tiles::ROW;
  float *exchange = (float *)(stages + 2 * Tiles::STAGE) + warp_index() * Tiles::EXCHANGE;
  const AttentionBlock *b = &work.block;
  const int64_t head = blockIdx.y;
  const int64_t kv_head = head / b->group;
  const int64_t row0 = (int64_t)(gridDim.x - 1 - blockIdx.x) * Tiles::QUERIES;
  const Range keys = visible_keys_of_rows(b, row0, Tiles::QUERIES);
  if (keys.begin >= keys.end) return;

  load_rows<T, WIDTH, Tiles::QUERIES, Tiles::THREADS>(
      q, work.state.q + query_place(b, head, row0) * b->head_dim, b->query_length - row0, b->head_dim);
  load_keys<T, WIDTH, Tiles::KEYS, Tiles::THREADS>(stages, b, work.kv, kv_head, keys.begin);
  copy_async_commit();
  RunningRow rows[2];
  float values[WIDTH / 8][4];
  load_state(&work, head, row0 + warp_index() * WARP_ROWS + lane_row(), rows, values);
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
    const T *k = stages + stage * Tiles::STAGE;
    float s[Tiles::KEYS / 8][4];
    rows_product<WIDTH>(s, q + warp_index() * WARP_ROWS * Tiles::ROW, k);
#pragma unroll
    for (int r = 0; r < 2; r++) fold_scores(s, r, key0, b->scale_log2_e, &rows[r], values);
    columns_product<WIDTH>(values, s, k + Tiles::KEYS * Tiles::ROW, exchange);
    __syncthreads(); /* before the next load overwrites this stage */
  }
  store_state(&work, head, rows, values);
}

template <typename T, int WIDTH> void attention_forward_at(Device *device, const ForwardWork<T> *work) {
  typedef ForwardTiles<T, WIDTH> Tiles;
  const AttentionBlock *b = &work->block;
  if (!attention_allow_shared(device, attention_forward_kernel<T, WIDTH>, Tiles::BYTES)) return;
  const dim3 grid(attention_tiles(b->query_length, Tiles::QUERIES), (unsigned)(b->kv_heads * b->group));
  LAUNCH((attention_forward_kernel<T, WIDTH>), grid, dim3(Tiles::THREADS), Tiles::BYTES, cuda_stream(device),
         *work);
  cuda_launched(device, "attention forward");
}

template <typename T> void attention_forward_launch(Device *device, const ForwardWork<T> *work) {
  static void (*const at_width[HEAD_WIDTHS])(Device *, const ForwardWork<T> *) = {
      attention_forward_at<T, 32>, attention_forward_at<T, 64>, attention_forward_at<T, 96>,
      attention_forward_at<T, 128>, attention_forward_at<T, 256>};
  const int index = attention_width_index(device, work->block.head_dim);
  if (index >= 0) at_width[index](device, work);
}

#endif
