/* Vectorised products with a weight matrix: the bodies for any width of kernels/cpu/vector.h. The blocking is
 * that of K. Goto and R. van de Geijn (2008): panels of b are packed so that they stay in the second cache,
 * and a tile of the result is summed in registers. a is read where it lies.
 *
 * Each element of the result is a sum over DEPTH elements at a time, in order, whatever tile it falls into:
 * the bits depend neither on the number of threads nor on the number of rows. */
#ifndef RINGGPT_CPU_VECTOR_PRODUCT_H
#define RINGGPT_CPU_VECTOR_PRODUCT_H

#include <string.h>

#include "kernels/cpu/columns.h"
#include "kernels/cpu/vector.h"
#include "kernels/cpu/vector_ops.h"
#include "kernels/device.h"

/* Rows of a tile: with two vectors of columns, what the registers hold (32 with AVX-512, 16 with AVX2). */
#define TILE_ROWS (VECTOR_FLOATS == 16 ? 14 : 6)
#define TILE_COLUMNS (2 * VECTOR_FLOATS)
/* Elements of an inner sum, and columns of b that are packed at a time. */
#define DEPTH VECTOR_PRODUCT_DEPTH
#define WIDTH VECTOR_PRODUCT_WIDTH
/* Rows and panels of the result that a thread takes at a time. */
#define ROWS_AT_A_TIME (4 * TILE_ROWS)
#define PANELS_AT_A_TIME 2

/* c (m, n) = a (m, k) b (k, n) + bias (n), or added to c. Element (i, p) of a lies at a[i a_row + p a_depth],
 * (p, j) of b at b[p b_depth + j b_column]; a NULL bias is left out. */
typedef struct Product {
  int64_t m, n, k;
  const float *a;
  int64_t a_row, a_depth;
  const float *b;
  int64_t b_depth, b_column;
  const float *bias;
  bool add;
  float *c;
} Product;

/* A tile of the result: `rows` rows and up to TILE_COLUMNS columns, from `depth` elements of a and of a
 * packed panel of b. */
static inline __attribute__((always_inline)) void
product_tile(int rows, int64_t depth, const float *a, int64_t a_row, int64_t a_depth, const float *panel,
             const float *bias, bool add, float *c, int64_t c_row, int64_t columns) {
  Vector sums[TILE_ROWS][2];
#pragma GCC unroll 16
  for (int i = 0; i < rows; i++) sums[i][0] = sums[i][1] = vector_set(0.0F);
  for (int64_t p = 0; p < depth; p++) {
    const Vector b0 = vector_load(panel + p * TILE_COLUMNS, VECTOR_FLOATS);
    const Vector b1 = vector_load(panel + p * TILE_COLUMNS + VECTOR_FLOATS, VECTOR_FLOATS);
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++) {
      const Vector factor = vector_set(a[i * a_row]);
      sums[i][0] = vector_multiply_add(factor, b0, sums[i][0]);
      sums[i][1] = vector_multiply_add(factor, b1, sums[i][1]);
    }
    a += a_depth;
  }
#pragma GCC unroll 2
  for (int half = 0; half < 2; half++) {
    const int64_t count = columns - half * VECTOR_FLOATS;
    if (count <= 0) break;
    const Vector offset = bias != NULL ? vector_load(bias + half * VECTOR_FLOATS, count) : vector_set(0.0F);
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++) {
      float *at = c + i * c_row + half * VECTOR_FLOATS;
      const Vector start = add ? vector_load(at, count) : offset;
      vector_store(at, start + sums[i][half], count);
    }
  }
}

/* One tile's rows after another: as many as a tile holds, and the rest by fours, twos and ones. */
static void product_rows(const Product *p, int64_t first, int64_t rows, int64_t depth_start, int64_t depth,
                         const float *panel, int64_t column, int64_t columns) {
  const float *bias = p->bias != NULL ? p->bias + column : NULL;
  const bool add = p->add || depth_start > 0;
  const int64_t last = first + rows;
  for (int64_t i = first; i < last;) {
    const float *a = p->a + i * p->a_row + depth_start * p->a_depth;
    float *c = p->c + i * p->n + column;
    if (last - i >= TILE_ROWS) {
      product_tile(TILE_ROWS, depth, a, p->a_row, p->a_depth, panel, bias, add, c, p->n, columns);
      i += TILE_ROWS;
    } else if (last - i >= 4) {
      product_tile(4, depth, a, p->a_row, p->a_depth, panel, bias, add, c, p->n, columns);
      i += 4;
    } else if (last - i >= 2) {
      product_tile(2, depth, a, p->a_row, p->a_depth, panel, bias, add, c, p->n, columns);
      i += 2;
    } else {
      product_tile(1, depth, a, p->a_row, p->a_depth, panel, bias, add, c, p->n, columns);
      i += 1;
    }
  }
}

/* panel (depth, columns) of row stride TILE_COLUMNS = the transpose of b (columns, depth) of row stride
 * b_row, by squares of four. */
static void product_transpose(const float *b, int64_t b_row, int64_t depth, int64_t columns, float *panel) {
  for (int64_t j = 0; j < columns; j += 4) {
    int64_t d = 0;
    for (; j + 4 <= columns && d + 4 <= depth; d += 4) {
      const float *from = b + j * b_row + d;
      float *to = panel + d * TILE_COLUMNS + j;
      __m128 row0 = _mm_loadu_ps(from);
      __m128 row1 = _mm_loadu_ps(from + b_row);
      __m128 row2 = _mm_loadu_ps(from + 2 * b_row);
      __m128 row3 = _mm_loadu_ps(from + 3 * b_row);
      _MM_TRANSPOSE4_PS(row0, row1, row2, row3);
      _mm_storeu_ps(to, row0);
      _mm_storeu_ps(to + TILE_COLUMNS, row1);
      _mm_storeu_ps(to + 2 * TILE_COLUMNS, row2);
      _mm_storeu_ps(to + 3 * TILE_COLUMNS, row3);
    }
    for (; d < depth; d++) {
      for (int64_t i = j; i < columns && i < j + 4; i++) panel[d * TILE_COLUMNS + i] = b[i * b_row + d];
    }
  }
}

/* panel (depth, TILE_COLUMNS) = the elements of b from (depth_start, column) on. Beyond the
 * columns of b it keeps what it holds, for elements of the result that are never stored. */
static void product_pack(const Product *p, int64_t depth_start, int64_t depth, int64_t column, float *panel) {
  const int64_t left = p->n - column;
  const int64_t columns = left < TILE_COLUMNS ? left : TILE_COLUMNS;
  const float *b = p->b + depth_start * p->b_depth + column * p->b_column;
  if (p->b_depth == 1) {
    product_transpose(b, p->b_column, depth, columns, panel);
    return;
  }
  for (int64_t d = 0; d < depth; d++) {
    memcpy(panel + d * TILE_COLUMNS, b + d * p->b_depth, (size_t)columns * sizeof(float));
  }
}

static int64_t product_least(int64_t a, int64_t b) {
  return a < b ? a : b;
}

/* The columns [column, column + width) of the result, from a part of the depth; all threads of the team call
 * it and share the panels, then the tiles. */
static void product_part(const Product *p, int64_t depth_start, int64_t depth, int64_t column, int64_t width,
                         float *panels) {
#pragma omp for
  for (int64_t j = 0; j < width; j += TILE_COLUMNS) {
    product_pack(p, depth_start, depth, column + j, panels + j * DEPTH);
  }
#pragma omp for collapse(2) schedule(dynamic)
  for (int64_t i = 0; i < p->m; i += ROWS_AT_A_TIME) {
    for (int64_t group = 0; group < width; group += PANELS_AT_A_TIME * TILE_COLUMNS) {
      const int64_t end = product_least(group + PANELS_AT_A_TIME * TILE_COLUMNS, width);
      for (int64_t j = group; j < end; j += TILE_COLUMNS) {
        product_rows(p, i, product_least(ROWS_AT_A_TIME, p->m - i), depth_start, depth, panels + j * DEPTH,
                     column + j, width - j);
      }
    }
  }
}

static void product_run(Device *device, const Product *p) {
  float *panels = device->products;
#pragma omp parallel num_threads(device->threads) if (device->threads > 1)
  for (int64_t column = 0; column < p->n; column += WIDTH) {
    for (int64_t depth = 0; depth == 0 || depth < p->k; depth += DEPTH) {
      product_part(p, depth, product_least(DEPTH, p->k - depth), column, product_least(WIDTH, p->n - column),
                   panels);
    }
  }
}

static void vector_linear_forward(Device *device, int64_t n, int64_t inputs, int64_t outputs, const elem *x,
                                  const elem *w, const elem *bias, elem *y) {
  product_run(device, &(Product){.m = n,
                                 .n = outputs,
                                 .k = inputs,
                                 .a = x,
                                 .a_row = inputs,
                                 .a_depth = 1,
                                 .b = w,
                                 .b_depth = 1,
                                 .b_column = inputs,
                                 .bias = bias,
                                 .c = y});
}

static void vector_linear_backward_input(Device *device, int64_t n, int64_t inputs, int64_t outputs,
                                         const elem *dy, const elem *w, elem *dx) {
  product_run(device, &(Product){.m = n,
                                 .n = inputs,
                                 .k = outputs,
                                 .a = dy,
                                 .a_row = outputs,
                                 .a_depth = 1,
                                 .b = w,
                                 .b_depth = inputs,
                                 .b_column = 1,
                                 .c = dx});
}

static void vector_linear_backward_weight(Device *device, int64_t n, int64_t inputs, int64_t outputs,
                                          const elem *dy, const elem *x, float *dw, float *dbias) {
  product_run(device, &(Product){.m = outputs,
                                 .n = inputs,
                                 .k = n,
                                 .a = dy,
                                 .a_row = 1,
                                 .a_depth = outputs,
                                 .b = x,
                                 .b_depth = inputs,
                                 .b_column = 1,
                                 .add = true,
                                 .c = dw});
  if (dbias != NULL) columns_add(device, n, outputs, dy, dbias);
}

#endif
