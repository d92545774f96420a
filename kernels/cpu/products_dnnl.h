/* Products with a weight matrix by oneDNN, for a build that has it. */
#ifndef RINGGPT_CPU_PRODUCTS_DNNL_H
#define RINGGPT_CPU_PRODUCTS_DNNL_H

#include <stdbool.h>
#include <stddef.h>

#include "kernels/base/status.h"
#include "kernels/ops.h"

/* What a device keeps for its products. */
typedef struct ProductsDnnl ProductsDnnl;

/* Makes that of a device with `threads` threads and elements of a type, to be released with
 * products_dnnl_destroy (NULL is allowed); used by the thread of the device. With `bf16`, products in bf16
 * may be computed by the CPU's instructions for it (avx512_bf16), where oneDNN has them; otherwise they are
 * widened to floats. Counts as a use of oneDNN. STATUS_SYSTEM without memory. */
Status products_dnnl_create(ElementType elements, bool bf16, int threads, ProductsDnnl **out, Error *error);
void products_dnnl_destroy(ProductsDnnl *products);

/* Override the linear operations of a table whose elements are floats, or bf16. They are for a CpuDevice that
 * has `products` of the same type. */
void products_dnnl_override(Ops *ops);
void products_dnnl_bf16_override(Ops *ops);

/* Forbids oneDNN instruction sets beyond `name`, "avx2", "avx512" or "avx512_bf16". oneDNN keeps
 * one such setting for the whole process and fixes it at its first use, by any thread; from then on this has
 * no effect. */
void products_dnnl_limit(const char *name);

/* Whether these products are in bf16, by the CPU's instructions for it. */
bool products_dnnl_have_bf16(const ProductsDnnl *products);

/* Writes the library's name and version and the instruction set that these products use, such as
 * "oneDNN 2.6.3 avx512", for the log. */
void products_dnnl_describe(const ProductsDnnl *products, char *text, size_t size);

#endif
