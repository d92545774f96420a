/* Blocks of products in bf16 where the CPU has no instruction for them: the operands are widened to floats,
 * which is exact, and multiplied by oneDNN's sgemm; the result is rounded once. */
#if RINGGPT_DNNL

#define ELEMENTS_ARE_BF16
#include "kernels/cpu/element.h"
#include "kernels/cpu/products_blocks.h"

/* Terms of a sum whose operands are widened at a time: some megabytes for the largest block. */
#define TERMS 1024

static int64_t terms_of(const Product *p, int64_t at) {
  return p->k - at < TERMS ? p->k - at : TERMS;
}

/* Room for the two operands and the result. */
static int prepare(ProductsDnnl *products, const Product *p, int64_t rows, int64_t columns) {
  const int64_t terms = terms_of(p, 0);
  return products_reserve(products,
                          (size_t)(rows * terms + terms * columns + rows * columns) * sizeof(float));
}

/* to (rows, columns) = from, whose rows are `stride` apart. */
static void widen(int64_t rows, int64_t columns, const Element *from, int64_t stride, float *to) {
  for (int64_t i = 0; i < rows; i++) {
    for (int64_t j = 0; j < columns; j++) to[i * columns + j] = to_float(from[i * stride + j]);
  }
}

/* The result of the block, of floats, to the elements of the product. */
static void round_block(const Product *p, const ProductBlock *block, const float *sums) {
  const Element *bias = p->bias;
  for (int64_t i = 0; i < block->rows; i++) {
    Element *row = (Element *)p->c + (block->row + i) * p->c_stride + block->column;
    const float *from = sums + i * block->columns;
    for (int64_t j = 0; j < block->columns; j++) {
      row[j] = from_float(from[j] + (bias != NULL ? to_float(bias[block->column + j]) : 0.0F));
    }
  }
}

static int multiply_block(const ProductsDnnl *products, const Product *p, const ProductBlock *block,
                          const ProductThread *thread) {
  (void)products;
  const int64_t rows = block->rows;
  const int64_t columns = block->columns;
  float *a = thread->scratch;
  float *b = a + rows * terms_of(p, 0);
  float *sums =
      p->add ? (float *)p->c + block->row * p->c_stride + block->column : b + terms_of(p, 0) * columns;
  const int64_t stride = p->add ? p->c_stride : columns;
  int status = 0;
  for (int64_t at = 0; at < p->k && status == 0; at += TERMS) {
    const int64_t terms = terms_of(p, at);
    const Element *a_part = (const Element *)p->a + product_a_offset(p, block->row, at);
    const Element *b_part = (const Element *)p->b + product_b_offset(p, at, block->column);
    widen(p->a_transposed ? terms : rows, p->a_transposed ? rows : terms, a_part, p->a_stride, a);
    widen(p->b_transposed ? columns : terms, p->b_transposed ? terms : columns, b_part, product_b_stride(p),
          b);
    status = (int)dnnl_sgemm(p->a_transposed ? 'T' : 'N', p->b_transposed ? 'T' : 'N', rows, columns, terms,
                             1.0F, a, p->a_transposed ? rows : terms, b, p->b_transposed ? terms : columns,
                             p->add || at > 0 ? 1.0F : 0.0F, sums, stride);
  }
  if (!p->add) round_block(p, block, sums);
  return status;
}

const ProductMethod products_widened = {.prepare = prepare, .block = multiply_block};

#endif
