/* Token and position embeddings. The gradient of a table is the sum of the rows of dy that read the same row
 * of it: they are sorted by that row (row_sort.h) and added in the sorted order, without atomic operations,
 * so that the bits are the same from call to call. */
#include "kernels/cuda/float_pair.h"
#include "kernels/cuda/row_sort.h"
#include "kernels/cuda/vectors.h"

enum { THREADS = 256 };

/* ---------------------------------------------------------------- forward */

/* wpe may be NULL. A thread takes a vector of a row. */
template <typename T>
static __global__ void __launch_bounds__(THREADS)
    embedding_forward_kernel(int64_t n, int64_t c, const int32_t *tokens, const int64_t *positions,
                             const T *wte, const T *wpe, T *y) {
  constexpr int N = vector_size<T>;
  const int64_t vectors = vectors_of<T>(c);
  for (int64_t item = thread_index(); item < n * vectors; item += thread_count()) {
    const int64_t row = item / vectors;
    const int64_t j = item % vectors * N;
    float sums[N];
    load_vector(wte + tokens[row] * c + j, c - j, sums);
    if (wpe != NULL) {
      float values[N];
      load_vector(wpe + positions[row] * c + j, c - j, values);
#pragma unroll
      for (int k = 0; k < N; k++) sums[k] += values[k];
    }
    store_vector(sums, c - j, y + row * c + j);
  }
}

template <typename T>
static void embedding_forward(Device *device, int64_t n, int64_t c, const int32_t *tokens,
                              const int64_t *positions, const elem *wte, const elem *wpe, elem *y) {
  if (n == 0 || c == 0 || !cuda_usable(device)) return;
  LAUNCH(embedding_forward_kernel<T>, cuda_blocks(device, n * vectors_of<T>(c), THREADS), THREADS, 0,
         cuda_stream(device), n, c, tokens, positions, (const T *)wte, (const T *)wpe, (T *)y);
  cuda_launched(device, "embedding_forward");
}

/* ---------------------------------------------------------------- backward */

/* Rows that are sorted together: with more, the sums of several such batches are added to the table one after
 * the other. So scratch memory does not grow with the rows. */
static const int64_t BATCH_ROWS = 65536;

/* The sorted rows are cut into tiles of equal length, however often a key comes: the rows of one key are a
 * run, which may go over many tiles. The number of tiles is bounded by the memory of their sums. */
static const int64_t LEAST_TILE_ROWS = 64;
static const int64_t MOST_CARRIED = (int64_t)2 << 20;

/* Most threads of a tile's block, and rows whose loads are under way together. */
enum { TILE_THREADS = 128, ROWS_AT_A_TIME = 8 };

/* One table's sum. */
typedef struct RowSums {
  RowSort sort;
  int64_t tiles, tile_rows;
  int64_t c;
  float *carried; /* (tiles, c): the sum of a tile's first rows where their run began in an earlier tile */
  float *table;   /* (keys, c), += */
} RowSums;

/* The rows [begin, end) of a block's tile, in sorted order, and whether its first run began before. */
typedef struct Tile {
  int64_t number, begin, end;
  bool continues;
} Tile;

static __device__ __forceinline__ Tile tile_of_block(const RowSums &sums, const uint64_t *entries) {
  Tile tile = {(int64_t)blockIdx.y, (int64_t)blockIdx.y * sums.tile_rows, 0, false};
  tile.end = min(tile.begin + sums.tile_rows, sums.sort.rows);
  tile.continues = tile.begin > 0 && entry_key(entries[tile.begin - 1]) == entry_key(entries[tile.begin]);
  return tile;
}

/* Adds up the runs of each tile, a thread for each column: to the table what begins in the tile, to `carried`
 * what began before. So the table's rows are written by one tile each. */
template <typename T>
static __global__ void __launch_bounds__(TILE_THREADS, 8) sum_tiles(RowSums sums, const T *dy) {
  const uint64_t *entries = row_sort_result(sums.sort);
  const int64_t column = thread_index();
  if (column >= sums.c) return;
  const Tile tile = tile_of_block(sums, entries);
  bool carried = tile.continues;
  uint32_t key = entry_key(entries[tile.begin]);
  FloatPair sum = {0.0F, 0.0F};
  for (int64_t first = tile.begin; first < tile.end; first += ROWS_AT_A_TIME) {
    uint32_t keys[ROWS_AT_A_TIME];
    float values[ROWS_AT_A_TIME];
#pragma unroll
    for (int k = 0; k < ROWS_AT_A_TIME; k++) {
      const uint64_t entry = entries[min(first + k, tile.end - 1)];
      keys[k] = entry_key(entry);
      values[k] = first + k < tile.end ? to_float(dy[entry_row(entry) * sums.c + column]) : 0.0F;
    }
#pragma unroll
    for (int k = 0; k < ROWS_AT_A_TIME; k++) {
      if (keys[k] != key) {
        if (carried) sums.carried[tile.number * sums.c + column] = pair_total(sum);
        if (!carried) sums.table[key * sums.c + column] += pair_total(sum);
        carried = false;
        key = keys[k];
        sum = {0.0F, 0.0F};
      }
      pair_add(&sum, values[k]);
    }
  }
  if (carried) sums.carried[tile.number * sums.c + column] = pair_total(sum);
  if (!carried) sums.table[key * sums.c + column] += pair_total(sum);
}

/* Adds to the table what other tiles carried of a run: work of the tile in which it began. */
static __global__ void __launch_bounds__(TILE_THREADS, 8) add_carried(RowSums sums) {
  const uint64_t *entries = row_sort_result(sums.sort);
  const int64_t column = thread_index();
  if (column >= sums.c) return;
  const Tile tile = tile_of_block(sums, entries);
  const uint32_t key = entry_key(entries[tile.end - 1]);
  if (tile.continues && entry_key(entries[tile.begin]) == key) return;
  FloatPair sum = {0.0F, 0.0F};
  int64_t later = tile.number + 1;
  for (; later < sums.tiles && entry_key(entries[later * sums.tile_rows]) == key; later++) {
    pair_add(&sum, sums.carried[later * sums.c + column]);
  }
  if (later > tile.number + 1) sums.table[key * sums.c + column] += pair_total(sum);
}

static int64_t tile_rows_of(int64_t n, int64_t c) {
  const int64_t most_tiles = max(MOST_CARRIED / c, (int64_t)1);
  const int64_t even = (n + most_tiles - 1) / most_tiles;
  return max(even, LEAST_TILE_ROWS);
}

/* table[keys[i]] += dy[i], dy (n, c), of one batch. */
template <typename T, typename K>
static void add_batch(Device *device, int64_t n, int64_t c, const K *keys, const T *dy, float *table) {
  static const char what[] = "embedding_backward";
  RowSums sums = {};
  sums.tile_rows = tile_rows_of(n, c);
  sums.tiles = (n + sums.tile_rows - 1) / sums.tile_rows;
  sums.c = c;
  sums.table = table;
  const size_t sort_bytes = row_sort_bytes(n);
  unsigned char *scratch =
      (unsigned char *)cuda_scratch(device, sort_bytes + (size_t)(sums.tiles * c) * sizeof(float), what);
  if (scratch == NULL) return;
  sums.sort = row_sort_at(n, scratch);
  sums.carried = (float *)(scratch + sort_bytes);
  if (!row_sort(device, sums.sort, keys, what)) return;
  const int64_t columns = (c + WARP_THREADS - 1) / WARP_THREADS * WARP_THREADS;
  const unsigned threads = (unsigned)min(columns, (int64_t)TILE_THREADS);
  const dim3 grid((unsigned)((c + threads - 1) / threads), (unsigned)sums.tiles);
  LAUNCH(sum_tiles<T>, grid, threads, 0, cuda_stream(device), sums, dy);
  LAUNCH(add_carried, grid, threads, 0, cuda_stream(device), sums);
  cuda_launched(device, what);
}

template <typename T, typename K>
static void add_rows(Device *device, int64_t n, int64_t c, const K *keys, const T *dy, float *table) {
  for (int64_t first = 0; first < n; first += BATCH_ROWS) {
    add_batch(device, min(BATCH_ROWS, n - first), c, keys + first, dy + first * c, table);
  }
}

template <typename T>
static void embedding_backward(Device *device, int64_t n, int64_t c, const int32_t *tokens,
                               const int64_t *positions, const elem *dy, float *dwte, float *dwpe) {
  if (n == 0 || c == 0 || !cuda_usable(device)) return;
  add_rows(device, n, c, tokens, (const T *)dy, dwte);
  if (dwpe != NULL) add_rows(device, n, c, positions, (const T *)dy, dwpe);
}

template <typename T> void cuda_embedding_fill(Ops *ops) {
  ops->embedding_forward = embedding_forward<T>;
  ops->embedding_backward = embedding_backward<T>;
}

template void cuda_embedding_fill<float>(Ops *ops);
template void cuda_embedding_fill<bf16>(Ops *ops);
