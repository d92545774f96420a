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

/* Sizes of a block: smaller ones repack their operands too often, larger ones leave the caches. */
#define ROWS_MIN 64
#define ROWS_MAX 2048
#define COLUMNS_MIN 128
#define COLUMNS_MAX 768
/* Operations that are worth a block of their own, and blocks that a product of many operations is cut into.
 */
#define BLOCK_OPERATIONS (INT64_C(1) << 22)
#define BLOCKS_WANTED 8
/* Operations of a block after which messages may move, some milliseconds; but a block of fewer rows would
 * spend its time on packing its columns. */
#define POLL_OPERATIONS (INT64_C(1) << 30)
#define POLL_ROWS_MIN 256

/* c (m, n) = a (m, k) b (k, n) + bias (n), or added to c; a stored transposed is (k, m), b stored transposed
 * (n, k); a NULL bias is left out. */
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

static int64_t smaller(int64_t a, int64_t b) {
  return a < b ? a : b;
}

static int64_t divide_up(int64_t size, int64_t by) {
  return (size + by - 1) / by;
}

/* Rows and columns of a block, from the sizes of the product alone; multiples of 16, a vector's width. */
static void choose_block(const Product *p, int64_t *rows, int64_t *columns) {
  const int64_t wanted = smaller(2 * p->m * p->n * p->k / BLOCK_OPERATIONS, BLOCKS_WANTED);
  int64_t down = divide_up(p->m, ROWS_MAX);
  int64_t across = divide_up(p->n, COLUMNS_MAX);
  while (down * across < wanted) {
    const int64_t height = p->m / down;
    const int64_t width = p->n / across;
    if (height > ROWS_MIN && (height >= width || width <= COLUMNS_MIN)) {
      down++;
    } else if (width > COLUMNS_MIN) {
      across++;
    } else {
      break;
    }
  }
  *rows = divide_up(divide_up(p->m, down), 16) * 16;
  *columns = divide_up(divide_up(p->n, across), 16) * 16;
  const int64_t row_operations = 2 * *columns * p->k;
  if (row_operations > 0) {
    const int64_t most = POLL_OPERATIONS / row_operations / 16 * 16;
    *rows = smaller(*rows, most > POLL_ROWS_MIN ? most : POLL_ROWS_MIN);
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
  choose_block(p, &rows, &columns);
  /* A single block stays on this thread, where its operands are in the caches. */
  const bool shared = device->threads > 1 && (rows < p->m || columns < p->n);
  int failed = 0;
  /* The threads of the caller's next parallel regions, oneDNN's among them; those of the loop inherit it. */
  const int callers_threads = omp_get_max_threads();
  omp_set_num_threads(1);
#pragma omp parallel for collapse(2) schedule(dynamic) num_threads(device->threads) if (shared)
  for (int64_t column = 0; column < p->n; column += columns) {
    for (int64_t row = 0; row < p->m; row += rows) {
      device_poll(device);
      const int status =
          multiply_block(p, row, column, smaller(rows, p->m - row), smaller(columns, p->n - column));
      if (status != 0) {
#pragma omp atomic write
        failed = status;
      }
    }
  }
  omp_set_num_threads(callers_threads);
  if (failed == 0) return;
  const bool memory = failed == (int)dnnl_out_of_memory;
  device_fail(device, memory ? STATUS_SYSTEM : STATUS_INTERNAL,
              "oneDNN %s a product of (%lld, %lld) and (%lld, %lld)",
              memory ? "found no memory left for" : "refused", (long long)p->m, (long long)p->k,
              (long long)p->k, (long long)p->n);
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

/* Instruction sets by their names in RINGGPT_ISA and in oneDNN, where a larger one holds all bits of a
 * smaller; in descending order. */
static const struct {
  const char *name;
  dnnl_cpu_isa_t isa;
} instruction_sets[] = {
    {"avx512", dnnl_cpu_isa_avx512_core},
    {"avx2", dnnl_cpu_isa_avx2},
    {"avx", dnnl_cpu_isa_avx},
    {"sse41", dnnl_cpu_isa_sse41},
};
#define INSTRUCTION_SETS (sizeof instruction_sets / sizeof instruction_sets[0])

void products_dnnl_limit(const char *name) {
  for (size_t i = 0; i < INSTRUCTION_SETS; i++) {
    /* Refused after the first use, which products_dnnl_describe then shows. */
    if (strcmp(name, instruction_sets[i].name) == 0) (void)dnnl_set_max_cpu_isa(instruction_sets[i].isa);
  }
}

void products_dnnl_describe(char *text, size_t size) {
  const dnnl_version_t *version = dnnl_version();
  const unsigned effective = (unsigned)dnnl_get_effective_cpu_isa();
  const char *name = NULL; /* other processors than x86 have none */
  for (size_t i = 0; i < INSTRUCTION_SETS && name == NULL; i++) {
    const unsigned isa = (unsigned)instruction_sets[i].isa;
    if ((effective & isa) == isa) name = instruction_sets[i].name;
  }
  (void)snprintf(text, size, "oneDNN %d.%d.%d%s%s", version->major, version->minor, version->patch,
                 name != NULL ? " " : "", name != NULL ? name : "");
}

#endif
