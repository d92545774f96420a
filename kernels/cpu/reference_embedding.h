/* Reference operations: token and position embeddings: the bodies for any elements. */
#ifndef RINGGPT_CPU_REFERENCE_EMBEDDING_H
#define RINGGPT_CPU_REFERENCE_EMBEDDING_H

#include <string.h>

#include "kernels/cpu/columns.h"
#include "kernels/cpu/element.h"
#include "kernels/cpu/poll.h"
#include "kernels/device.h"

static void reference_embedding_forward(Device *device, int64_t n, int64_t c, const int32_t *tokens,
                                        const int64_t *positions, const elem *wte, const elem *wpe, elem *y) {
  const Element *token_rows = wte;    /* (vocab, c) */
  const Element *position_rows = wpe; /* (positions, c) */
  Element *y_rows = y;                /* (n, c) */
#pragma omp parallel for num_threads(device->threads) if (device->threads > 1)
  for (int64_t i = 0; i < n; i++) {
    poll_within(device, i, c);
    const Element *token_row = token_rows + tokens[i] * c;
    const Element *position_row = position_rows != NULL ? position_rows + positions[i] * c : NULL;
    for (int64_t j = 0; j < c; j++) {
      const float offset = position_row != NULL ? to_float(position_row[j]) : 0.0F;
      y_rows[i * c + j] = from_float(to_float(token_row[j]) + offset);
    }
  }
}

/* Rows of the gradient that are added at a time. */
#define ROWS_AT_A_TIME 4096

/* order (count) = the indices of `rows` (count), arranged so that equal rows are neighbours in their order: a
 * radix sort by bytes. */
static void group_equal_rows(int64_t count, const int64_t *rows, int16_t *order) {
  int16_t sorted[ROWS_AT_A_TIME];
  int64_t largest = 0;
  for (int64_t i = 0; i < count; i++) {
    order[i] = (int16_t)i;
    if (rows[i] > largest) largest = rows[i];
  }
  for (int shift = 0; largest >> shift > 0; shift += 8) {
    int64_t starts[257] = {0};
    for (int64_t i = 0; i < count; i++) starts[((rows[i] >> shift) & 255) + 1]++;
    for (int digit = 0; digit < 256; digit++) starts[digit + 1] += starts[digit];
    for (int64_t i = 0; i < count; i++) {
      sorted[starts[(rows[order[i]] >> shift) & 255]++] = order[i];
    }
    memcpy(order, sorted, (size_t)count * sizeof(int16_t));
  }
}

/* table[rows[i]] += dy (count, c) for one run of columns. Rows that are equal are summed in double before
 * they go to the table: one by one, the thousands of a frequent token would lose digits in float. */
static void add_columns(int64_t count, int64_t c, const int64_t *rows, const int16_t *order,
                        const Element *dy, int64_t first, int64_t width, float *table) {
  for (int64_t i = 0; i < count;) {
    const int64_t row = rows[order[i]];
    double sums[COLUMN_BLOCK] = {0};
    for (; i < count && rows[order[i]] == row; i++) {
      for (int64_t j = 0; j < width; j++) sums[j] += (double)to_float(dy[order[i] * c + first + j]);
    }
    for (int64_t j = 0; j < width; j++) table[row * c + first + j] += (float)sums[j];
  }
}

/* table[rows[i]] += dy (count, c), count up to ROWS_AT_A_TIME. Threads share the columns, so that no two meet
 * in one sum. */
static void add_rows(const Device *device, int64_t count, int64_t c, const int64_t *rows, const Element *dy,
                     float *table) {
  int16_t order[ROWS_AT_A_TIME];
  group_equal_rows(count, rows, order);
#pragma omp parallel for num_threads(device->threads) if (device->threads > 1)
  for (int64_t first = 0; first < c; first += COLUMN_BLOCK) {
    device_poll(device);
    const int64_t width = c - first < COLUMN_BLOCK ? c - first : COLUMN_BLOCK;
    add_columns(count, c, rows, order, dy, first, width, table);
  }
}

static void reference_embedding_backward(Device *device, int64_t n, int64_t c, const int32_t *tokens,
                                         const int64_t *positions, const elem *dy, float *dwte, float *dwpe) {
  const Element *gradient = dy; /* (n, c) */
  for (int64_t i = 0; i < n; i += ROWS_AT_A_TIME) {
    const int64_t count = n - i < ROWS_AT_A_TIME ? n - i : ROWS_AT_A_TIME;
    int64_t rows[ROWS_AT_A_TIME];
    for (int64_t k = 0; k < count; k++) rows[k] = tokens[i + k];
    add_rows(device, count, c, rows, gradient + i * c, dwte);
    if (dwpe != NULL) add_rows(device, count, c, positions + i, gradient + i * c, dwpe);
  }
}

#endif
