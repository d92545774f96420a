/* Cutting products into blocks: see the header. */
#if RINGGPT_DNNL

#include "kernels/cpu/products_blocks.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/memory.h"
#include "kernels/cpu/cpu_device.h"

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

int products_reserve(ProductsDnnl *products, size_t bytes) {
  for (int i = 0; i < products->threads; i++) {
    ProductThread *thread = &products->thread[i];
    if (thread->scratch_bytes >= bytes) continue;
    Error error = {0};
    free(thread->scratch);
    thread->scratch = NULL;
    thread->scratch_bytes = 0;
    const Status status = memory_alloc(bytes, 1, "products", &thread->scratch, &error);
    if (status != STATUS_OK) return (int)dnnl_out_of_memory;
    thread->scratch_bytes = bytes;
  }
  return 0;
}

/* All blocks of the product; returns oneDNN's status. */
static int multiply_blocks(Device *device, ProductsDnnl *products, const Product *p) {
  const ProductMethod *method = products->method;
  int64_t rows = 0;
  int64_t columns = 0;
  choose_block(p, &rows, &columns);
  if (method->prepare != NULL) {
    const int status = method->prepare(products, p, rows, columns);
    if (status != 0) return status;
  }
  /* A single block stays on this thread, where its operands are in the caches. */
  const bool shared = device->threads > 1 && (rows < p->m || columns < p->n);
  int failed = 0;
#pragma omp parallel for collapse(2) schedule(dynamic) num_threads(device->threads) if (shared)
  for (int64_t column = 0; column < p->n; column += columns) {
    for (int64_t row = 0; row < p->m; row += rows) {
      device_poll(device);
      const ProductBlock block = {row, column, smaller(rows, p->m - row), smaller(columns, p->n - column)};
      const int status = method->block(products, p, &block, &products->thread[omp_get_thread_num()]);
      if (status != 0) {
#pragma omp atomic write
        failed = status;
      }
    }
  }
  return failed;
}

/* c = bias, or 0: the sums have no terms. */
static void fill_empty(const Device *device, const Product *p) {
  const size_t size = device->ops.elem_size;
  for (int64_t i = 0; i < p->m && !p->add; i++) {
    char *row = (char *)p->c + (size_t)(i * p->c_stride) * size;
    if (p->bias != NULL) {
      memcpy(row, p->bias, (size_t)p->n * size);
    } else {
      memset(row, 0, (size_t)p->n * size);
    }
  }
}

void products_multiply(Device *device, const Product *p) {
  if (p->m == 0 || p->n == 0 || device->failure.status != STATUS_OK) return;
  if (p->k == 0) {
    fill_empty(device, p);
    return;
  }
  /* The threads of the caller's next parallel regions, oneDNN's among them; those of the loop inherit it. */
  const int callers_threads = omp_get_max_threads();
  omp_set_num_threads(1);
  const int failed = multiply_blocks(device, ((CpuDevice *)device)->products, p);
  omp_set_num_threads(callers_threads);
  if (failed == 0) return;
  const bool memory = failed == (int)dnnl_out_of_memory;
  device_fail(device, memory ? STATUS_SYSTEM : STATUS_INTERNAL,
              "oneDNN %s a product of (%lld, %lld) and (%lld, %lld)",
              memory ? "found no memory left for" : "refused", (long long)p->m, (long long)p->k,
              (long long)p->k, (long long)p->n);
}

#endif
