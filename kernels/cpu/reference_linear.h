/* Reference operations: products with a weight matrix: the bodies for any elements. Each sum is taken in
 * double and rounded once. */
#ifndef RINGGPT_CPU_REFERENCE_LINEAR_H
#define RINGGPT_CPU_REFERENCE_LINEAR_H

#include "kernels/cpu/columns.h"
#include "kernels/cpu/element.h"
#include "kernels/cpu/poll.h"
#include "kernels/cpu/race_check.h"
#include "kernels/device.h"

/* Independent partial sums of a dot product, so that the compiler can keep them in vector registers. */
#define LANES 8

RACE_UNCHECKED static double dot(int64_t count, const Element *a, const Element *b) {
  double sums[LANES] = {0};
  int64_t i = 0;
  for (; i + LANES <= count; i += LANES) {
    for (int lane = 0; lane < LANES; lane++) {
      sums[lane] += (double)to_float(a[i + lane]) * (double)to_float(b[i + lane]);
    }
  }
  double sum = 0;
  for (int lane = 0; lane < LANES; lane++) sum += sums[lane];
  for (; i < count; i++) sum += (double)to_float(a[i]) * (double)to_float(b[i]);
  return sum;
}

/* sums (width) += factor row (width). */
RACE_UNCHECKED static void add_scaled(int64_t width, double factor, const Element *row, double *sums) {
  for (int64_t j = 0; j < width; j++) sums[j] += factor * (double)to_float(row[j]);
}

static void check_matrix_read(int64_t rows, int64_t columns, const Element *x) {
  race_check_read(x, (size_t)(rows * columns) * sizeof *x);
}

static void reference_linear_forward(Device *device, int64_t n, int64_t inputs, int64_t outputs,
                                     int64_t y_stride, const elem *x, const elem *w, const elem *bias,
                                     elem *y) {
  const Element *x_rows = x;     /* (n, inputs) */
  const Element *w_rows = w;     /* (outputs, inputs) */
  const Element *offsets = bias; /* (outputs) */
  Element *y_rows = y;           /* (n, outputs), y_stride apart */
  check_matrix_read(n, inputs, x_rows);
  check_matrix_read(outputs, inputs, w_rows);
#pragma omp parallel for num_threads(device->threads) if (device->threads > 1)
  for (int64_t i = 0; i < n; i++) {
    for (int64_t o = 0; o < outputs; o++) {
      poll_within(device, i * outputs + o, inputs);
      const double start = offsets != NULL ? (double)to_float(offsets[o]) : 0.0;
      const double sum = start + dot(inputs, x_rows + i * inputs, w_rows + o * inputs);
      y_rows[i * y_stride + o] = from_float((float)sum);
    }
  }
}

static void reference_linear_backward_input(Device *device, int64_t n, int64_t inputs, int64_t outputs,
                                            int64_t y_stride, const elem *dy, const elem *w, elem *dx) {
  const Element *dy_rows = dy; /* (n, outputs), y_stride apart */
  const Element *w_rows = w;   /* (outputs, inputs) */
  Element *dx_rows = dx;       /* (n, inputs) */
  check_matrix_read(outputs, inputs, w_rows);
  const int64_t blocks = (inputs + COLUMN_BLOCK - 1) / COLUMN_BLOCK;
#pragma omp parallel for collapse(2) num_threads(device->threads) if (device->threads > 1)
  for (int64_t i = 0; i < n; i++) {
    for (int64_t block = 0; block < blocks; block++) {
      const int64_t first = block * COLUMN_BLOCK;
      const int64_t width = inputs - first < COLUMN_BLOCK ? inputs - first : COLUMN_BLOCK;
      double sums[COLUMN_BLOCK] = {0};
      for (int64_t o = 0; o < outputs; o++) {
        poll_within(device, (i * blocks + block) * outputs + o, width);
        const double factor = (double)to_float(dy_rows[i * y_stride + o]);
        add_scaled(width, factor, w_rows + o * inputs + first, sums);
      }
      for (int64_t j = 0; j < width; j++) dx_rows[i * inputs + first + j] = from_float((float)sums[j]);
    }
  }
}

static void reference_linear_backward_weight(Device *device, int64_t n, int64_t inputs, int64_t outputs,
                                             int64_t y_stride, const elem *dy, const elem *x, float *dw,
                                             float *dbias) {
  const Element *dy_rows = dy; /* (n, outputs), y_stride apart */
  const Element *x_rows = x;   /* (n, inputs) */
  check_matrix_read(n, inputs, x_rows);
  const int64_t blocks = (inputs + COLUMN_BLOCK - 1) / COLUMN_BLOCK;
#pragma omp parallel for collapse(2) num_threads(device->threads) if (device->threads > 1)
  for (int64_t o = 0; o < outputs; o++) {
    for (int64_t block = 0; block < blocks; block++) {
      const int64_t first = block * COLUMN_BLOCK;
      const int64_t width = inputs - first < COLUMN_BLOCK ? inputs - first : COLUMN_BLOCK;
      double sums[COLUMN_BLOCK] = {0};
      for (int64_t i = 0; i < n; i++) {
        poll_within(device, (o * blocks + block) * n + i, width);
        const double factor = (double)to_float(dy_rows[i * y_stride + o]);
        add_scaled(width, factor, x_rows + i * inputs + first, sums);
      }
      float *target = dw + o * inputs + first;
      for (int64_t j = 0; j < width; j++) target[j] += (float)sums[j];
    }
  }
  if (dbias != NULL) columns_add(device, n, outputs, y_stride, dy, dbias);
}

#endif
