/* Dropout, with the integers of cuRAND's Philox4x32-10: the generator of kernels/base/philox.h, so that masks
 * are those of every other device. */
#include <curand_philox4x32_x.h>

#include "kernels/base/philox.h"
#include "kernels/cuda/reduce.h"
#include "kernels/cuda/vectors.h"

enum { THREADS = 256, BLOCK_WORDS = 4 };

/* The words of block `index` of the key: philox_draw(seed, PHILOX_DROPOUT, stream, index). */
static __device__ __forceinline__ uint4 draw(const DropoutKey &key, uint64_t index) {
  const uint4 counter = {(uint32_t)index, (uint32_t)(index >> 32), key.stream, (uint32_t)PHILOX_DROPOUT};
  const uint2 seed = {(uint32_t)key.seed, (uint32_t)(key.seed >> 32)};
  return curand_Philox4x32_10(counter, seed);
}

/* One rounding of scale x; 0 where dropped, whatever x is. */
static __device__ __forceinline__ float kept(const DropoutKey &key, uint32_t word, float x) {
  return word >= key.threshold ? key.scale * x : 0.0F;
}

/* x, y (n, c): a thread takes a vector of the columns of one row. */
template <typename T>
static __global__ void __launch_bounds__(THREADS)
    dropout_kernel(int64_t n, int64_t c, DropoutKey key, const int64_t *rows, const T *x, T *y) {
  constexpr int N = vector_size<T>;
  static_assert(N % BLOCK_WORDS == 0, "vectors begin where blocks begin");
  const int64_t vectors = vectors_of<T>(c);
  const uint64_t blocks = (uint64_t)(c + BLOCK_WORDS - 1) / BLOCK_WORDS;
  for (int64_t item = thread_index(); item < n * vectors; item += thread_count()) {
    const int64_t row = item / vectors;
    const int64_t column = item % vectors * N;
    const uint64_t block = (uint64_t)rows[row] * blocks + (uint64_t)column / BLOCK_WORDS;
    float values[N];
    load_vector(x + row * c + column, c - column, values);
#pragma unroll
    for (int k = 0; k < N; k += BLOCK_WORDS) {
      const uint4 words = draw(key, block + k / BLOCK_WORDS);
      values[k] = kept(key, words.x, values[k]);
      values[k + 1] = kept(key, words.y, values[k + 1]);
      values[k + 2] = kept(key, words.z, values[k + 2]);
      values[k + 3] = kept(key, words.w, values[k + 3]);
    }
    store_vector(values, c - column, y + row * c + column);
  }
}

template <typename T>
static void dropout(Device *device, int64_t n, int64_t c, const DropoutKey *key, const int64_t *rows,
                    const elem *x, elem *y) {
  if (n == 0 || c == 0 || !cuda_usable(device)) return;
  LAUNCH(dropout_kernel<T>, cuda_blocks(device, n * vectors_of<T>(c), THREADS), THREADS, 0,
         cuda_stream(device), n, c, *key, rows, (const T *)x, (T *)y);
  cuda_launched(device, "dropout");
}

template <typename T> void cuda_dropout_fill(Ops *ops) {
  ops->dropout = dropout<T>;
}

template void cuda_dropout_fill<float>(Ops *ops);
template void cuda_dropout_fill<bf16>(Ops *ops);
