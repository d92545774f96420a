/* Rows grouped by a key on the device: what a sum over the rows of equal keys needs in order to be the same
 * from call to call. A stable radix sort by bytes, of which only the passes that the keys need do anything:
 * the largest key is known to the device alone, the host waits for nothing. */
#ifndef RINGGPT_CUDA_ROW_SORT_H
#define RINGGPT_CUDA_ROW_SORT_H

#include "kernels/cuda/cuda_device.h"
#include "kernels/cuda/reduce.h"

/* One sort's scratch memory. An entry is a key in the upper half and its row's number in the lower. */
typedef struct RowSort {
  int64_t rows;
  int64_t chunks;       /* each passed over by one warp, in order */
  int64_t chunk_rows;   /* of each chunk but the last, which may have fewer */
  uint64_t *entries[2]; /* (rows) each: where a pass reads and where it writes, in turn */
  uint32_t *counts;     /* (chunks, 256): rows of each chunk by the byte at hand */
  uint32_t *largest;    /* (chunks): the largest key of each */
} RowSort;

/* Bytes of scratch memory of a sort of `rows` rows. */
size_t row_sort_bytes(int64_t rows);

/* The sort of `rows` rows (at least 1, and fewer than 2^32: their numbers are kept in 32 bits) in scratch
 * memory of row_sort_bytes, aligned to 256. */
RowSort row_sort_at(int64_t rows, void *scratch);

/* Sorts the rows 0, 1, ... by keys (rows), of type int32_t or int64_t, 0 <= key < 2^32; equal keys keep the
 * order of their rows. `what` names the operation in an error. False when a launch failed. */
template <typename K> bool row_sort(Device *device, const RowSort &sort, const K *keys, const char *what);

/* How many of its bytes the largest key needs: so many passes have been or are to be made. All lanes of the
 * warp together, the same in each. */
__device__ __forceinline__ int row_sort_passes(const RowSort &sort) {
  uint32_t largest = 0;
  for (int64_t i = threadIdx.x % WARP_THREADS; i < sort.chunks; i += WARP_THREADS) {
    largest = max(largest, sort.largest[i]);
  }
#pragma unroll
  for (int distance = WARP_THREADS / 2; distance > 0; distance /= 2) {
    largest = max(largest, __shfl_xor_sync(WHOLE_WARP, largest, distance));
  }
  return (WARP_THREADS - __clz((int)largest) + 7) / 8;
}

/* Where the entries are after `passes` passes. */
__device__ __forceinline__ uint64_t *row_sort_entries(const RowSort &sort, int passes) {
  return passes % 2 == 0 ? sort.entries[0] : sort.entries[1];
}

/* The sorted entries (rows), once row_sort is done. All lanes of the warp together. */
__device__ __forceinline__ const uint64_t *row_sort_result(const RowSort &sort) {
  return row_sort_entries(sort, row_sort_passes(sort));
}

__device__ __forceinline__ uint32_t entry_key(uint64_t entry) {
  return (uint32_t)(entry >> 32);
}

__device__ __forceinline__ int64_t entry_row(uint64_t entry) {
  return (int64_t)(entry & 0xffffffffU);
}

#endif
