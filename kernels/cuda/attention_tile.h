/* Tiles of attention: asynchronous loads into shared memory and the two products that all its kernels are
 * made of, on tensor cores for bf16 and by plain float32 arithmetic for float.
 *
 * A warp owns 16 rows of a product. Both element types keep the results in the registers of mma's C fragment:
 * with g = lane / 4 and t = 2 (lane % 4), c[n][2 r + h] of a lane is row g + 8 r, column 8 n + t + h. Rows in
 * shared memory are 16 bytes longer than the head's width: an odd number of 16 byte units, so that eight rows
 * below each other lie in different banks. */
#ifndef RINGGPT_CUDA_ATTENTION_TILE_H
#define RINGGPT_CUDA_ATTENTION_TILE_H

#include "kernels/cuda/elements.h"
#include "kernels/cuda/instructions.h"
#include "kernels/cuda/reduce.h"

enum { WARP_ROWS = 16 };

/* Shared memory of the smallest multiprocessor that kernels are compiled for (compute capability 8.0; CUDA
 * C++ Programming Guide, "Technical Specifications per Compute Capability"), less 1 KiB per block. */
enum { SHARED_BYTES = 164 * 1024, SHARED_BYTES_OF_BLOCK = 1024 };

/* How many blocks with BYTES of shared memory the compiler is to leave registers for: as many as there is
 * shared memory for, at most MOST. */
template <int BYTES, int MOST> struct Residents {
  static constexpr int FIT = SHARED_BYTES / (BYTES + SHARED_BYTES_OF_BLOCK);
  static constexpr int BLOCKS = FIT < MOST ? FIT : MOST;
};

__device__ __forceinline__ int lane_index(void) {
  return (int)threadIdx.x % WARP_THREADS;
}

__device__ __forceinline__ int warp_index(void) {
  return (int)threadIdx.x / WARP_THREADS;
}

/* This lane's first row and first column of a C fragment. */
__device__ __forceinline__ int lane_row(void) {
  return lane_index() / 4;
}

__device__ __forceinline__ int lane_column(void) {
  return 2 * (lane_index() % 4);
}

/* Elements from row to row in shared memory. */
template <typename T, int WIDTH> struct SharedRow {
  static constexpr int LENGTH = WIDTH + 16 / (int)sizeof(T);
};

/* Floats of shared memory in which a warp turns COLUMNS columns of a product into an operand: none for bf16,
 * whose fragments fit each other. */
template <typename T, int COLUMNS> struct Exchange {
  static constexpr int ROW = COLUMNS + 4;
  static constexpr int FLOATS = sizeof(T) == sizeof(float) ? WARP_ROWS * ROW : 0;
};

/* Starts to load ROWS rows of head_dim elements, which lie without holes at `from`, by all THREADS threads of
 * the block. Rows from `rows` on and columns from head_dim to WIDTH become zero. */
template <typename T, int WIDTH, int ROWS, int THREADS>
__device__ __forceinline__ void load_rows(T *to, const T *from, int64_t rows, int head_dim) {
  constexpr int UNIT = 16 / (int)sizeof(T);
  constexpr int UNITS = WIDTH / UNIT;
  for (int i = (int)threadIdx.x; i < ROWS * UNITS; i += THREADS) {
    const int row = i / UNITS;
    const int column = i % UNITS * UNIT;
    const bool valid = row < rows && column < head_dim;
    const T *source = valid ? from + (int64_t)row * head_dim + column : from;
    copy_async_16(to + row * SharedRow<T, WIDTH>::LENGTH + column, source, valid);
  }
}

template <int TILES> __device__ __forceinline__ void set_zero(float (&c)[TILES][4]) {
#pragma unroll
  for (int n = 0; n < TILES; n++) {
#pragma unroll
    for (int e = 0; e < 4; e++) c[n][e] = 0.0F;
  }
}

/* ---------------------------------------------------------------- c = a b^T */

/* c (16, 8 TILES) = a (16, WIDTH) b (8 TILES, WIDTH)^T, a and b in shared memory. */
template <int WIDTH, int TILES>
__device__ __forceinline__ void rows_product(float (&c)[TILES][4], const bf16 *a, const bf16 *b) {
  constexpr int ROW = SharedRow<bf16, WIDTH>::LENGTH;
  const int lane = lane_index();
  const bf16 *a_row = a + lane % 16 * ROW + lane / 16 * 8;
  const bf16 *b_row = b + (lane / 16 * 8 + lane % 8) * ROW + lane / 8 % 2 * 8;
  set_zero(c);
#pragma unroll 8
  for (int k = 0; k < WIDTH; k += 16) {
    unsigned fa[4];
    load_matrices(fa, a_row + k);
#pragma unroll
    for (int n = 0; n < TILES; n += 2) {
      unsigned fb[4];
      load_matrices(fb, b_row + n * 8 * ROW + k);
      const unsigned left[2] = {fb[0], fb[1]};
      const unsigned right[2] = {fb[2], fb[3]};
      mma_bf16(c[n], fa, left);
      mma_bf16(c[n + 1], fa, right);
    }
  }
}

__device__ __forceinline__ float4 float4_at(const float *p) {
  return *(const float4 *)p;
}

/* Four products are summed before they meet the long sum: a quarter of its roundings. */
__device__ __forceinline__ float add_dot(float c, float4 a, float4 b) {
  return c + (a.x * b.x + a.y * b.y + a.z * b.z + a.w * b.w);
}

template <int WIDTH, int TILES>
__device__ __forceinline__ void rows_product(float (&c)[TILES][4], const float *a, const float *b) {
  constexpr int ROW = SharedRow<float, WIDTH>::LENGTH;
  const float *a_row = a + lane_row() * ROW;
  const float *b_row = b + lane_column() * ROW;
  set_zero(c);
#pragma unroll 2
  for (int k = 0; k < WIDTH; k += 4) {
    const float4 upper = float4_at(a_row + k);
    const float4 lower = float4_at(a_row + 8 * ROW + k);
#pragma unroll
    for (int n = 0; n < TILES; n++) {
      const float4 left = float4_at(b_row + n * 8 * ROW + k);
      const float4 right = float4_at(b_row + (n * 8 + 1) * ROW + k);
      c[n][0] = add_dot(c[n][0], upper, left);
      c[n][1] = add_dot(c[n][1], upper, right);
      c[n][2] = add_dot(c[n][2], lower, left);
      c[n][3] = add_dot(c[n][3], lower, right);
    }
  }
}

/* ---------------------------------------------------------------- c += p b */

/* c (16, 8 TILES) += p (16, 8 DEPTH) b (8 DEPTH, ...): p a product of this warp, rounded to the type of b; b
 * in shared memory, from the column that is to be c's first. `exchange` is this warp's Exchange. */
template <int WIDTH, int TILES, int DEPTH>
__device__ __forceinline__ void columns_product(float (&c)[TILES][4], const float (&p)[DEPTH][4],
                                                const bf16 *b, float *exchange) {
  constexpr int ROW = SharedRow<bf16, WIDTH>::LENGTH;
  const int lane = lane_index();
  const bf16 *b_row = b + lane % 16 * ROW + lane / 16 * 8;
  (void)exchange;
#pragma unroll
  for (int k = 0; k < DEPTH; k += 2) {
    const unsigned fa[4] = {pack_bf16(p[k][0], p[k][1]), pack_bf16(p[k][2], p[k][3]),
                            pack_bf16(p[k + 1][0], p[k + 1][1]), pack_bf16(p[k + 1][2], p[k + 1][3])};
#pragma unroll
    for (int n = 0; n < TILES; n += 2) {
      unsigned fb[4];
      load_matrices_transposed(fb, b_row + k * 8 * ROW + n * 8);
      const unsigned left[2] = {fb[0], fb[1]};
      const unsigned right[2] = {fb[2], fb[3]};
      mma_bf16(c[n], fa, left);
      mma_bf16(c[n + 1], fa, right);
    }
  }
}

/* Lays a product of this warp down in its exchange memory, for all lanes to read. */
template <int DEPTH> __device__ __forceinline__ void lay_down(const float (&p)[DEPTH][4], float *exchange) {
  constexpr int ROW = Exchange<float, 8 * DEPTH>::ROW;
  float *place = exchange + lane_row() * ROW + lane_column();
  __syncwarp(); /* the last product laid down has been read by all lanes */
#pragma unroll
  for (int n = 0; n < DEPTH; n++) {
    *(float2 *)(place + n * 8) = make_float2(p[n][0], p[n][1]);
    *(float2 *)(place + 8 * ROW + n * 8) = make_float2(p[n][2], p[n][3]);
  }
  __syncwarp();
}

/* Adds one row of b times its factors in two rows of p. */
template <int TILES>
__device__ __forceinline__ void add_row(float (&c)[TILES][4], float upper, float lower, const float *b) {
#pragma unroll
  for (int n = 0; n < TILES; n++) {
    const float2 x = *(const float2 *)(b + n * 8);
    c[n][0] += upper * x.x;
    c[n][1] += upper * x.y;
    c[n][2] += lower * x.x;
    c[n][3] += lower * x.y;
  }
}

template <int WIDTH, int TILES, int DEPTH>
__device__ __forceinline__ void columns_product(float (&c)[TILES][4], const float (&p)[DEPTH][4],
                                                const float *b, float *exchange) {
  constexpr int ROW = SharedRow<float, WIDTH>::LENGTH;
  constexpr int EXCHANGE_ROW = Exchange<float, 8 * DEPTH>::ROW;
  lay_down(p, exchange);
  const float *p_row = exchange + lane_row() * EXCHANGE_ROW;
  const float *b_row = b + lane_column();
#pragma unroll 2
  for (int k = 0; k < 8 * DEPTH; k++) add_row(c, p_row[k], p_row[8 * EXCHANGE_ROW + k], b_row + k * ROW);
}

/* ---------------------------------------------------------------- rows of the state */

/* Loads this lane's part of `tiles` 8 column tiles of one row, r of c, from `row`, the place of the row's
 * column lane_column(); the others become zero. */
template <int TILES>
__device__ __forceinline__ void load_row(float (&c)[TILES][4], int r, const float *row, int tiles) {
#pragma unroll
  for (int n = 0; n < TILES; n++) {
    const float2 x = n < tiles ? *(const float2 *)(row + n * 8) : make_float2(0.0F, 0.0F);
    c[n][2 * r] = x.x;
    c[n][2 * r + 1] = x.y;
  }
}

template <int TILES>
__device__ __forceinline__ void store_row(const float (&c)[TILES][4], int r, float *row, int tiles) {
#pragma unroll
  for (int n = 0; n < TILES; n++) {
    if (n < tiles) *(float2 *)(row + n * 8) = make_float2(c[n][2 * r], c[n][2 * r + 1]);
  }
}

/* Adds `factor` times this lane's part of a row of c to the row. */
template <int TILES>
__device__ __forceinline__ void add_to_row(const float (&c)[TILES][4], int r, float factor, float *row,
                                           int tiles) {
#pragma unroll
  for (int n = 0; n < TILES; n++) {
    if (n >= tiles) continue;
    float2 *place = (float2 *)(row + n * 8);
    const float2 x = *place;
    *place = make_float2(x.x + factor * c[n][2 * r], x.y + factor * c[n][2 * r + 1]);
  }
}

#endif
