/* Products with a weight matrix by oneDNN: what a device has of it, the table's products of floats, and the
 * instruction set that oneDNN uses. */
#include "kernels/cpu/products_dnnl.h"

#if RINGGPT_DNNL

#include <oneapi/dnnl/dnnl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/memory.h"
#include "kernels/cpu/products_entries.h"

/* Instruction sets by their names in RINGGPT_ISA and in oneDNN, where a larger one holds all bits of a
 * smaller; in descending order. */
static const struct {
  const char *name;
  dnnl_cpu_isa_t isa;
} instruction_sets[] = {
    {"avx512_bf16", dnnl_cpu_isa_avx512_core_bf16},
    {"avx512", dnnl_cpu_isa_avx512_core},
    {"avx2", dnnl_cpu_isa_avx2},
    {"avx", dnnl_cpu_isa_avx},
    {"sse41", dnnl_cpu_isa_sse41},
};
#define INSTRUCTION_SETS (sizeof instruction_sets / sizeof instruction_sets[0])

/* Whether oneDNN uses all of an instruction set. */
static bool uses(dnnl_cpu_isa_t isa) {
  return ((unsigned)dnnl_get_effective_cpu_isa() & (unsigned)isa) == (unsigned)isa;
}

void products_dnnl_limit(const char *name) {
  for (size_t i = 0; i < INSTRUCTION_SETS; i++) {
    /* Refused after the first use, which products_dnnl_describe then shows. */
    if (strcmp(name, instruction_sets[i].name) == 0) (void)dnnl_set_max_cpu_isa(instruction_sets[i].isa);
  }
}

void products_dnnl_describe(const ProductsDnnl *products, char *text, size_t size) {
  const dnnl_version_t *version = dnnl_version();
  const char *name = NULL; /* other processors than x86 have none */
  for (size_t i = products_dnnl_have_bf16(products) ? 0 : 1; i < INSTRUCTION_SETS && name == NULL; i++) {
    if (uses(instruction_sets[i].isa)) name = instruction_sets[i].name;
  }
  (void)snprintf(text, size, "oneDNN %d.%d.%d%s%s", version->major, version->minor, version->patch,
                 name != NULL ? " " : "", name != NULL ? name : "");
}

bool products_dnnl_have_bf16(const ProductsDnnl *products) {
  return products->method == &products_matmul;
}

static Status start(ProductsDnnl *products, ElementType elements, bool bf16, int threads, Error *error) {
  void *memory = NULL;
  products->method = elements == ELEMENT_F32                       ? &products_sgemm
                     : bf16 && uses(dnnl_cpu_isa_avx512_core_bf16) ? &products_matmul
                                                                   : &products_widened;
  TRY(memory_alloc((size_t)threads, sizeof(ProductThread), "products", &memory, error));
  products->thread = memory;
  products->threads = threads;
  bool made = dnnl_engine_create(&products->engine, dnnl_cpu, 0) == dnnl_success;
  for (int i = 0; i < threads && made; i++) {
    const unsigned flags = (unsigned)dnnl_stream_default_flags;
    made = dnnl_stream_create(&products->thread[i].stream, products->engine, flags) == dnnl_success;
  }
  return made ? STATUS_OK : fail(error, STATUS_SYSTEM, "oneDNN finds no memory to start with");
}

Status products_dnnl_create(ElementType elements, bool bf16, int threads, ProductsDnnl **out, Error *error) {
  void *memory = NULL;
  TRY(memory_alloc(1, sizeof(ProductsDnnl), "products", &memory, error));
  const Status status = start(memory, elements, bf16, threads, error);
  if (status == STATUS_OK) {
    *out = memory;
  } else {
    products_dnnl_destroy(memory);
  }
  return status;
}

void products_dnnl_destroy(ProductsDnnl *products) {
  if (products == NULL) return;
  products_matmul_free(products->matmuls);
  for (int i = 0; i < products->threads; i++) {
    if (products->thread[i].stream != NULL) (void)dnnl_stream_destroy(products->thread[i].stream);
    free(products->thread[i].scratch);
  }
  free(products->thread);
  if (products->engine != NULL) (void)dnnl_engine_destroy(products->engine);
  free(products);
}

void products_dnnl_override(Ops *ops) {
  products_entries_override(ops);
}

#endif
