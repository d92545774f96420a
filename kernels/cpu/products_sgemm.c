/* Blocks of products of floats, by oneDNN's sgemm. */
#if RINGGPT_DNNL

#include "kernels/cpu/products_blocks.h"

static int multiply_block(const ProductsDnnl *products, const Product *p, const ProductBlock *block,
                          const ProductThread *thread) {
  (void)products;
  (void)thread;
  const float *a = (const float *)p->a + product_a_offset(p, block->row, 0);
  const float *b = (const float *)p->b + product_b_offset(p, 0, block->column);
  const float *bias = p->bias;
  float *c = (float *)p->c + block->row * p->c_stride + block->column;
  const int status = (int)dnnl_sgemm(p->a_transposed ? 'T' : 'N', p->b_transposed ? 'T' : 'N', block->rows,
                                     block->columns, p->k, 1.0F, a, p->a_stride, b, product_b_stride(p),
                                     p->add ? 1.0F : 0.0F, c, p->c_stride);
  for (int64_t i = 0; bias != NULL && i < block->rows; i++) {
    for (int64_t j = 0; j < block->columns; j++) c[i * p->c_stride + j] += bias[block->column + j];
  }
  return status;
}

const ProductMethod products_sgemm = {.block = multiply_block};

#endif
