/* Sixteen bytes of elements at a time: the largest load and store of a thread. Arrays need not be aligned;
 * where they are not, and at their ends, the elements go one by one. */
#ifndef RINGGPT_CUDA_VECTORS_H
#define RINGGPT_CUDA_VECTORS_H

#include <stdint.h>

#include "kernels/cuda/elements.h"

/* Elements of a vector: 4 floats or 8 bf16. */
template <typename T> constexpr int vector_size = (int)(sizeof(uint4) / sizeof(T));

/* Vectors that hold `count` elements. */
template <typename T> __host__ __device__ __forceinline__ int64_t vectors_of(int64_t count) {
  return (count + vector_size<T> - 1) / vector_size<T>;
}

__device__ __forceinline__ bool vector_aligned(const void *pointer) {
  return (uintptr_t)pointer % sizeof(uint4) == 0;
}

/* Reads the next vector of the `left` elements (> 0) at `from`; zeros behind the last. */
template <typename T>
__device__ __forceinline__ void load_vector(const T *from, int64_t left, float (&to)[vector_size<T>]) {
  if (left >= vector_size<T> && vector_aligned(from)) {
    alignas(sizeof(uint4)) T elements[vector_size<T>];
    *(uint4 *)elements = *(const uint4 *)from;
#pragma unroll
    for (int k = 0; k < vector_size<T>; k++) to[k] = to_float(elements[k]);
  } else {
#pragma unroll
    for (int k = 0; k < vector_size<T>; k++) to[k] = k < left ? to_float(from[k]) : 0.0F;
  }
}

/* Reads the floats that go with a vector of T: the next of the `left` (> 0) at `from`; zeros behind the last.
 */
template <typename T>
__device__ __forceinline__ void load_floats(const float *from, int64_t left, float (&to)[vector_size<T>]) {
  constexpr int PART = vector_size<float>;
#pragma unroll
  for (int first = 0; first < vector_size<T>; first += PART) {
    float part[PART] = {};
    if (first < left) load_vector(from + first, left - first, part);
#pragma unroll
    for (int k = 0; k < PART; k++) to[first + k] = part[k];
  }
}

/* Writes the next vector, rounded to elements, where `left` (> 0) are left at `to`; nothing behind the last.
 */
template <typename T>
__device__ __forceinline__ void store_vector(const float (&from)[vector_size<T>], int64_t left, T *to) {
  if (left >= vector_size<T> && vector_aligned(to)) {
    alignas(sizeof(uint4)) T elements[vector_size<T>];
#pragma unroll
    for (int k = 0; k < vector_size<T>; k++) elements[k] = from_float<T>(from[k]);
    *(uint4 *)to = *(const uint4 *)elements;
  } else {
#pragma unroll
    for (int k = 0; k < vector_size<T>; k++) {
      if (k < left) to[k] = from_float<T>(from[k]);
    }
  }
}

#endif
