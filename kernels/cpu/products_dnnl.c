/* Products with a weight matrix by oneDNN's sgemm.
 *
 * A call of sgemm that may use several threads splits its sums by their number, and the bits of the result
 * follow. So each product is cut into blocks of the result by its sizes alone, every block is one call on one
 * thread, and the threads of the device share the blocks. */
#include "kernels/cpu/products_dnnl.h"

#if RINGGPT_DNNL

#include <omp.h>
#include <oneapi/dnnl/dnnl.h>
#include <stdio.h>
#include <string.h>

#include "kernels/cpu/columns.h"
#include "kernels/device.h"

/* Limits of a block: larger ones leave threads idle, smaller ones repack their operands too often. */
#define BLOCK_MIN 128
#define BLOCK_MAX 512
/* Blocks that a product is cut into where its sizes allow it. */
#define BLOCKS_WANTED 8

/* c (m, n) = beta c + a (m, k) b (k, n) + bias (n); a stored transposed is (k, m), b stored transposed (n,
 * k); a NULL bias is left out. */
typedef struct Product {
  int64_t m, n, k;
  bool a_transposed;
  bool b_transposed;
  const float *a;
  const float *b;
  const float *bias;
  bool add;
  float *c;
} Product;

static int64_t count_blocks(int64_t size, int64_t block) {
  return (size + block - 1) / block;
}

static int64_t smaller(int64_t a, int64_t b) {
  return a < b ? a : b;
}

/* Rows and columns of a block, from the sizes of the result alone. */
static void choose_block(int64_t m, int64_t n, int64_t *rows, int64_t *columns) {
  *rows = BLOCK_MAX;
  *columns = BLOCK_MAX;
  while (count_blocks(m, *rows) * count_blocks(n, *columns) < BLOCKS_WANTED &&
         (*rows > BLOCK_MIN || *columns > BLOCK_MIN)) {
    int64_t *larger = smaller(m, *rows) >= smaller(n, *columns) && *rows > BLOCK_MIN ? rows : columns;
    if (*larger == BLOCK_MIN) larger = larger == rows ? columns : rows;
    *larger /= 2;
  }
}

/* The block of the result that starts at (row, column). Returns oneDNN's status. */
static int multiply_block(const Product *p, int64_t row, int64_t column, int64_t rows, int64_t columns) {
  const float *a = p->a + (p->a_transposed ? row : row * p->k);
  const float *b = p->b + (p->b_transposed ? column * p->k : column);
  float *c = p->c + row * p->n + column;
  int status = 0;
  if (p->k > 0) {
    status = (int)dnnl_sgemm(p->a_transposed ? 'T' : 'N', p->b_transposed ? 'T' : 'N', rows, columns, p->k,
                             1.0F, a, p->a_transposed ? p->m : p->k, b, p->b_transposed ? p->k : p->n,
                             p->add ? 1.0F : 0.0F, c, p->n);
  } else if (!p->add) { /* sgemm leaves the result of an empty sum as it was */
    for (int64_t i = 0; i < rows; i++) memset(c + i * p->n, 0, (size_t)columns * sizeof(float));
  }
  for (int64_t i = 0; p->bias != NULL && i < rows; i++) {
    for (int64_t j = 0; j < columns; j++) c[i * p->n + j] += p->bias[column + j];
  }
  return status;
}

static void multiply(Device *device, const Product *p) {
  if (p->m == 0 || p->n == 0 || device->failure.status != STATUS_OK) return;
  int64_t rows = 0;
  int64_t columns = 0;
  choose_block(p->m, p->n, &rows, &columns);
  const int64_t row_blocks = count_blocks(p->m, rows);
  const int64_t column_blocks = count_blocks(p->n, columns);
  int failed = 0;
  /* The threads of the caller's next parallel regions, oneDNN's among them; those of the loop inherit it. */
  const int callers_threads = omp_get_max_threads();
  omp_set_num_threads(1);
#pragma omp parallel for collapse(2) schedule(dynamic) num_threads(device->threads)                          \
    reduction(|                                                                                              \
              : failed) if (device->threads > 1)
  for (int64_t block = 0; block < column_blocks; block++) {
    for (int64_t row_block = 0; row_block < row_blocks; row_block++) {
      const int64_t row = row_block * rows;
      const int64_t column = block * columns;
      failed |= multiply_block(p, row, column, smaller(rows, p->m - row), smaller(columns, p->n - column));
    }
  }
  omp_set_num_threads(callers_threads);
  if (failed != 0) {
    device_fail(device, "oneDNN refused a product of (%lld, %lld) and (%lld, %lld)", (long long)p->m,
                (long long)p->k, (long long)p->k, (long long)p->n);
  }
}

static void dnnl_linear_forward(Device *device, int64_t n, int64_t inputs, int64_t outputs, const elem *x,
                                const elem *w, const elem *bias, elem *y) {
  multiply(
      device,
      &(Product){
          .m = n, .n = outputs, .k = inputs, .a = x, .b = w, .b_transposed = true, .bias = bias, .c = y});
}

static void dnnl_linear_backward_input(Device *device, int64_t n, int64_t inputs, int64_t outputs,
                                       const elem *dy, const elem *w, elem *dx) {
  multiply(device, &(Product){.m = n, .n = inputs, .k = outputs, .a = dy, .b = w, .c = dx});
}

static void dnnl_linear_backward_weight(Device *device, int64_t n, int64_t inputs, int64_t outputs,
                                        const elem *dy, const elem *x, float *dw, float *dbias) {
  multiply(
      device,
      &(Product){
          .m = outputs, .n = inputs, .k = n, .a = dy, .a_transposed = true, .b = x, .add = true, .c = dw});
  if (dbias != NULL) columns_add(device, n, outputs, dy, dbias);
}

void products_dnnl_override(Ops *ops) {
  ops->linear_forward = dnnl_linear_forward;
  ops->linear_backward_input = dnnl_linear_backward_input;
  ops->linear_backward_weight = dnnl_linear_backward_weight;
}

void products_dnnl_describe(char *text, size_t size) {
  const dnnl_version_t *version = dnnl_version();
  (void)snprintf(text, size, "oneDNN %d.%d.%d", version->major, version->minor, version->patch);
}

#endif
