/* Elements of the two precisions as kernels see them: read to float, computed in float, rounded once. */
#ifndef RINGGPT_CUDA_ELEMENTS_H
#define RINGGPT_CUDA_ELEMENTS_H

#include "kernels/cuda/cuda_device.h"

__device__ __forceinline__ float to_float(float x) {
  return x;
}

__device__ __forceinline__ float to_float(bf16 x) {
  return __bfloat162float(x);
}

/* Rounds to nearest even. */
template <typename T> __device__ __forceinline__ T from_float(float x);

template <> __device__ __forceinline__ float from_float<float>(float x) {
  return x;
}

template <> __device__ __forceinline__ bf16 from_float<bf16>(float x) {
  return __float2bfloat16_rn(x);
}

#endif
