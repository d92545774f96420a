/* Sums over the rows of a matrix, column by column, for gradients that every row adds to: the body for any
 * elements. Threads share the columns and never a sum, so that the result does not depend on their number. */
#ifndef RINGGPT_CPU_COLUMNS_H
#define RINGGPT_CPU_COLUMNS_H

#include "kernels/cpu/element.h"
#include "kernels/cpu/poll.h"
#include "kernels/device.h"

/* Columns summed at a time: four cache lines of every row of floats. */
#define COLUMN_BLOCK 64

/* Rows summed in float before they go to the sum in double: few enough to lose nothing that matters. */
#define ROWS_IN_FLOAT 16

/* sums (c) += the sum over the rows of x (n, c), `stride` elements apart; long sums are taken in double. */
static inline void columns_add(const Device *device, int64_t n, int64_t c, int64_t stride, const Element *x,
                               float *sums) {
  const int64_t blocks = (c + COLUMN_BLOCK - 1) / COLUMN_BLOCK;
#pragma omp parallel for num_threads(device->threads) if (device->threads > 1)
  for (int64_t block = 0; block < blocks; block++) {
    const int64_t first = block * COLUMN_BLOCK;
    const int64_t width = c - first < COLUMN_BLOCK ? c - first : COLUMN_BLOCK;
    double totals[COLUMN_BLOCK] = {0};
    for (int64_t row = 0; row < n; row += ROWS_IN_FLOAT) {
      poll_within(device, row / ROWS_IN_FLOAT, ROWS_IN_FLOAT * width);
      const int64_t last = row + ROWS_IN_FLOAT < n ? row + ROWS_IN_FLOAT : n;
      float partial[COLUMN_BLOCK] = {0};
      for (int64_t i = row; i < last; i++) {
        for (int64_t j = 0; j < width; j++) partial[j] += to_float(x[i * stride + first + j]);
      }
      for (int64_t j = 0; j < width; j++) totals[j] += (double)partial[j];
    }
    for (int64_t j = 0; j < width; j++) sums[first + j] += (float)totals[j];
  }
}

#endif
