/* The sum of arrays of several ranks, in their order. */
#include "kernels/cuda/device_layer.h"

#define THREADS 256

/* The arrays, by value: they are the launch's own and need no copy to the GPU. */
typedef struct SumSources {
  const float *at[DEVICE_SOURCES];
} SumSources;

static bool is_aligned(const void *pointer) {
  return (uintptr_t)pointer % sizeof(float4) == 0;
}

/* to (elements) = the sum of `count` sources; the first 4 `vectors` elements by four. A thread has read all
 * sources of an element before it writes it, so that `to` may be one of them. */
__global__ void __launch_bounds__(THREADS)
    sum_kernel(SumSources sources, int count, int64_t vectors, int64_t elements, float *to) {
  const int64_t first = (int64_t)blockIdx.x * THREADS + threadIdx.x;
  const int64_t step = (int64_t)gridDim.x * THREADS;
  for (int64_t i = first; i < vectors; i += step) {
    float4 total = ((const float4 *)sources.at[0])[i];
    for (int k = 1; k < count; k++) {
      const float4 next = ((const float4 *)sources.at[k])[i];
      total.x += next.x;
      total.y += next.y;
      total.z += next.z;
      total.w += next.w;
    }
    ((float4 *)to)[i] = total;
  }
  for (int64_t i = 4 * vectors + first; i < elements; i += step) {
    float total = sources.at[0][i];
    for (int k = 1; k < count; k++) total += sources.at[k][i];
    to[i] = total;
  }
}

cudaError_t cuda_sum(const CudaDevice *cuda, cudaStream_t stream, int count, const float *const *sources,
                     int64_t elements, float *to) {
  SumSources by_value = {};
  bool aligned = is_aligned(to);
  for (int k = 0; k < count; k++) {
    by_value.at[k] = sources[k];
    aligned = aligned && is_aligned(sources[k]);
  }
  const int64_t vectors = aligned ? elements / 4 : 0;
  const unsigned blocks = cuda_blocks(&cuda->device, aligned ? elements / 4 + 1 : elements, THREADS);
  LAUNCH(sum_kernel, blocks, THREADS, 0, stream, by_value, count, vectors, elements, to);
  return cudaGetLastError();
}
