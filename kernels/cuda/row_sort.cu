/* The radix sort of row_sort.h. A pass sorts by one byte: every chunk counts its rows by that byte, and every
 * chunk then knows from all counts where each of its bytes begins, and moves its rows there in order. */
#include "kernels/cuda/row_sort.h"

enum { BITS = 8, DIGITS = 1 << BITS, WARPS = DIGITS / WARP_THREADS };

/* Chunks are few, since each reads the counts of all, and not shorter than is worth a warp. */
static const int64_t MOST_CHUNKS = 512;
static const int64_t LEAST_CHUNK_ROWS = 256;

/* Where scratch memory may be cut. */
#define ALIGNMENT 256

static size_t aligned(size_t bytes) {
  return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

RowSort row_sort_at(int64_t rows, void *scratch) {
  RowSort sort = {};
  sort.rows = rows;
  const int64_t even = (rows + MOST_CHUNKS - 1) / MOST_CHUNKS;
  sort.chunk_rows = even > LEAST_CHUNK_ROWS ? even : LEAST_CHUNK_ROWS;
  sort.chunks = (rows + sort.chunk_rows - 1) / sort.chunk_rows;
  unsigned char *at = (unsigned char *)scratch;
  for (int i = 0; i < 2; i++) {
    sort.entries[i] = (uint64_t *)at;
    at += aligned((size_t)rows * sizeof(uint64_t));
  }
  sort.counts = (uint32_t *)at;
  at += aligned((size_t)sort.chunks * DIGITS * sizeof(uint32_t));
  sort.largest = (uint32_t *)at;
  return sort;
}

size_t row_sort_bytes(int64_t rows) {
  return 2 * aligned((size_t)rows * sizeof(uint64_t)) +
         aligned((size_t)MOST_CHUNKS * DIGITS * sizeof(uint32_t)) +
         aligned((size_t)MOST_CHUNKS * sizeof(uint32_t));
}

/* The chunk of this thread's warp, and its rows [begin, end): none for a warp beyond the last chunk. */
typedef struct Chunk {
  int64_t number, begin, end;
} Chunk;

static __device__ __forceinline__ Chunk chunk_of_warp(const RowSort &sort) {
  Chunk chunk = {thread_index() / WARP_THREADS, sort.rows, sort.rows};
  if (chunk.number < sort.chunks) {
    chunk.begin = chunk.number * sort.chunk_rows;
    chunk.end = min(chunk.begin + sort.chunk_rows, sort.rows);
  }
  return chunk;
}

static __device__ __forceinline__ int digit_of(uint64_t entry, int pass) {
  return (int)(entry_key(entry) >> (BITS * pass)) & (DIGITS - 1);
}

/* Makes the entries, in the order of rows, and finds each chunk's largest key. */
template <typename K>
static __global__ void __launch_bounds__(DIGITS) make_entries(RowSort sort, const K *keys) {
  const Chunk chunk = chunk_of_warp(sort);
  const int lane = (int)threadIdx.x % WARP_THREADS;
  uint32_t largest = 0;
  for (int64_t row = chunk.begin + lane; row < chunk.end; row += WARP_THREADS) {
    const uint32_t key = (uint32_t)keys[row];
    sort.entries[0][row] = (uint64_t)key << 32 | (uint64_t)row;
    largest = max(largest, key);
  }
#pragma unroll
  for (int distance = WARP_THREADS / 2; distance > 0; distance /= 2) {
    largest = max(largest, __shfl_xor_sync(WHOLE_WARP, largest, distance));
  }
  if (lane == 0 && chunk.number < sort.chunks) sort.largest[chunk.number] = largest;
}

/* Counts each chunk's rows by the byte of the pass. */
static __global__ void __launch_bounds__(DIGITS) count_digits(RowSort sort, int pass) {
  SHARED(uint32_t, counts, [WARPS][DIGITS]);
  if (pass >= row_sort_passes(sort)) return;
  const Chunk chunk = chunk_of_warp(sort);
  const int warp = (int)threadIdx.x / WARP_THREADS;
  const int lane = (int)threadIdx.x % WARP_THREADS;
  for (int digit = lane; digit < DIGITS; digit += WARP_THREADS) counts[warp][digit] = 0;
  __syncwarp();
  const uint64_t *entries = row_sort_entries(sort, pass);
  for (int64_t i = chunk.begin + lane; i < chunk.end; i += WARP_THREADS) {
    atomicAdd(&counts[warp][digit_of(entries[i], pass)], 1U);
  }
  __syncwarp();
  if (chunk.number >= sort.chunks) return;
  for (int digit = lane; digit < DIGITS; digit += WARP_THREADS) {
    sort.counts[chunk.number * DIGITS + digit] = counts[warp][digit];
  }
}

/* The sum of the values of the threads before this one in the block of DIGITS threads. */
static __device__ __forceinline__ uint32_t sum_before(uint32_t value) {
  SHARED(uint32_t, totals, [WARPS]);
  const int warp = (int)threadIdx.x / WARP_THREADS;
  const int lane = (int)threadIdx.x % WARP_THREADS;
  uint32_t sum = value;
#pragma unroll
  for (int distance = 1; distance < WARP_THREADS; distance *= 2) {
    const uint32_t before = __shfl_up_sync(WHOLE_WARP, sum, distance);
    if (lane >= distance) sum += before;
  }
  if (lane == WARP_THREADS - 1) totals[warp] = sum;
  __syncthreads();
  for (int i = 0; i < warp; i++) sum += totals[i];
  return sum - value;
}

/* places[w][d]: where the rows with byte d of the chunk of the block's warp w begin. Rows go by byte, then by
 * chunk. A thread for each byte. */
static __device__ __forceinline__ void find_places(const RowSort &sort, uint32_t (&places)[WARPS][DIGITS]) {
  const int digit = (int)threadIdx.x;
  const int64_t first = (int64_t)blockIdx.x * WARPS;
  uint32_t total = 0;
#pragma unroll 8
  for (int64_t chunk = 0; chunk < sort.chunks; chunk++) {
    if (chunk >= first && chunk < first + WARPS) places[chunk - first][digit] = total;
    total += sort.counts[chunk * DIGITS + digit];
  }
  const uint32_t before = sum_before(total);
  for (int w = 0; w < WARPS && first + w < sort.chunks; w++) places[w][digit] += before;
  __syncthreads();
}

/* The lanes that hold a valid entry with the same digit as this one's. All lanes of the warp together. */
static __device__ __forceinline__ unsigned lanes_alike(int digit, bool valid) {
  unsigned alike = __ballot_sync(WHOLE_WARP, valid);
#pragma unroll
  for (int bit = 0; bit < BITS; bit++) {
    const bool set = (digit >> bit & 1) != 0;
    const unsigned lanes = __ballot_sync(WHOLE_WARP, set);
    alike &= set ? lanes : ~lanes;
  }
  return alike;
}

/* Moves each chunk's rows to their places, 32 at a time, equal ones in the order of lanes. */
static __global__ void __launch_bounds__(DIGITS) move_rows(RowSort sort, int pass) {
  SHARED(uint32_t, places, [WARPS][DIGITS]);
  if (pass >= row_sort_passes(sort)) return;
  find_places(sort, places);
  const uint64_t *from = row_sort_entries(sort, pass);
  uint64_t *to = row_sort_entries(sort, pass + 1);
  const Chunk chunk = chunk_of_warp(sort);
  uint32_t *next = places[threadIdx.x / WARP_THREADS];
  const int lane = (int)threadIdx.x % WARP_THREADS;
  for (int64_t first = chunk.begin; first < chunk.end; first += WARP_THREADS) {
    const bool valid = first + lane < chunk.end;
    const uint64_t entry = valid ? from[first + lane] : 0;
    const int digit = digit_of(entry, pass);
    const unsigned alike = lanes_alike(digit, valid);
    const int before = __popc(alike & ((1U << lane) - 1));
    const uint32_t place = valid ? next[digit] : 0;
    __syncwarp();
    if (valid) to[place + (uint32_t)before] = entry;
    if (valid && before == 0) next[digit] = place + (uint32_t)__popc(alike);
    __syncwarp();
  }
}

template <typename K> bool row_sort(Device *device, const RowSort &sort, const K *keys, const char *what) {
  const unsigned blocks = (unsigned)((sort.chunks + WARPS - 1) / WARPS);
  const cudaStream_t stream = cuda_stream(device);
  LAUNCH(make_entries<K>, blocks, DIGITS, 0, stream, sort, keys);
  if (!cuda_launched(device, what)) return false;
  for (int pass = 0; pass < (int)sizeof(uint32_t); pass++) {
    LAUNCH(count_digits, blocks, DIGITS, 0, stream, sort, pass);
    LAUNCH(move_rows, blocks, DIGITS, 0, stream, sort, pass);
    if (!cuda_launched(device, what)) return false;
  }
  return true;
}

template bool row_sort<int32_t>(Device *device, const RowSort &sort, const int32_t *keys, const char *what);
template bool row_sort<int64_t>(Device *device, const RowSort &sort, const int64_t *keys, const char *what);
