/* Rotary position embeddings. */
#include "kernels/cuda/reduce.h"
#include "kernels/cuda/vectors.h"

enum { THREADS = 256 };

/* Angles reach millions of radians at long contexts: in float they would be wrong by whole turns. */
static __global__ void __launch_bounds__(THREADS)
    rope_table_kernel(int64_t n, int64_t half, const int64_t *positions, const double *inverse_frequency,
                      float *table) {
  for (int64_t item = thread_index(); item < n * half; item += thread_count()) {
    const int64_t row = item / half;
    const int64_t j = item % half;
    double sine;
    double cosine;
    sincos((double)positions[row] * inverse_frequency[j], &sine, &cosine);
    table[row * 2 * half + j] = (float)cosine;
    table[row * 2 * half + half + j] = (float)sine;
  }
}

/* x (n, heads, d), row stride `stride`. A thread turns a vector of the first half of a head against that of
 * the second half; the threads of a row stand together, so that its angles are read from memory once. */
template <typename T>
static __global__ void __launch_bounds__(THREADS)
    rope_apply_kernel(int64_t n, int64_t heads, int64_t half, int64_t stride, const float *table,
                      bool inverse, T *x) {
  constexpr int N = vector_size<T>;
  const int64_t vectors = vectors_of<T>(half);
  for (int64_t item = thread_index(); item < n * heads * vectors; item += thread_count()) {
    const int64_t head = item / vectors;
    const int64_t row = head / heads;
    const int64_t j = item % vectors * N;
    const int64_t left = half - j;
    T *first = x + row * stride + head % heads * 2 * half + j;
    T *second = first + half;
    float cosines[N];
    float sines[N];
    float a[N];
    float b[N];
    load_floats<T>(table + row * 2 * half + j, left, cosines);
    load_floats<T>(table + row * 2 * half + half + j, left, sines);
    load_vector(first, left, a);
    load_vector(second, left, b);
#pragma unroll
    for (int k = 0; k < N; k++) {
      const float s = inverse ? -sines[k] : sines[k];
      const float turned = fmaf(a[k], cosines[k], -(b[k] * s));
      b[k] = fmaf(b[k], cosines[k], a[k] * s);
      a[k] = turned;
    }
    store_vector(a, left, first);
    store_vector(b, left, second);
  }
}

static void rope_table(Device *device, int64_t n, int64_t d, const int64_t *positions,
                       const double *inverse_frequency, float *table) {
  const int64_t half = d / 2;
  if (n == 0 || half == 0 || !cuda_usable(device)) return;
  LAUNCH(rope_table_kernel, cuda_blocks(device, n * half, THREADS), THREADS, 0, cuda_stream(device), n, half,
         positions, inverse_frequency, table);
  cuda_launched(device, "rope_table");
}

template <typename T>
static void rope_apply(Device *device, int64_t n, int64_t heads, int64_t d, int64_t stride,
                       const float *table, bool inverse, elem *x) {
  const int64_t half = d / 2;
  const int64_t items = n * heads * vectors_of<T>(half);
  if (items == 0 || !cuda_usable(device)) return;
  LAUNCH(rope_apply_kernel<T>, cuda_blocks(device, items, THREADS), THREADS, 0, cuda_stream(device), n, heads,
         half, stride, table, inverse, (T *)x);
  cuda_launched(device, "rope_apply");
}

template <typename T> void cuda_position_fill(Ops *ops) {
  ops->rope_table = rope_table;
  ops->rope_apply = rope_apply<T>;
}

template void cuda_position_fill<float>(Ops *ops);
template void cuda_position_fill<bf16>(Ops *ops);
