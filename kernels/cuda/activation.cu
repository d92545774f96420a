/* Activations and the rounding of floats to elements, one by one. The equations are those of
 * kernels/cpu/reference_activation.h. */
#include "kernels/cuda/reduce.h"
#include "kernels/cuda/vectors.h"

enum { THREADS = 256 };

/* GELU's tanh form is 0.5 x (1 + tanh(u)) = x sigmoid(2 u), the latter without the cancellation near tanh =
 * -1; 2 u = LINEAR x + CUBIC x^3 with LINEAR = 2 sqrt(2 / pi) and CUBIC = 0.044715 LINEAR. */
#define GELU_LINEAR 1.59576912160573071176F
#define GELU_CUBIC 0.07135481627260024878F

static __device__ __forceinline__ float sigmoid(float x) {
  return 1.0F / (1.0F + expf(-x));
}

/* s (1 - s) of s = sigmoid(x), without taking s from 1 where it is all but 1. */
static __device__ __forceinline__ float sigmoid_slope(float x) {
  const float e = expf(-fabsf(x));
  return e / ((1.0F + e) * (1.0F + e));
}

static __device__ __forceinline__ float gelu(float x) {
  return x * sigmoid(x * fmaf(GELU_CUBIC, x * x, GELU_LINEAR));
}

static __device__ __forceinline__ float gelu_slope(float x) {
  const float square = x * x;
  const float twice_u = x * fmaf(GELU_CUBIC, square, GELU_LINEAR);
  const float slope = fmaf(3.0F * GELU_CUBIC, square, GELU_LINEAR);
  return sigmoid(twice_u) + x * sigmoid_slope(twice_u) * slope;
}

template <typename T>
static __global__ void __launch_bounds__(THREADS) gelu_forward_kernel(int64_t count, const T *x, T *y) {
  constexpr int N = vector_size<T>;
  for (int64_t i = thread_index() * N; i < count; i += thread_count() * N) {
    float values[N];
    load_vector(x + i, count - i, values);
#pragma unroll
    for (int k = 0; k < N; k++) values[k] = gelu(values[k]);
    store_vector(values, count - i, y + i);
  }
}

/* dx may be dy: each thread reads its elements before it writes them. */
template <typename T>
static __global__ void __launch_bounds__(THREADS)
    gelu_backward_kernel(int64_t count, const T *x, const T *dy, T *dx) {
  constexpr int N = vector_size<T>;
  for (int64_t i = thread_index() * N; i < count; i += thread_count() * N) {
    float values[N];
    float gradients[N];
    load_vector(x + i, count - i, values);
    load_vector(dy + i, count - i, gradients);
#pragma unroll
    for (int k = 0; k < N; k++) gradients[k] *= gelu_slope(values[k]);
    store_vector(gradients, count - i, dx + i);
  }
}

/* gate_up (n, 2f), y (n, f): a thread takes a vector of the columns of one row. */
template <typename T>
static __global__ void __launch_bounds__(THREADS)
    swiglu_forward_kernel(int64_t n, int64_t f, const T *gate_up, T *y) {
  constexpr int N = vector_size<T>;
  const int64_t vectors = vectors_of<T>(f);
  for (int64_t item = thread_index(); item < n * vectors; item += thread_count()) {
    const int64_t row = item / vectors;
    const int64_t column = item % vectors * N;
    const T *at = gate_up + row * 2 * f + column;
    float gate[N];
    float up[N];
    load_vector(at, f - column, gate);
    load_vector(at + f, f - column, up);
#pragma unroll
    for (int k = 0; k < N; k++) gate[k] = gate[k] * sigmoid(gate[k]) * up[k];
    store_vector(gate, f - column, y + row * f + column);
  }
}

template <typename T>
static __global__ void __launch_bounds__(THREADS)
    swiglu_backward_kernel(int64_t n, int64_t f, const T *gate_up, const T *dy, T *dgate_up) {
  constexpr int N = vector_size<T>;
  const int64_t vectors = vectors_of<T>(f);
  for (int64_t item = thread_index(); item < n * vectors; item += thread_count()) {
    const int64_t row = item / vectors;
    const int64_t column = item % vectors * N;
    const int64_t left = f - column;
    const int64_t at = row * 2 * f + column;
    float gate[N];
    float up[N];
    float gradient[N];
    load_vector(gate_up + at, left, gate);
    load_vector(gate_up + at + f, left, up);
    load_vector(dy + row * f + column, left, gradient);
#pragma unroll
    for (int k = 0; k < N; k++) {
      const float s = sigmoid(gate[k]);
      const float dsilu = s + gate[k] * sigmoid_slope(gate[k]);
      const float dgate = gradient[k] * up[k] * dsilu;
      up[k] = gradient[k] * gate[k] * s;
      gate[k] = dgate;
    }
    store_vector(gate, left, dgate_up + at);
    store_vector(up, left, dgate_up + at + f);
  }
}

template <typename T>
static __global__ void __launch_bounds__(THREADS) from_floats_kernel(int64_t count, const float *x, T *y) {
  constexpr int N = vector_size<T>;
  for (int64_t i = thread_index() * N; i < count; i += thread_count() * N) {
    float values[N];
    load_floats<T>(x + i, count - i, values);
    store_vector(values, count - i, y + i);
  }
}

/* Blocks of a grid whose threads take a vector at a time of rows of `count` elements. */
template <typename T> static unsigned blocks_for(const Device *device, int64_t rows, int64_t count) {
  return cuda_blocks(device, rows * vectors_of<T>(count), THREADS);
}

template <typename T> static void gelu_forward(Device *device, int64_t count, const elem *x, elem *y) {
  if (count == 0 || !cuda_usable(device)) return;
  LAUNCH(gelu_forward_kernel<T>, blocks_for<T>(device, 1, count), THREADS, 0, cuda_stream(device), count,
         (const T *)x, (T *)y);
  cuda_launched(device, "gelu_forward");
}

template <typename T>
static void gelu_backward(Device *device, int64_t count, const elem *x, const elem *dy, elem *dx) {
  if (count == 0 || !cuda_usable(device)) return;
  LAUNCH(gelu_backward_kernel<T>, blocks_for<T>(device, 1, count), THREADS, 0, cuda_stream(device), count,
         (const T *)x, (const T *)dy, (T *)dx);
  cuda_launched(device, "gelu_backward");
}

template <typename T>
static void swiglu_forward(Device *device, int64_t n, int64_t f, const elem *gate_up, elem *y) {
  if (n == 0 || f == 0 || !cuda_usable(device)) return;
  LAUNCH(swiglu_forward_kernel<T>, blocks_for<T>(device, n, f), THREADS, 0, cuda_stream(device), n, f,
         (const T *)gate_up, (T *)y);
  cuda_launched(device, "swiglu_forward");
}

template <typename T>
static void swiglu_backward(Device *device, int64_t n, int64_t f, const elem *gate_up, const elem *dy,
                            elem *dgate_up) {
  if (n == 0 || f == 0 || !cuda_usable(device)) return;
  LAUNCH(swiglu_backward_kernel<T>, blocks_for<T>(device, n, f), THREADS, 0, cuda_stream(device), n, f,
         (const T *)gate_up, (const T *)dy, (T *)dgate_up);
  cuda_launched(device, "swiglu_backward");
}

template <typename T> static void from_floats(Device *device, int64_t count, const float *x, elem *y) {
  if (count == 0 || !cuda_usable(device)) return;
  LAUNCH(from_floats_kernel<T>, blocks_for<T>(device, 1, count), THREADS, 0, cuda_stream(device), count, x,
         (T *)y);
  cuda_launched(device, "from_floats");
}

template <typename T> void cuda_activation_fill(Ops *ops) {
  ops->gelu_forward = gelu_forward<T>;
  ops->gelu_backward = gelu_backward<T>;
  ops->swiglu_forward = swiglu_forward<T>;
  ops->swiglu_backward = swiglu_backward<T>;
  ops->from_floats = from_floats<T>;
}

template void cuda_activation_fill<float>(Ops *ops);
template void cuda_activation_fill<bf16>(Ops *ops);
