/* The backward kernel of attention by tiles of keys: a block of threads takes all queries that see its keys,
 * of all query heads that share the key head, and adds to the keys' dk and dv once, so that no two blocks
 * meet in a sum. Products have keys for rows and queries for columns. Compiled once for each element type, by
 * attention_{f32,bf16}_backward.cu. */
#ifndef RINGGPT_CUDA_ATTENTION_BACKWARD_KEYS_H
#define RINGGPT_CUDA_ATTENTION_BACKWARD_KEYS_H

#include "kernels/cuda/attention_loads.h"

/* What a block of threads must know of a tile of queries, one number for each of them. */
template <int QUERIES> struct QueryFacts {
  float lse[QUERIES];
  float delta[QUERIES];
  TileRange keys[QUERIES]; /* of this block's that the query sees */
};

/* Sizes of a block of threads. Wide heads take a block for each SLICE columns of dk and dv, so that these
 * stay in registers. Shared memory: k and v (KEYS rows each), two stages of q and dout (QUERIES rows each),
 * an exchange for each warp, two stages of facts. */
template <typename T, int WIDTH> struct KeyTiles {
  static constexpr int ROW_BYTES = WIDTH * (int)sizeof(T);
  static constexpr int WARPS = ROW_BYTES <= 512 ? 4 : 2;
  static constexpr int THREADS = WARP_THREADS * WARPS;
  static constexpr int KEYS = WARP_ROWS * WARPS;
  static constexpr int QUERIES = ROW_BYTES <= 512 ? 32 : 16;
  static constexpr int SLICE = WIDTH <= 128 ? WIDTH : 128;
  static constexpr int ROW = SharedRow<T, WIDTH>::LENGTH;
  static constexpr int STAGE = 2 * QUERIES * ROW;
  static constexpr int EXCHANGE = Exchange<T, QUERIES>::FLOATS;
  static constexpr int BYTES = (2 * KEYS * ROW + 2 * STAGE) * (int)sizeof(T) +
                               WARPS * EXCHANGE * (int)sizeof(float) + 2 * (int)sizeof(QueryFacts<QUERIES>);
  static constexpr int BLOCKS = Residents<BYTES, 2>::BLOCKS;
};

/* The shared memory of a block of threads. */
template <typename T, int WIDTH> struct KeyMemory {
  T *k;                                           /* k, then v */
  T *stages;                                      /* two times q, then dout */
  float *exchange;                                /* this warp's */
  QueryFacts<KeyTiles<T, WIDTH>::QUERIES> *facts; /* (2) */
};

template <typename T, int WIDTH>
__device__ __forceinline__ KeyMemory<T, WIDTH> key_memory(unsigned char *memory) {
  typedef KeyTiles<T, WIDTH> Tiles;
  KeyMemory<T, WIDTH> m;
  m.k = (T *)memory;
  m.stages = m.k + 2 * Tiles::KEYS * Tiles::ROW;
  float *exchange = (float *)(m.stages + 2 * Tiles::STAGE);
  m.exchange = exchange + warp_index() * Tiles::EXCHANGE;
  m.facts = (QueryFacts<Tiles::QUERIES> *)(exchange + Tiles::WARPS * Tiles::EXCHANGE);
  return m;
}

/* The keys of a block of threads and the queries that it goes over: `tiles` tiles of queries for each query
 * head of the group. */
struct KeyTask {
  int64_t kv_head;
  int64_t key0;
  Range queries;
  int64_t tiles;
};

/* Loads the facts of the queries from row0 on; those past the end see nothing. */
template <typename T, int QUERIES>
__device__ __forceinline__ void load_facts(QueryFacts<QUERIES> *facts, const BackwardWork<T> *work,
                                           int64_t head, int64_t row0, int64_t key0, int keys) {
  const AttentionBlock *b = &work->block;
  for (int i = (int)threadIdx.x; i < QUERIES; i += (int)blockDim.x) {
    const bool exists = row0 + i < b->query_length;
    const int64_t place = query_place(b, head, row0 + i);
    facts->lse[i] = exists ? work->state.lse[place] : 0.0F;
    facts->delta[i] = exists ? work->state.delta[place] : 0.0F;
    facts->keys[i] = within_tile(visible_keys(b, row0 + i), key0, keys);
  }
}

/* Starts to load the queries of one step: step / tiles tells the query head, step % tiles the tile. */
template <typename T, int WIDTH>
__device__ __forceinline__ void load_step(const KeyMemory<T, WIDTH> *m, const BackwardWork<T> *work,
                                          const KeyTask *task, int64_t step) {
  typedef KeyTiles<T, WIDTH> Tiles;
  const AttentionBlock *b = &work->block;
  const int64_t head = task->kv_head * b->group + step / task->tiles;
  const int64_t row0 = task->queries.begin + step % task->tiles * Tiles::QUERIES;
  load_queries<T, WIDTH, Tiles::QUERIES, Tiles::THREADS>(m->stages + step % 2 * Tiles::STAGE, work, head,
                                                         row0);
  load_facts(&m->facts[step % 2], work, head, row0, task->key0, Tiles::KEYS);
}

/* Raw scores s become the weights p; what a query does not see gets 0. */
template <int TILES>
__device__ __forceinline__ void weigh(float (&s)[TILES][4], float scale, const QueryFacts<8 * TILES> *facts) {
  const int key = warp_index() * WARP_ROWS + lane_row();
#pragma unroll
  for (int n = 0; n < TILES; n++) {
#pragma unroll
    for (int e = 0; e < 4; e++) {
      const int query = n * 8 + lane_column() + e % 2;
      const bool seen = holds(facts->keys[query], key + e / 2 * 8);
      s[n][e] = seen ? exp2f(scale * s[n][e] - facts->lse[query]) : 0.0F;
    }
  }
}

/* The weights p become the gradients of the scaled scores, p (dp - delta). */
template <int TILES>
__device__ __forceinline__ void differentiate(float (&p)[TILES][4], const float (&dp)[TILES][4],
                                              const QueryFacts<8 * TILES> *facts) {
#pragma unroll
  for (int n = 0; n < TILES; n++) {
#pragma unroll
    for (int e = 0; e < 4; e++) p[n][e] *= dp[n][e] - facts->delta[n * 8 + lane_column() + e % 2];
  }
}

/* Adds what one step's queries give to dk and dv, columns from `slice` on. */
template <typename T, int WIDTH, int TILES>
__device__ __forceinline__ void fold_queries(const KeyMemory<T, WIDTH> *m, int64_t step, float scale,
                                             int slice, float (&dk)[TILES][4], float (&dv)[TILES][4]) {
  typedef KeyTiles<T, WIDTH> Tiles;
  const T *own_k = m->k + warp_index() * WARP_ROWS * Tiles::ROW;
  const T *q = m->stages + step % 2 * Tiles::STAGE;
  const T *dout = q + Tiles::QUERIES * Tiles::ROW;
  const QueryFacts<Tiles::QUERIES> *facts = &m->facts[step % 2];
  float s[Tiles::QUERIES / 8][4];
  float dp[Tiles::QUERIES / 8][4];
  rows_product<WIDTH>(s, own_k, q);
  weigh(s, scale, facts);
  columns_product<WIDTH>(dv, s, dout + slice, m->exchange);
  rows_product<WIDTH>(dp, own_k + Tiles::KEYS * Tiles::ROW, dout);
  differentiate(s, dp, facts);
  columns_product<WIDTH>(dk, s, q + slice, m->exchange);
}

/* Adds this lane's sums to dkv. */
template <typename T, int WIDTH, int TILES>
__device__ __forceinline__ void add_to_dkv(const BackwardWork<T> *work, const KeyTask *task, int slice,
                                           const float (&dk)[TILES][4], const float (&dv)[TILES][4]) {
  const AttentionBlock *b = &work->block;
  const int tiles = (b->head_dim - slice) / 8;
#pragma unroll
  for (int r = 0; r < 2; r++) {
    const int64_t key = task->key0 + warp_index() * WARP_ROWS + lane_row() + 8 * r;
    if (key >= b->key_length) continue;
    float *row = work->dkv + key_offset(b, task->kv_head, key) + slice + lane_column();
    add_to_row(dk, r, b->scale, row, tiles);
    add_to_row(dv, r, 1.0F, row + value_distance(b), tiles);
  }
}

/* Blocks of threads: tiles of keys by key heads by slices of columns. */
template <typename T, int WIDTH>
__global__ void __launch_bounds__(KeyTiles<T, WIDTH>::THREADS, KeyTiles<T, WIDTH>::BLOCKS)
    attention_backward_keys_kernel(const BackwardWork<T> work) {
  typedef KeyTiles<T, WIDTH> Tiles;
  EXTERN_SHARED(memory);
  const KeyMemory<T, WIDTH> m = key_memory<T, WIDTH>(memory);
  const AttentionBlock *b = &work.block;
  const int slice = (int)blockIdx.z * Tiles::SLICE;
  KeyTask task;
  task.kv_head = blockIdx.y;
  task.key0 = (int64_t)blockIdx.x * Tiles::KEYS;
  task.queries = seeing_queries(b, task.key0, Tiles::KEYS);
  task.tiles = (task.queries.end - task.queries.begin + Tiles::QUERIES - 1) / Tiles::QUERIES;
  const int64_t steps = b->group * task.tiles;
  if (steps == 0) return;

  load_keys<T, WIDTH, Tiles::KEYS, Tiles::THREADS>(m.k, b, work.kv, task.kv_head, task.key0);
  load_step(&m, &work, &task, 0);
  copy_async_commit();
  float dk[Tiles::SLICE / 8][4];
  float dv[Tiles::SLICE / 8][4];
  set_zero(dk);
  set_zero(dv);
  for (int64_t step = 0; step < steps; step++) {
    if (step + 1 < steps) load_step(&m, &work, &task, step + 1);
    copy_async_commit();
    copy_async_wait<1>();
    __syncthreads();
    fold_queries(&m, step, b->scale_log2_e, slice, dk, dv);
    __syncthreads(); /* before the next load overwrites this stage */
  }
  add_to_dkv<T, WIDTH>(&work, &task, slice, dk, dv);
}

#endif
