/* Products with a weight matrix cut into blocks, and the methods that multiply a block: inside of the files
 * products_*.
 *
 * A call of oneDNN that may use several threads splits its sums by their number, and the bits of the result
 * follow. So each product is cut into blocks of the result by its sizes alone, every block is computed by one
 * thread, and the threads of the device share the blocks. */
#ifndef RINGGPT_CPU_PRODUCTS_BLOCKS_H
#define RINGGPT_CPU_PRODUCTS_BLOCKS_H

#include <oneapi/dnnl/dnnl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/cpu/products_dnnl.h"

/* c (m, n) = a (m, k) b (k, n) + bias (n), all of elements; or with `add` and without bias, added to c, which
 * is of floats. a stored transposed is (k, m), b stored transposed (n, k); a NULL bias is left out. Rows of a
 * and c as they are stored are `stride` elements apart, those of b have no holes. */
typedef struct Product {
  int64_t m, n, k;
  bool a_transposed;
  bool b_transposed;
  const elem *a;
  int64_t a_stride;
  const elem *b;
  const elem *bias;
  bool add;
  void *c;
  int64_t c_stride;
} Product;

/* Elements from row to row of b as it is stored. */
static inline int64_t product_b_stride(const Product *p) {
  return p->b_transposed ? p->k : p->n;
}

/* Where row `row` and column `at` of a, and row `at` and column `column` of b, lie in their arrays. */
static inline int64_t product_a_offset(const Product *p, int64_t row, int64_t at) {
  return p->a_transposed ? at * p->a_stride + row : row * p->a_stride + at;
}

static inline int64_t product_b_offset(const Product *p, int64_t at, int64_t column) {
  return p->b_transposed ? column * p->k + at : at * p->n + column;
}

/* A block of the result. */
typedef struct ProductBlock {
  int64_t row;
  int64_t column;
  int64_t rows;
  int64_t columns;
} ProductBlock;

/* What one thread works with. */
typedef struct ProductThread {
  dnnl_stream_t stream;
  void *scratch;
  size_t scratch_bytes;
} ProductThread;

/* A way to multiply blocks of k > 0. Both return oneDNN's status. */
typedef struct ProductMethod {
  /* Before the blocks of a product, all of at most `rows` and `columns`; by the thread of the device. NULL:
   * nothing is to be done. */
  int (*prepare)(ProductsDnnl *products, const Product *p, int64_t rows, int64_t columns);
  int (*block)(const ProductsDnnl *products, const Product *p, const ProductBlock *block,
               const ProductThread *thread);
} ProductMethod;

typedef struct MatmulCache MatmulCache;

struct ProductsDnnl {
  const ProductMethod *method;
  int threads;
  ProductThread *thread; /* (threads) */
  dnnl_engine_t engine;
  MatmulCache *matmuls; /* of products_matmul alone */
};

/* Gives every thread `bytes` of scratch at least. */
int products_reserve(ProductsDnnl *products, size_t bytes);

/* Floats by sgemm; bf16 by oneDNN's matmul, for a CPU with avx512_bf16; bf16 widened to floats, by sgemm. */
extern const ProductMethod products_sgemm;
extern const ProductMethod products_matmul;
extern const ProductMethod products_widened;

void products_matmul_free(MatmulCache *cache);

/* Computes the product on the device's threads; a failure is kept in the device. */
void products_multiply(Device *device, const Product *p);

#endif
