/* Products with a weight matrix by oneDNN, for a build that has it. */
#ifndef RINGGPT_CPU_PRODUCTS_DNNL_H
#define RINGGPT_CPU_PRODUCTS_DNNL_H

#include <stddef.h>

#include "kernels/ops.h"

/* Overrides the table's linear operations (float elements). oneDNN chooses the instruction set itself. */
void products_dnnl_override(Ops *ops);

/* Writes the library's name and version, such as "oneDNN 2.6.3", for the log. */
void products_dnnl_describe(char *text, size_t size);

#endif
