/* Sums and maxima over the threads of a warp and of a block, and sums of columns within a block: in a
 * fixed order, so that the bits are the same from call to call. */
#ifndef RINGGPT_CUDA_REDUCE_H
#define RINGGPT_CUDA_REDUCE_H

#include <stdint.h>

#include "kernels/cuda/language.h"

#define WARP_THREADS 32
#define WHOLE_WARP 0xffffffffU

/* The number of this thread in its grid of one dimension, and how many there are: where a loop that strides
 * over the whole work begins, and its step. */
__device__ __forceinline__ int64_t thread_index(void) {
  return (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
}

__device__ __forceinline__ int64_t thread_count(void) {
  return (int64_t)gridDim.x * blockDim.x;
}

__device__ __forceinline__ float larger(float a, float b) {
  return fmaxf(a, b);
}

__device__ __forceinline__ double larger(double a, double b) {
  return fmax(a, b);
}

/* The sum, or the maximum, of `value` over the warp, in every lane the same bits: at each step two lanes add
 * the same two numbers. Float or double; all lanes together. A NaN is lost in a maximum, not in a sum. */
template <typename S> __device__ __forceinline__ S warp_sum(S value) {
#pragma unroll
  for (int distance = WARP_THREADS / 2; distance > 0; distance /= 2) {
    value += __shfl_xor_sync(WHOLE_WARP, value, distance);
  }
  return value;
}

template <typename S> __device__ __forceinline__ S warp_max(S value) {
#pragma unroll
  for (int distance = WARP_THREADS / 2; distance > 0; distance /= 2) {
    value = larger(value, __shfl_xor_sync(WHOLE_WARP, value, distance));
  }
  return value;
}

/* The same over a block of WARPS whole warps of one dimension, in every thread. All threads together; their
 * accesses to shared memory before the call are ordered before those behind it. */
template <int WARPS, typename S> __device__ __forceinline__ S block_sum(S value) {
  static_assert(WARPS <= WARP_THREADS, "one warp adds the sums of all");
  if (WARPS == 1) {
    value = warp_sum(value);
    __syncwarp(); /* a shuffle orders no memory */
    return value;
  }
  SHARED(S, parts, [WARP_THREADS]);
  const int lane = (int)threadIdx.x % WARP_THREADS;
  value = warp_sum(value);
  if (lane == 0) parts[threadIdx.x / WARP_THREADS] = value;
  __syncthreads();
  value = warp_sum(lane < WARPS ? parts[lane] : (S)0);
  __syncthreads();
  return value;
}

template <int WARPS, typename S> __device__ __forceinline__ S block_max(S value) {
  static_assert(WARPS <= WARP_THREADS, "one warp compares the maxima of all");
  if (WARPS == 1) {
    value = warp_max(value);
    __syncwarp(); /* a shuffle orders no memory */
    return value;
  }
  SHARED(S, parts, [WARP_THREADS]);
  const int lane = (int)threadIdx.x % WARP_THREADS;
  value = warp_max(value);
  if (lane == 0) parts[threadIdx.x / WARP_THREADS] = value;
  __syncthreads();
  value = warp_max(parts[lane < WARPS ? lane : 0]);
  __syncthreads();
  return value;
}

/* Adds up columns that the WARPS warps of a block summed over rows of their own: lane l of each holds the
 * sums of columns N l ... N l + N - 1 of the block's 32 N. Returns to thread t the total of column t, and 0
 * to those behind the last column. All threads together, ordered as in block_sum. */
template <int WARPS, int N, typename S> __device__ __forceinline__ S column_total(const S (&sums)[N]) {
  static_assert(N <= WARPS, "a thread for each column");
  SHARED(S, parts, [WARPS][WARP_THREADS * N]);
  const int lane = (int)threadIdx.x % WARP_THREADS;
  const int warp = (int)threadIdx.x / WARP_THREADS;
#pragma unroll
  for (int k = 0; k < N; k++) parts[warp][lane * N + k] = sums[k];
  __syncthreads();
  S total = 0;
  if (threadIdx.x < WARP_THREADS * N) {
    for (int i = 0; i < WARPS; i++) total += parts[i][threadIdx.x];
  }
  __syncthreads();
  return total;
}

#endif
