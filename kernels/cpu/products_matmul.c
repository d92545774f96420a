/* Blocks of products in bf16, by oneDNN's matmul: sums are taken in float and rounded once. A matmul is made
 * for the sizes of a block, which takes long; those that a device has used are kept. */
#if RINGGPT_DNNL

#define ELEMENTS_ARE_BF16
#include <stdlib.h>
#include <string.h>

#include "kernels/base/memory.h"
#include "kernels/cpu/element.h"
#include "kernels/cpu/products_blocks.h"

/* Matmuls that are kept, some times those of a model; when there are more, all are given up. */
#define KEPT 512

/* What a matmul is made for. */
enum { ROWS, COLUMNS, TERMS, A_STRIDE, B_STRIDE, C_STRIDE, FLAGS, NUMBERS };
enum { A_TRANSPOSED = 1, B_TRANSPOSED = 2, BIAS = 4, ADD = 8 };

typedef struct Matmul {
  int64_t numbers[NUMBERS];
  dnnl_primitive_t primitive;
  size_t scratch_bytes;
  dnnl_memory_desc_t a;
  dnnl_memory_desc_t b;
  dnnl_memory_desc_t bias;
  dnnl_memory_desc_t c;
  dnnl_memory_desc_t scratch;
} Matmul;

/* A product has blocks of up to two heights and two widths: those at its lower and right edge may be smaller.
 */
struct MatmulCache {
  int64_t count;
  const Matmul *chosen[2][2]; /* for the product at hand */
  int64_t rows;               /* of blocks above the lower edge */
  int64_t columns;
  int64_t numbers[KEPT]
                 [NUMBERS]; /* those of `kept` side by side: they are looked through for every product */
  Matmul kept[KEPT];
};

#define CHECK(call)                                                                                          \
  do {                                                                                                       \
    const dnnl_status_t status_ = (call);                                                                    \
    if (status_ != dnnl_success) return status_;                                                             \
  } while (0)

static dnnl_status_t describe_matrix(dnnl_memory_desc_t *matrix, dnnl_data_type_t type, int64_t rows,
                                     int64_t columns, int64_t stride, bool transposed) {
  const dnnl_dims_t sizes = {rows, columns};
  const dnnl_dims_t strides = {transposed ? 1 : stride, transposed ? stride : 1};
  return dnnl_memory_desc_init_by_strides(matrix, 2, sizes, type, strides);
}

static dnnl_status_t describe(Matmul *matmul) {
  const int64_t *of = matmul->numbers;
  const int64_t flags = of[FLAGS];
  const dnnl_data_type_t result = flags & ADD ? dnnl_f32 : dnnl_bf16;
  CHECK(describe_matrix(&matmul->a, dnnl_bf16, of[ROWS], of[TERMS], of[A_STRIDE], flags & A_TRANSPOSED));
  CHECK(describe_matrix(&matmul->b, dnnl_bf16, of[TERMS], of[COLUMNS], of[B_STRIDE], flags & B_TRANSPOSED));
  CHECK(describe_matrix(&matmul->bias, dnnl_bf16, 1, of[COLUMNS], of[COLUMNS], false));
  return describe_matrix(&matmul->c, result, of[ROWS], of[COLUMNS], of[C_STRIDE], false);
}

/* Scratch is ours, so that threads may compute side by side; sums are added to what is there where asked. */
static dnnl_status_t set_attributes(dnnl_primitive_attr_t attributes, bool add) {
  dnnl_post_ops_t after = NULL;
  CHECK(dnnl_primitive_attr_set_scratchpad_mode(attributes, dnnl_scratchpad_mode_user));
  if (!add) return dnnl_success;
  CHECK(dnnl_post_ops_create(&after));
  dnnl_status_t status = dnnl_post_ops_append_sum(after, 1.0F);
  if (status == dnnl_success) status = dnnl_primitive_attr_set_post_ops(attributes, after);
  (void)dnnl_post_ops_destroy(after);
  return status;
}

static dnnl_status_t make_primitive(dnnl_engine_t engine, dnnl_primitive_attr_t attributes, Matmul *matmul) {
  dnnl_matmul_desc_t wanted;
  dnnl_primitive_desc_t found = NULL;
  const bool bias = matmul->numbers[FLAGS] & BIAS;
  CHECK(dnnl_matmul_desc_init(&wanted, &matmul->a, &matmul->b, bias ? &matmul->bias : NULL, &matmul->c));
  CHECK(dnnl_primitive_desc_create(&found, &wanted, attributes, engine, NULL));
  const dnnl_memory_desc_t *scratch = dnnl_primitive_desc_query_md(found, dnnl_query_scratchpad_md, 0);
  if (scratch != NULL) matmul->scratch = *scratch;
  matmul->scratch_bytes = dnnl_memory_desc_get_size(&matmul->scratch);
  const dnnl_status_t status = dnnl_primitive_create(&matmul->primitive, found);
  (void)dnnl_primitive_desc_destroy(found);
  return status;
}

static dnnl_status_t make(dnnl_engine_t engine, Matmul *matmul) {
  dnnl_primitive_attr_t attributes = NULL;
  CHECK(describe(matmul));
  CHECK(dnnl_primitive_attr_create(&attributes));
  dnnl_status_t status = set_attributes(attributes, matmul->numbers[FLAGS] & ADD);
  if (status == dnnl_success) status = make_primitive(engine, attributes, matmul);
  (void)dnnl_primitive_attr_destroy(attributes);
  return status;
}

static void give_up(MatmulCache *cache) {
  for (int64_t i = 0; i < cache->count; i++) (void)dnnl_primitive_destroy(cache->kept[i].primitive);
  cache->count = 0;
}

void products_matmul_free(MatmulCache *cache) {
  if (cache != NULL) give_up(cache);
  free(cache);
}

/* The matmul for blocks of rows x columns, made where it is not there. */
static dnnl_status_t find(const ProductsDnnl *products, const Product *p, int64_t rows, int64_t columns,
                          const Matmul **out) {
  MatmulCache *cache = products->matmuls;
  const int64_t flags = (p->a_transposed ? A_TRANSPOSED : 0) | (p->b_transposed ? B_TRANSPOSED : 0) |
                        (p->bias != NULL ? BIAS : 0) | (p->add ? ADD : 0);
  Matmul wanted = {.numbers = {rows, columns, p->k, p->a_stride, product_b_stride(p), p->c_stride, flags}};
  for (int64_t i = 0; i < cache->count; i++) {
    *out = &cache->kept[i];
    if (memcmp(cache->numbers[i], wanted.numbers, sizeof wanted.numbers) == 0) return dnnl_success;
  }
  CHECK(make(products->engine, &wanted));
  memcpy(cache->numbers[cache->count], wanted.numbers, sizeof wanted.numbers);
  cache->kept[cache->count] = wanted;
  *out = &cache->kept[cache->count++];
  return dnnl_success;
}

static int prepare(ProductsDnnl *products, const Product *p, int64_t rows, int64_t columns) {
  if (products->matmuls == NULL) {
    Error error = {0};
    void *memory = NULL;
    if (memory_alloc(1, sizeof(MatmulCache), "products", &memory, &error) != STATUS_OK) {
      return (int)dnnl_out_of_memory;
    }
    products->matmuls = memory;
  }
  MatmulCache *cache = products->matmuls;
  if (cache->count + 4 > KEPT) give_up(cache);
  const int64_t heights[2] = {p->m < rows ? p->m : rows, p->m - (p->m - 1) / rows * rows};
  const int64_t widths[2] = {p->n < columns ? p->n : columns, p->n - (p->n - 1) / columns * columns};
  cache->rows = heights[0];
  cache->columns = widths[0];
  for (int i = 0; i < 4; i++) {
    const Matmul **chosen = &cache->chosen[i / 2][i % 2];
    const dnnl_status_t status = find(products, p, heights[i / 2], widths[i % 2], chosen);
    if (status != dnnl_success) return (int)status;
    const int reserved = products_reserve(products, (*chosen)->scratch_bytes);
    if (reserved != 0) return reserved;
  }
  return 0;
}

/* oneDNN takes operands that it only reads as writable. */
static void *operand(const elem *at, int64_t offset) {
  union {
    const Element *in;
    Element *out;
  } pointer = {.in = (const Element *)at + offset};
  return pointer.out;
}

enum { ARGUMENTS = 5 };

static dnnl_status_t execute(const Matmul *matmul, dnnl_engine_t engine, const ProductThread *thread,
                             void *const arrays[ARGUMENTS]) {
  static const int names[ARGUMENTS] = {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST, DNNL_ARG_SCRATCHPAD,
                                       DNNL_ARG_BIAS};
  const dnnl_memory_desc_t *const kinds[ARGUMENTS] = {&matmul->a, &matmul->b, &matmul->c, &matmul->scratch,
                                                      &matmul->bias};
  const int count = matmul->numbers[FLAGS] & BIAS ? ARGUMENTS : ARGUMENTS - 1;
  dnnl_exec_arg_t arguments[ARGUMENTS];
  dnnl_status_t status = dnnl_success;
  int made = 0;
  for (; made < count && status == dnnl_success; made++) {
    arguments[made] = (dnnl_exec_arg_t){.arg = names[made]};
    status = dnnl_memory_create(&arguments[made].memory, kinds[made], engine, arrays[made]);
  }
  if (status == dnnl_success) {
    status = dnnl_primitive_execute(matmul->primitive, thread->stream, count, arguments);
  }
  for (int i = 0; i < made; i++) (void)dnnl_memory_destroy(arguments[i].memory);
  return status;
}

static int multiply_block(const ProductsDnnl *products, const Product *p, const ProductBlock *block,
                          const ProductThread *thread) {
  const MatmulCache *cache = products->matmuls;
  const Matmul *matmul = cache->chosen[block->rows != cache->rows][block->columns != cache->columns];
  const size_t size = p->add ? sizeof(float) : sizeof(Element);
  void *const arrays[ARGUMENTS] = {
      operand(p->a, product_a_offset(p, block->row, 0)),
      operand(p->b, product_b_offset(p, 0, block->column)),
      (char *)p->c + (size_t)(block->row * p->c_stride + block->column) * size,
      thread->scratch,
      p->bias != NULL ? operand(p->bias, block->column) : NULL,
  };
  return (int)execute(matmul, products->engine, thread, arrays);
}

const ProductMethod products_matmul = {.prepare = prepare, .block = multiply_block};

#endif
