/* Operations on floats alone: the sums of the loss and of the gradient norm, the AdamW update, and the sum of
 * gradients. */
#include <math.h>

#include "kernels/cuda/reduce.h"
#include "kernels/cuda/vectors.h"

enum { THREADS = 256, WARPS = THREADS / WARP_THREADS, N = vector_size<float> };

/* Pieces of a sum at most: fixed, so that the bits do not depend on the kind of GPU. */
#define SUM_PIECES 1024U

/* pieces[b]: what the threads of block b stride over, or its squares, added in double. */
template <bool SQUARES>
static __global__ void __launch_bounds__(THREADS) sum_kernel(int64_t count, const float *x, double *pieces) {
  double sum = 0;
  for (int64_t i = thread_index() * N; i < count; i += thread_count() * N) {
    float values[N];
    load_vector(x + i, count - i, values);
#pragma unroll
    for (int k = 0; k < N; k++) sum += SQUARES ? (double)values[k] * (double)values[k] : (double)values[k];
  }
  sum = block_sum<WARPS>(sum);
  if (threadIdx.x == 0) pieces[blockIdx.x] = sum;
}

/* *sum += pieces (count). One block. */
static __global__ void __launch_bounds__(THREADS)
    add_pieces_kernel(int64_t count, const double *pieces, double *sum) {
  double total = 0;
  for (int64_t i = threadIdx.x; i < count; i += THREADS) total += pieces[i];
  total = block_sum<WARPS>(total);
  if (threadIdx.x == 0) *sum += total;
}

template <bool SQUARES>
static void add_to_sum(Device *device, int64_t count, const float *x, double *sum, const char *what) {
  if (count == 0 || !cuda_usable(device)) return;
  const int64_t most = (vectors_of<float>(count) + THREADS - 1) / THREADS;
  const unsigned blocks = most < SUM_PIECES ? (unsigned)most : SUM_PIECES;
  double *pieces = (double *)cuda_scratch(device, blocks * sizeof *pieces, what);
  if (pieces == NULL) return;
  LAUNCH(sum_kernel<SQUARES>, blocks, THREADS, 0, cuda_stream(device), count, x, pieces);
  if (!cuda_launched(device, what)) return;
  LAUNCH(add_pieces_kernel, 1, THREADS, 0, cuda_stream(device), (int64_t)blocks, pieces, sum);
  cuda_launched(device, what);
}

static void sum(Device *device, int64_t count, const float *x, double *sum) {
  add_to_sum<false>(device, count, x, sum, "sum");
}

static void sum_of_squares(Device *device, int64_t count, const float *x, double *sum) {
  add_to_sum<true>(device, count, x, sum, "sum_of_squares");
}

static __global__ void __launch_bounds__(THREADS) add_f32_kernel(int64_t count, const float *x, float *y) {
  for (int64_t i = thread_index() * N; i < count; i += thread_count() * N) {
    float values[N];
    float sums[N];
    load_vector(x + i, count - i, values);
    load_vector(y + i, count - i, sums);
#pragma unroll
    for (int k = 0; k < N; k++) sums[k] += values[k];
    store_vector(sums, count - i, y + i);
  }
}

static void add_f32(Device *device, int64_t count, const float *x, float *y) {
  if (count == 0 || !cuda_usable(device)) return;
  LAUNCH(add_f32_kernel, cuda_blocks(device, vectors_of<float>(count), THREADS), THREADS, 0,
         cuda_stream(device), count, x, y);
  cuda_launched(device, "add_f32");
}

/* Factors of one step, made in double and rounded once. */
typedef struct AdamwFactors {
  float gradient_scale;
  float keep1, take1; /* beta1, 1 - beta1 */
  float keep2, take2;
  float correction1, correction2; /* 1 / (1 - beta^step) */
  float rate, eps, decay;
} AdamwFactors;

static AdamwFactors adamw_factors(const AdamwStep *step) {
  const double beta1 = (double)step->beta1;
  const double beta2 = (double)step->beta2;
  AdamwFactors factors;
  factors.gradient_scale = step->gradient_scale;
  factors.keep1 = step->beta1;
  factors.take1 = (float)(1.0 - beta1);
  factors.keep2 = step->beta2;
  factors.take2 = (float)(1.0 - beta2);
  factors.correction1 = (float)(1.0 / (1.0 - pow(beta1, (double)step->step)));
  factors.correction2 = (float)(1.0 / (1.0 - pow(beta2, (double)step->step)));
  factors.rate = step->learning_rate;
  factors.eps = step->eps;
  factors.decay = step->weight_decay;
  return factors;
}

/* The equations of reference_adamw in float. */
static __device__ __forceinline__ void adamw_update(const AdamwFactors &factors, float gradient,
                                                    float &weight, float &m, float &v) {
  const float g = factors.gradient_scale * gradient;
  m = fmaf(factors.take1, g, factors.keep1 * m);
  v = fmaf(factors.take2 * g, g, factors.keep2 * v);
  const float direction = m * factors.correction1 / (sqrtf(v * factors.correction2) + factors.eps);
  weight = fmaf(-factors.rate, fmaf(factors.decay, weight, direction), weight);
}

static __global__ void __launch_bounds__(THREADS)
    adamw_kernel(AdamwFactors factors, int64_t count, const float *gradient, float *weights, float *m,
                 float *v) {
  for (int64_t i = thread_index() * N; i < count; i += thread_count() * N) {
    const int64_t left = count - i;
    float g[N];
    float w[N];
    float mean[N];
    float square[N];
    load_vector(gradient + i, left, g);
    load_vector(weights + i, left, w);
    load_vector(m + i, left, mean);
    load_vector(v + i, left, square);
#pragma unroll
    for (int k = 0; k < N; k++) adamw_update(factors, g[k], w[k], mean[k], square[k]);
    store_vector(w, left, weights + i);
    store_vector(mean, left, m + i);
    store_vector(square, left, v + i);
  }
}

static void adamw(Device *device, const AdamwStep *step, int64_t count, const float *gradient, float *weights,
                  float *m, float *v) {
  if (count == 0 || !cuda_usable(device)) return;
  LAUNCH(adamw_kernel, cuda_blocks(device, vectors_of<float>(count), THREADS), THREADS, 0,
         cuda_stream(device), adamw_factors(step), count, gradient, weights, m, v);
  cuda_launched(device, "adamw");
}

void cuda_optimizer_fill(Ops *ops) {
  ops->sum = sum;
  ops->sum_of_squares = sum_of_squares;
  ops->add_f32 = add_f32;
  ops->adamw = adamw;
}
