/* Cross-entropy and its gradient: a block of threads a row, which reads the logits once for the loss and once
 * more for the gradient. */
#include <math.h>

#include "kernels/cuda/float_pair.h"
#include "kernels/cuda/reduce.h"
#include "kernels/cuda/vectors.h"

/* Warps of the block of a long row, and the columns up to which one warp takes a row. */
enum { LONG_ROW_WARPS = 8 };
#define SHORT_ROW_COLUMNS 512

/* Logits that a thread has at hand: their maximum is found before their exponentials are summed, and their
 * loads are under way together. */
enum { STEP_LOGITS = 16 };

/* A row of logits cut where addresses are aligned for vectors, which in a vocabulary of odd size falls
 * elsewhere in each row: [0, head), then `vectors` whole vectors, then the rest. */
template <typename T> struct LogitRow {
  T *at;
  int64_t vocab, head, vectors;
};

template <typename T> static __device__ __forceinline__ LogitRow<T> cut_row(T *at, int64_t vocab) {
  const int64_t unaligned = (int64_t)((uintptr_t)at % sizeof(uint4) / sizeof(T));
  const int64_t head = unaligned == 0 ? 0 : vector_size<T> - unaligned;
  return {at, vocab, head, vocab > head ? (vocab - head) / vector_size<T> : 0};
}

/* The element outside of the vectors that is this thread's, or -1: they are fewer than two vectors hold. */
template <typename T> static __device__ __forceinline__ int64_t edge_of_thread(const LogitRow<T> &row) {
  const int64_t end = row.head + row.vectors * vector_size<T>;
  const int64_t edge = threadIdx.x < row.head ? threadIdx.x : end + (threadIdx.x - row.head);
  return edge < row.vocab ? edge : -1;
}

/* exp(logit - reference) = value + rest, where the rounding of a difference of floats would cost a digit of
 * the loss: the difference of two bf16 is as good as exact. */
template <typename T> static __device__ __forceinline__ FloatPair exponential(float logit, float reference) {
  const float difference = logit - reference;
  FloatPair result = {expf(difference), 0.0F};
  if (sizeof(T) < sizeof(float)) return result;
  const float subtracted = difference - logit;
  const float lost = (logit - (difference - subtracted)) - (reference + subtracted);
  if (fabsf(lost) < 1.0F) result.rest = result.value * lost; /* false for what is not finite */
  return result;
}

/* ---------------------------------------------------------------- the loss */

/* The largest of some logits, and the sum of exp(logit - maximum). The largest one's own term is 1: beside
 * it, the sum of the small ones is the loss itself, hence the pair. */
typedef struct Softmax {
  float maximum;
  FloatPair sum;
} Softmax;

/* Takes in N more logits (M. Milakov and N. Gimelshein, 2018). A NaN is lost in the maximum, not in the sum.
 */
template <typename T, int N>
static __device__ __forceinline__ void softmax_fold(Softmax *softmax, const float (&logits)[N]) {
  float maximum = softmax->maximum;
#pragma unroll
  for (int k = 0; k < N; k++) maximum = fmaxf(maximum, logits[k]);
  /* Where all is -inf, differences from the maximum would be NaN. */
  const float reference = maximum == -INFINITY ? 0.0F : maximum;
  pair_scale(&softmax->sum, exponential<T>(softmax->maximum, reference));
  softmax->maximum = maximum;
#pragma unroll
  for (int k = 0; k < N; k++) {
    const FloatPair term = exponential<T>(logits[k], reference);
    pair_add(&softmax->sum, term.value);
    softmax->sum.rest += term.rest;
  }
}

/* Of this thread's share of the row. */
template <typename T, int WARPS>
static __device__ __forceinline__ Softmax softmax_of_thread(const LogitRow<T> &row) {
  constexpr int N = vector_size<T>;
  constexpr int STEP = STEP_LOGITS / N;
  Softmax softmax = {-INFINITY, {0.0F, 0.0F}};
  const int64_t edge = edge_of_thread(row);
  const float edges[1] = {edge >= 0 ? to_float(row.at[edge]) : -INFINITY};
  softmax_fold<T>(&softmax, edges);
  for (int64_t first = threadIdx.x; first < row.vectors; first += STEP * WARPS * WARP_THREADS) {
    float logits[STEP][N];
#pragma unroll
    for (int s = 0; s < STEP; s++) {
      const int64_t vector = first + s * WARPS * WARP_THREADS;
      if (vector < row.vectors) {
        load_vector(row.at + row.head + vector * N, N, logits[s]);
      } else {
#pragma unroll
        for (int k = 0; k < N; k++) logits[s][k] = -INFINITY;
      }
    }
    softmax_fold<T>(&softmax, *(const float(*)[STEP_LOGITS])logits);
  }
  return softmax;
}

/* ---------------------------------------------------------------- the gradient */

template <typename T>
static __device__ __forceinline__ float probability(float logit, float maximum, float factor) {
  const FloatPair term = exponential<T>(logit, maximum);
  return (term.value + term.rest) * factor;
}

/* logits = exp(logit - maximum) / sum. */
template <typename T, int WARPS>
static __device__ __forceinline__ void write_softmax(const LogitRow<T> &row, float maximum, double sum) {
  constexpr int N = vector_size<T>;
  const float factor = (float)(1.0 / sum);
  const int64_t edge = edge_of_thread(row);
  if (edge >= 0) row.at[edge] = from_float<T>(probability<T>(to_float(row.at[edge]), maximum, factor));
#pragma unroll 2
  for (int64_t vector = threadIdx.x; vector < row.vectors; vector += WARPS * WARP_THREADS) {
    T *at = row.at + row.head + vector * N;
    float logits[N];
    load_vector(at, N, logits);
#pragma unroll
    for (int k = 0; k < N; k++) logits[k] = probability<T>(logits[k], maximum, factor);
    store_vector(logits, N, at);
  }
}

/* Loss and gradient of a row with a target: (max - target logit) + log sum exp(logit - max), two terms that
 * are both accurate where the loss is small. So is the target's own element of the gradient, whose digits
 * cancel: its exponential and the sum are known to more of them than a float has. */
template <typename T, int WARPS>
static __device__ __forceinline__ void take_row(const LogitRow<T> &row, int64_t target, bool gradient,
                                                float *nll) {
  const float target_logit = to_float(row.at[target]);
  const Softmax mine = softmax_of_thread<T, WARPS>(row);
  const float maximum = block_max<WARPS>(mine.maximum);
  const FloatPair factor = exponential<T>(mine.maximum, maximum);
  const double sum = block_sum<WARPS>(pair_value(mine.sum) * pair_value(factor));
  if (threadIdx.x == 0) *nll = (float)(((double)maximum - (double)target_logit) + log(sum));
  if (!gradient) return;
  write_softmax<T, WARPS>(row, maximum, sum);
  __syncthreads();
  if (threadIdx.x == 0) {
    const double share = pair_value(exponential<T>(target_logit, maximum)) / sum;
    row.at[target] = from_float<T>((float)(share - 1.0));
  }
}

/* ---------------------------------------------------------------- all rows */

template <typename T, int WARPS>
static __global__ void __launch_bounds__(WARPS *WARP_THREADS, 32 / WARPS)
    cross_entropy_kernel(int64_t n, int64_t vocab, int64_t stride, T *logits, const int32_t *targets,
                         bool gradient, float *nll) {
  for (int64_t i = blockIdx.x; i < n; i += gridDim.x) {
    T *at = logits + i * stride;
    const int64_t target = targets[i];
    if (target != IGNORED_TARGET) {
      take_row<T, WARPS>(cut_row(at, vocab), target, gradient, nll + i);
      continue;
    }
    if (threadIdx.x == 0) nll[i] = 0.0F;
    if (!gradient) continue;
    for (int64_t j = threadIdx.x; j < vocab; j += WARPS * WARP_THREADS) at[j] = from_float<T>(0.0F);
  }
}

template <typename T>
static void cross_entropy(Device *device, int64_t n, int64_t vocab, int64_t stride, elem *logits,
                          const int32_t *targets, bool gradient, float *nll) {
  if (n == 0 || !cuda_usable(device)) return;
  const unsigned blocks = cuda_blocks(device, n, 1);
  if (vocab <= SHORT_ROW_COLUMNS) {
    LAUNCH((cross_entropy_kernel<T, 1>), blocks, WARP_THREADS, 0, cuda_stream(device), n, vocab, stride,
           (T *)logits, targets, gradient, nll);
  } else {
    LAUNCH((cross_entropy_kernel<T, LONG_ROW_WARPS>), blocks, LONG_ROW_WARPS * WARP_THREADS, 0,
           cuda_stream(device), n, vocab, stride, (T *)logits, targets, gradient, nll);
  }
  cuda_launched(device, "cross_entropy");
}

template <typename T> void cuda_loss_fill(Ops *ops) {
  ops->cross_entropy = cross_entropy<T>;
}

template void cuda_loss_fill<float>(Ops *ops);
template void cuda_loss_fill<bf16>(Ops *ops);
