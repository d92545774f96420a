/* LayerNorm and RMSNorm. RMSNorm is LayerNorm without mean and bias, so that one forward and one backward
 * serve both: a NULL mean leaves the mean out, a NULL bias the bias. The equations are those of
 * kernels/cpu/reference_norm.h. */
#include <math.h>

#include "kernels/cuda/reduce.h"
#include "kernels/cuda/vectors.h"

/* A multiprocessor holds at least RESIDENT blocks: with the registers of one more, sm_80 would spill. */
enum { THREADS = 256, WARPS = THREADS / WARP_THREADS, RESIDENT = 4 };

/* A warp takes a row of up to this many columns, a block of threads a longer one. */
#define WARP_COLUMNS 1024

/* What single elements are computed in: for floats double, as in the reference; a bf16 has 8 bits, which
 * float leaves whole. Sums over a row are taken in double for both, of what each vector adds up to. */
template <typename T> struct Precise;
template <> struct Precise<float> { typedef double type; };
template <> struct Precise<bf16> { typedef float type; };

/* Rows (n, c) and what belongs to them. */
template <typename T> struct NormRows {
  int64_t n, c;
  double share;      /* 1 / c */
  const T *residual; /* (n, c) or NULL */
  T *x;              /* (n, c), written where there is a residual */
  const T *weight;   /* (c) */
  const T *bias;     /* (c) or NULL */
  float *mean;       /* (n) or NULL */
  float *rstd;       /* (n) */
};

/* ---------------------------------------------------------------- forward */

/* Reads the vector at x + j, once the residual's has been added to it if there is one. What a thread writes
 * here it alone reads later, so that nothing has to be ordered. */
template <typename T>
static __device__ __forceinline__ void load_added(const T *residual, T *x, int64_t j, int64_t left,
                                                  float (&to)[vector_size<T>]) {
  load_vector(x + j, left, to);
  if (residual == NULL) return;
  float more[vector_size<T>];
  load_vector(residual + j, left, more);
#pragma unroll
  for (int k = 0; k < vector_size<T>; k++) to[k] = to_float(from_float<T>(to[k] + more[k]));
  store_vector(to, left, x + j);
}

/* x += residual, unless NULL; then the row's sum of x, and of the squares of its differences from the centre;
 * ROW_WARPS warps together, in every thread. */
template <typename T, int ROW_WARPS>
static __device__ __forceinline__ double row_sum(int64_t c, int member, const T *residual, T *x) {
  typedef typename Precise<T>::type S;
  constexpr int N = vector_size<T>;
  double sum = 0;
  for (int64_t j = member * N; j < c; j += ROW_WARPS * WARP_THREADS * N) {
    float values[N];
    S part = 0;
    load_added(residual, x, j, c - j, values);
#pragma unroll
    for (int k = 0; k < N; k++) part += (S)values[k];
    sum += (double)part;
  }
  return block_sum<ROW_WARPS>(sum);
}

template <typename T, int ROW_WARPS>
static __device__ __forceinline__ double row_squares(int64_t c, int member, const T *residual, T *x,
                                                     typename Precise<T>::type centre) {
  typedef typename Precise<T>::type S;
  constexpr int N = vector_size<T>;
  double sum = 0;
  for (int64_t j = member * N; j < c; j += ROW_WARPS * WARP_THREADS * N) {
    float values[N];
    S part = 0;
    load_added(residual, x, j, c - j, values);
#pragma unroll
    for (int k = 0; k < N; k++) {
      const S difference = j + k < c ? (S)values[k] - centre : (S)0;
      part += difference * difference;
    }
    sum += (double)part;
  }
  return block_sum<ROW_WARPS>(sum);
}

template <typename T, int ROW_WARPS>
static __global__ void __launch_bounds__(THREADS, RESIDENT)
    norm_forward_kernel(NormRows<T> rows, float eps, T *y) {
  typedef typename Precise<T>::type S;
  constexpr int N = vector_size<T>;
  constexpr int ROW_THREADS = ROW_WARPS * WARP_THREADS;
  const int member = (int)threadIdx.x % ROW_THREADS;
  const int64_t c = rows.c;
  for (int64_t i = thread_index() / ROW_THREADS; i < rows.n; i += thread_count() / ROW_THREADS) {
    T *x = rows.x + i * c;
    const T *residual = rows.residual != NULL ? rows.residual + i * c : NULL;
    double mean = 0;
    if (rows.mean != NULL) {
      mean = row_sum<T, ROW_WARPS>(c, member, residual, x) * rows.share;
      residual = NULL;
    }
    const S centre = (S)mean;
    const double variance = row_squares<T, ROW_WARPS>(c, member, residual, x, centre) * rows.share;
    const S scale = (S)rsqrt(variance + (double)eps);
    for (int64_t j = member * N; j < c; j += ROW_THREADS * N) {
      float values[N];
      float weight[N];
      float bias[N] = {};
      load_vector(x + j, c - j, values);
      load_vector(rows.weight + j, c - j, weight);
      if (rows.bias != NULL) load_vector(rows.bias + j, c - j, bias);
#pragma unroll
      for (int k = 0; k < N; k++) {
        values[k] = (float)(((S)values[k] - centre) * scale * (S)weight[k] + (S)bias[k]);
      }
      store_vector(values, c - j, y + i * c + j);
    }
    if (member == 0 && rows.mean != NULL) rows.mean[i] = (float)mean;
    if (member == 0) rows.rstd[i] = (float)scale;
  }
}

template <typename T>
static void norm_forward(Device *device, const NormRows<T> &rows, float eps, elem *y, const char *what) {
  if (rows.n == 0 || rows.c == 0 || !cuda_usable(device)) return;
  if (rows.c <= WARP_COLUMNS) {
    LAUNCH((norm_forward_kernel<T, 1>), cuda_blocks(device, rows.n, WARPS), THREADS, 0, cuda_stream(device),
           rows, eps, (T *)y);
  } else {
    LAUNCH((norm_forward_kernel<T, WARPS>), cuda_blocks(device, rows.n, 1), THREADS, 0, cuda_stream(device),
           rows, eps, (T *)y);
  }
  cuda_launched(device, what);
}

/* ---------------------------------------------------------------- backward: dx */

/* g = dy weight and xhat = (x - mean) rstd of a vector of a row from column j on. */
template <typename T>
static __device__ __forceinline__ void load_normal(const NormRows<T> &rows, const T *dy, int64_t i, int64_t j,
                                                   typename Precise<T>::type (&g)[vector_size<T>],
                                                   typename Precise<T>::type (&xhat)[vector_size<T>]) {
  typedef typename Precise<T>::type S;
  constexpr int N = vector_size<T>;
  const S centre = rows.mean != NULL ? (S)rows.mean[i] : (S)0;
  const S scale = (S)rows.rstd[i];
  float x[N];
  float gradient[N];
  float weight[N];
  load_vector(rows.x + i * rows.c + j, rows.c - j, x);
  load_vector(dy + i * rows.c + j, rows.c - j, gradient);
  load_vector(rows.weight + j, rows.c - j, weight);
#pragma unroll
  for (int k = 0; k < N; k++) {
    g[k] = (S)gradient[k] * (S)weight[k];
    xhat[k] = ((S)x[k] - centre) * scale;
  }
}

/* dx += rstd (g - mean(g) - xhat mean(g xhat)); the term mean(g) comes from centring and goes with it. */
template <typename T, int ROW_WARPS>
static __global__ void __launch_bounds__(THREADS, RESIDENT)
    norm_backward_input_kernel(NormRows<T> rows, const T *dy, T *dx) {
  typedef typename Precise<T>::type S;
  constexpr int N = vector_size<T>;
  constexpr int ROW_THREADS = ROW_WARPS * WARP_THREADS;
  const int member = (int)threadIdx.x % ROW_THREADS;
  const int64_t c = rows.c;
  for (int64_t i = thread_index() / ROW_THREADS; i < rows.n; i += thread_count() / ROW_THREADS) {
    S g[N];
    S xhat[N];
    double sum_g = 0;
    double sum_g_xhat = 0;
    for (int64_t j = member * N; j < c; j += ROW_THREADS * N) {
      S part_g = 0;
      S part_g_xhat = 0;
      load_normal(rows, dy, i, j, g, xhat);
#pragma unroll
      for (int k = 0; k < N; k++) {
        part_g += g[k];
        part_g_xhat += g[k] * xhat[k];
      }
      sum_g += (double)part_g;
      sum_g_xhat += (double)part_g_xhat;
    }
    const S mean_g = rows.mean != NULL ? (S)(block_sum<ROW_WARPS>(sum_g) * rows.share) : (S)0;
    const S mean_g_xhat = (S)(block_sum<ROW_WARPS>(sum_g_xhat) * rows.share);
    const S scale = (S)rows.rstd[i];
    for (int64_t j = member * N; j < c; j += ROW_THREADS * N) {
      float sums[N];
      load_normal(rows, dy, i, j, g, xhat);
      load_vector(dx + i * c + j, c - j, sums);
#pragma unroll
      for (int k = 0; k < N; k++) sums[k] += (float)(scale * (g[k] - mean_g - xhat[k] * mean_g_xhat));
      store_vector(sums, c - j, dx + i * c + j);
    }
  }
}

template <typename T>
static void backward_input(Device *device, const NormRows<T> &rows, const T *dy, T *dx, const char *what) {
  if (rows.c <= WARP_COLUMNS) {
    LAUNCH((norm_backward_input_kernel<T, 1>), cuda_blocks(device, rows.n, WARPS), THREADS, 0,
           cuda_stream(device), rows, dy, dx);
  } else {
    LAUNCH((norm_backward_input_kernel<T, WARPS>), cuda_blocks(device, rows.n, 1), THREADS, 0,
           cuda_stream(device), rows, dy, dx);
  }
  cuda_launched(device, what);
}

/* ---------------------------------------------------------------- backward: dweight, dbias */

/* Parts of the rows, each summed by one block for its columns: enough to fill a device, few enough for a
 * quick second stage; of the sizes alone, so that the bits do not depend on the kind of GPU. */
#define COLUMN_BLOCKS 1024
#define MOST_PARTS 256
#define LEAST_ROWS 32

/* Columns of a block of the first stage. */
template <typename T> constexpr int tile_columns = WARP_THREADS *vector_size<T>;

/* Part blockIdx.y of the column sums of dy xhat to partial (2, parts, c), and of dy behind them if there is a
 * mean. */
template <typename T>
static __global__ void __launch_bounds__(THREADS)
    norm_columns_kernel(NormRows<T> rows, const T *dy, typename Precise<T>::type *partial) {
  typedef typename Precise<T>::type S;
  constexpr int N = vector_size<T>;
  const int64_t c = rows.c;
  const int64_t first = (int64_t)blockIdx.x * tile_columns<T>;
  const int64_t j = first + threadIdx.x % WARP_THREADS * N;
  const int64_t warp = (int64_t)blockIdx.y * WARPS + threadIdx.x / WARP_THREADS;
  S weight[N] = {};
  S bias[N] = {};
  for (int64_t i = warp; j < c && i < rows.n; i += (int64_t)gridDim.y * WARPS) {
    const S centre = rows.mean != NULL ? (S)rows.mean[i] : (S)0;
    const S scale = (S)rows.rstd[i];
    float x[N];
    float gradient[N];
    load_vector(rows.x + i * c + j, c - j, x);
    load_vector(dy + i * c + j, c - j, gradient);
#pragma unroll
    for (int k = 0; k < N; k++) {
      weight[k] += (S)gradient[k] * (((S)x[k] - centre) * scale);
      bias[k] += (S)gradient[k];
    }
  }
  const bool own = threadIdx.x < tile_columns<T> && first + threadIdx.x < c;
  S *to = partial + blockIdx.y * c + first + threadIdx.x;
  const S weight_total = column_total<WARPS, N>(weight);
  if (own) *to = weight_total;
  if (rows.mean == NULL) return;
  const S bias_total = column_total<WARPS, N>(bias);
  if (own) to[gridDim.y * c] = bias_total;
}

/* Adds the parts to dweight; the blocks with blockIdx.y = 1 to dbias. */
template <typename S>
static __global__ void __launch_bounds__(THREADS)
    norm_add_parts_kernel(int64_t parts, int64_t c, const S *partial, float *dweight, float *dbias) {
  const int64_t j = (int64_t)blockIdx.x * WARP_THREADS + threadIdx.x % WARP_THREADS;
  const S *from = partial + blockIdx.y * parts * c;
  double sum[1] = {0};
  for (int64_t part = threadIdx.x / WARP_THREADS; j < c && part < parts; part += WARPS) {
    sum[0] += (double)from[part * c + j];
  }
  const double total = column_total<WARPS, 1>(sum);
  if (threadIdx.x >= WARP_THREADS || j >= c) return;
  float *to = blockIdx.y == 0 ? dweight : dbias;
  to[j] += (float)total;
}

template <typename T>
static void backward_weight(Device *device, const NormRows<T> &rows, const T *dy, float *dweight,
                            float *dbias, const char *what) {
  typedef typename Precise<T>::type S;
  const int64_t tiles = (rows.c + tile_columns<T> - 1) / tile_columns<T>;
  const int64_t wanted = tiles < COLUMN_BLOCKS ? COLUMN_BLOCKS / tiles : 1;
  const int64_t useful = (rows.n + LEAST_ROWS - 1) / LEAST_ROWS;
  const int64_t most = wanted < MOST_PARTS ? wanted : MOST_PARTS;
  const int64_t parts = useful < most ? useful : most;
  const unsigned sums = rows.mean != NULL ? 2 : 1;
  S *partial = (S *)cuda_scratch(device, sums * (size_t)(parts * rows.c) * sizeof *partial, what);
  if (partial == NULL) return;
  LAUNCH(norm_columns_kernel<T>, dim3((unsigned)tiles, (unsigned)parts), THREADS, 0, cuda_stream(device),
         rows, dy, partial);
  if (!cuda_launched(device, what)) return;
  const unsigned blocks = (unsigned)((rows.c + WARP_THREADS - 1) / WARP_THREADS);
  LAUNCH(norm_add_parts_kernel<S>, dim3(blocks, sums), THREADS, 0, cuda_stream(device), parts, rows.c,
         partial, dweight, dbias);
  cuda_launched(device, what);
}

/* ---------------------------------------------------------------- entries */

template <typename T>
static void layernorm_forward(Device *device, int64_t n, int64_t c, float eps, const elem *residual, elem *x,
                              const elem *weight, const elem *bias, elem *y, float *mean, float *rstd) {
  const NormRows<T> rows = {
      n, c, 1.0 / (double)c, (const T *)residual, (T *)x, (const T *)weight, (const T *)bias, mean, rstd};
  norm_forward(device, rows, eps, y, "layernorm_forward");
}

template <typename T>
static void rmsnorm_forward(Device *device, int64_t n, int64_t c, float eps, const elem *residual, elem *x,
                            const elem *weight, elem *y, float *rstd) {
  const NormRows<T> rows = {n,    c,   1.0 / (double)c, (const T *)residual, (T *)x, (const T *)weight, NULL,
                            NULL, rstd};
  norm_forward(device, rows, eps, y, "rmsnorm_forward");
}

template <typename T>
static void norm_backward(Device *device, const NormRows<T> &rows, const elem *dy, elem *dx, float *dweight,
                          float *dbias, const char *what) {
  if (rows.n == 0 || rows.c == 0 || !cuda_usable(device)) return;
  backward_input(device, rows, (const T *)dy, (T *)dx, what);
  if (cuda_usable(device)) backward_weight(device, rows, (const T *)dy, dweight, dbias, what);
}

template <typename T>
static void layernorm_backward(Device *device, int64_t n, int64_t c, const elem *dy, const elem *x,
                               const elem *weight, const float *mean, const float *rstd, elem *dx,
                               float *dweight, float *dbias) {
  const NormRows<T> rows = {
      n, c, 1.0 / (double)c, NULL, (T *)x, (const T *)weight, NULL, (float *)mean, (float *)rstd};
  norm_backward(device, rows, dy, dx, dweight, dbias, "layernorm_backward");
}

template <typename T>
static void rmsnorm_backward(Device *device, int64_t n, int64_t c, const elem *dy, const elem *x,
                             const elem *weight, const float *rstd, elem *dx, float *dweight) {
  const NormRows<T> rows = {n,    c,    1.0 / (double)c, NULL, (T *)x, (const T *)weight,
                            NULL, NULL, (float *)rstd};
  norm_backward(device, rows, dy, dx, dweight, (float *)NULL, "rmsnorm_backward");
}

template <typename T> void cuda_norm_fill(Ops *ops) {
  ops->layernorm_forward = layernorm_forward<T>;
  ops->layernorm_backward = layernorm_backward<T>;
  ops->rmsnorm_forward = rmsnorm_forward<T>;
  ops->rmsnorm_backward = rmsnorm_backward<T>;
}

template void cuda_norm_fill<float>(Ops *ops);
template void cuda_norm_fill<bf16>(Ops *ops);
