/* Matrix products by a plain kernel: for the sizes and alignments that cuBLASLt refuses, so it is short and
 * not fast. */
#include "kernels/cuda/elements.h"
#include "kernels/cuda/products.h"

/* Side of the square of c that a block of TILE x TILE threads computes, and of what it loads for a step. */
#define TILE 16

/* A product with the distances between neighbours instead of orders: a[i][l] is a[i a_row + l a_column]. */
template <typename In, typename Out> struct PlainProduct {
  int64_t m, n, k;
  const In *a;
  const In *b;
  const Out *bias;
  Out *c;
  int64_t a_row, a_column, b_row, b_column, c_row;
  bool add;
};

/* Each tile of c in its turn. The products of a step are summed for themselves before they go to the sum of
 * all: a long k loses less of its bits. */
template <typename In, typename Out>
__global__ void __launch_bounds__(TILE *TILE) product_kernel(PlainProduct<In, Out> p, int64_t tiles) {
  SHARED(float, a_tile, [TILE][TILE + 1]);
  SHARED(float, b_tile, [TILE][TILE + 1]);
  const int x = (int)threadIdx.x;
  const int y = (int)threadIdx.y;
  const int64_t across = (p.n + TILE - 1) / TILE;
  for (int64_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    const int64_t row = tile / across * TILE + y;
    const int64_t column = tile % across * TILE + x;
    float sum = 0.0F;
    for (int64_t first = 0; first < p.k; first += TILE) {
      const bool a_there = row < p.m && first + x < p.k;
      const bool b_there = column < p.n && first + y < p.k;
      a_tile[y][x] = a_there ? to_float(p.a[row * p.a_row + (first + x) * p.a_column]) : 0.0F;
      b_tile[y][x] = b_there ? to_float(p.b[(first + y) * p.b_row + column * p.b_column]) : 0.0F;
      __syncthreads();
      float part = 0.0F;
#pragma unroll
      for (int l = 0; l < TILE; l++) part += a_tile[y][l] * b_tile[l][x];
      sum += part;
      __syncthreads();
    }
    if (row >= p.m || column >= p.n) continue;
    Out *c = p.c + row * p.c_row + column;
    if (p.bias != NULL) sum += to_float(p.bias[column]);
    if (p.add) sum += to_float(*c);
    *c = from_float<Out>(sum);
  }
}

template <typename In, typename Out> void cuda_product_plain(Device *device, const CudaProduct *product) {
  PlainProduct<In, Out> p = {};
  p.m = product->m;
  p.n = product->n;
  p.k = product->k;
  p.a = (const In *)product->a;
  p.b = (const In *)product->b;
  p.bias = (const Out *)product->bias;
  p.c = (Out *)product->c;
  p.a_row = product->a_transposed ? 1 : product->a_stride;
  p.a_column = product->a_transposed ? product->a_stride : 1;
  p.b_row = product->b_transposed ? 1 : product->n;
  p.b_column = product->b_transposed ? product->k : 1;
  p.c_row = product->c_stride;
  p.add = product->add;
  const int64_t tiles = ((p.m + TILE - 1) / TILE) * ((p.n + TILE - 1) / TILE);
  const dim3 block(TILE, TILE);
  LAUNCH((product_kernel<In, Out>), cuda_blocks(device, tiles, 1), block, 0, cuda_stream(device), p, tiles);
  cuda_launched(device, product->what);
}

template void cuda_product_plain<float, float>(Device *device, const CudaProduct *product);
template void cuda_product_plain<bf16, bf16>(Device *device, const CudaProduct *product);
template void cuda_product_plain<bf16, float>(Device *device, const CudaProduct *product);
