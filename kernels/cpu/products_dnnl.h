/* Products with a weight matrix by oneDNN, for a build that has it. */
#ifndef RINGGPT_CPU_PRODUCTS_DNNL_H
#define RINGGPT_CPU_PRODUCTS_DNNL_H

#include <stddef.h>

#include "kernels/ops.h"

/* Overrides the table's linear operations (float elements). */
void products_dnnl_override(Ops *ops);

/* Forbids oneDNN instruction sets beyond `name`, "avx2" or "avx512". oneDNN keeps one such setting for the
 * whole process and fixes it at its first use, by any thread; from then on this has no effect. */
void products_dnnl_limit(const char *name);

/* Writes the library's name and version and the instruction set that its products use, such as
 * "oneDNN 2.6.3 avx512", for the log. Counts as a use of oneDNN: what is written stays true. */
void products_dnnl_describe(char *text, size_t size);

#endif
