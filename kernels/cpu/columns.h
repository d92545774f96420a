/* Sums over the rows of a matrix, column by column, for gradients that every row adds to. Threads share the
 * columns and never a sum, so that the result does not depend on their number. */
#ifndef RINGGPT_CPU_COLUMNS_H
#define RINGGPT_CPU_COLUMNS_H

#include "kernels/ops.h"

/* Columns summed at a time: four cache lines of every row. */
#define COLUMN_BLOCK 64

/* sums (c) += the sum over the rows of x (n, c); long sums are taken in double. */
void columns_add(Device *device, int64_t n, int64_t c, const float *x, float *sums);

#endif
