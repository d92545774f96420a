/* Sums over the rows of a matrix, column by column, in two steps and a fixed order: the rows are cut into
 * slices by their number alone, each slice is summed by itself, and the sums of the slices are added. */
#include "kernels/cuda/elements.h"
#include "kernels/cuda/products.h"

/* A block sums COLUMNS columns of a slice, ROWS rows side by side. */
#define COLUMNS 32
#define ROWS 8
/* Rows that are worth a slice, and slices at most. */
#define SLICE_ROWS 256
#define SLICES_MAX 64

/* Columns of the second step per block. */
#define THREADS 128

/* partial (slices, c) from x (n, c), rows `stride` elements apart, `rows` of them a slice. Block: a slice and
 * a group of columns. */
template <typename T>
__global__ void __launch_bounds__(COLUMNS *ROWS)
    slice_sums_kernel(int64_t n, int64_t c, int64_t stride, int64_t rows, int64_t groups, const T *x,
                      double *partial) {
  SHARED(double, sums, [ROWS][COLUMNS]);
  const int64_t slice = blockIdx.x / groups;
  const int64_t column = blockIdx.x % groups * COLUMNS + threadIdx.x;
  const int64_t end = (slice + 1) * rows < n ? (slice + 1) * rows : n;
  double sum = 0;
  if (column < c) {
    for (int64_t i = slice * rows + threadIdx.y; i < end; i += ROWS)
      sum += (double)to_float(x[i * stride + column]);
  }
  sums[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || column >= c) return;
  for (int y = 1; y < ROWS; y++) sum += sums[y][threadIdx.x];
  partial[slice * c + column] = sum;
}

/* sums (c) += the sums of the slices. */
__global__ void __launch_bounds__(THREADS)
    add_slices_kernel(int64_t slices, int64_t c, const double *partial, float *sums) {
  const int64_t column = (int64_t)blockIdx.x * THREADS + threadIdx.x;
  if (column >= c) return;
  double sum = 0;
  for (int64_t slice = 0; slice < slices; slice++) sum += partial[slice * c + column];
  sums[column] += (float)sum;
}

static int64_t divide_up(int64_t size, int64_t by) {
  return (size + by - 1) / by;
}

/* Columns that scratch memory has room for. */
static const int64_t MOST_COLUMNS = CUDA_SCRATCH_BYTES / sizeof(double);

/* At most MOST_COLUMNS columns. */
template <typename T>
static void add_columns(Device *device, int64_t n, int64_t c, int64_t stride, const T *x, float *sums,
                        const char *what) {
  const int64_t useful = min(divide_up(n, SLICE_ROWS), (int64_t)SLICES_MAX);
  const int64_t rows = divide_up(n, min(useful, MOST_COLUMNS / c));
  const int64_t slices = divide_up(n, rows);
  const int64_t groups = divide_up(c, COLUMNS);
  double *partial = (double *)cuda_scratch(device, (size_t)(slices * c) * sizeof(double), what);
  if (partial == NULL) return;
  const dim3 block(COLUMNS, ROWS);
  LAUNCH(slice_sums_kernel<T>, (unsigned)(slices * groups), block, 0, cuda_stream(device), n, c, stride, rows,
         groups, x, partial);
  if (!cuda_launched(device, what)) return;
  LAUNCH(add_slices_kernel, (unsigned)divide_up(c, THREADS), THREADS, 0, cuda_stream(device), slices, c,
         partial, sums);
  cuda_launched(device, what);
}

template <typename T>
void cuda_columns_add(Device *device, int64_t n, int64_t c, int64_t stride, const T *x, float *sums,
                      const char *what) {
  for (int64_t first = 0; n > 0 && first < c && cuda_usable(device); first += MOST_COLUMNS) {
    add_columns(device, n, min(MOST_COLUMNS, c - first), stride, x + first, sums + first, what);
  }
}

template void cuda_columns_add<float>(Device *device, int64_t n, int64_t c, int64_t stride, const float *x,
                                      float *sums, const char *what);
template void cuda_columns_add<bf16>(Device *device, int64_t n, int64_t c, int64_t stride, const bf16 *x,
                                     float *sums, const char *what);
