/* Vectorised LayerNorm and RMSNorm: the bodies for any width of kernels/cpu/vector.h and any elements.
 * RMSNorm is LayerNorm without mean and bias. Long sums are taken in double, what is done to single elements
 * in float. */
#ifndef RINGGPT_CPU_VECTOR_NORM_H
#define RINGGPT_CPU_VECTOR_NORM_H

#include <math.h>
#include <stddef.h>

#include "kernels/cpu/columns.h"
#include "kernels/cpu/norm_entries.h"
#include "kernels/cpu/poll.h"
#include "kernels/cpu/vector_element.h"
#include "kernels/device.h"

/* The vector at x + j, once the residual's has been added to it if there is one. */
static inline Vector norm_load(const Element *residual, Element *x, int64_t j, int64_t count) {
  const Vector value = vector_load_elements(x + j, count);
  if (residual == NULL) return value;
  vector_store_elements(x + j, value + vector_load_elements(residual + j, count), count);
  return vector_load_elements(x + j, count); /* rounded */
}

/* x += residual, and its mean. */
static inline double norm_row_mean(int64_t c, const Element *residual, Element *x) {
  DoubleSum sum = double_sum_zero();
  for (int64_t j = 0; j < c; j += VECTOR_FLOATS) double_sum_add(&sum, norm_load(residual, x, j, c - j));
  return double_sum_total(&sum) / (double)c;
}

/* x += residual, and the mean of the squares of x - centre. */
static inline double norm_row_variance(int64_t c, const Element *residual, Element *x, double centre) {
  DoubleSum sum = double_sum_zero();
  const DoubleVector middle = double_set(centre);
  int64_t j = 0;
  for (; j + VECTOR_FLOATS <= c; j += VECTOR_FLOATS) {
    const Vector value = norm_load(residual, x, j, VECTOR_FLOATS);
    const DoubleVector low = double_low(value) - middle;
    const DoubleVector high = double_high(value) - middle;
    sum.low = double_multiply_add(low, low, sum.low);
    sum.high = double_multiply_add(high, high, sum.high);
  }
  if (j < c) norm_load(residual, x, j, c - j);
  double total = double_sum_total(&sum);
  for (; j < c; j++) total += ((double)to_float(x[j]) - centre) * ((double)to_float(x[j]) - centre);
  return total / (double)c;
}

/* The mean is taken off in two parts, so that rows that lie far from 0 keep their digits. */
static void norm_forward(const Device *device, int64_t n, int64_t c, float eps, const Element *residual,
                         Element *x, const Element *weight, const Element *bias, Element *y, float *mean,
                         float *rstd) {
#pragma omp parallel for num_threads(device->threads) if (device->threads > 1)
  for (int64_t i = 0; i < n; i++) {
    poll_within(device, i, c);
    Element *row = x + i * c;
    const Element *added = residual != NULL ? residual + i * c : NULL;
    const double middle = mean != NULL ? norm_row_mean(c, added, row) : 0.0;
    const double scale =
        1.0 / sqrt(norm_row_variance(c, mean != NULL ? NULL : added, row, middle) + (double)eps);
    const Vector middle_high = vector_set((float)middle);
    const Vector middle_low = vector_set((float)(middle - (double)(float)middle));
    const Vector scales = vector_set((float)scale);
    for (int64_t j = 0; j < c; j += VECTOR_FLOATS) {
      const Vector normal = (vector_load_elements(row + j, c - j) - middle_high - middle_low) * scales;
      const Vector offset = bias != NULL ? vector_load_elements(bias + j, c - j) : vector_set(0.0F);
      const Vector result = vector_multiply_add(normal, vector_load_elements(weight + j, c - j), offset);
      vector_store_elements(y + i * c + j, result, c - j);
    }
    if (mean != NULL) mean[i] = (float)middle;
    rstd[i] = (float)scale;
  }
}

/* The means of g = dy weight and of g xhat over a row, xhat = (x - mean) rstd. */
static inline void norm_row_means(int64_t c, const Element *dy, const Element *x, const Element *weight,
                                  float mean, float rstd, double *mean_g, double *mean_g_xhat) {
  DoubleSum sum_g = double_sum_zero();
  DoubleSum sum_g_xhat = double_sum_zero();
  for (int64_t j = 0; j < c; j += VECTOR_FLOATS) {
    const Vector g = vector_load_elements(dy + j, c - j) * vector_load_elements(weight + j, c - j);
    const Vector xhat = (vector_load_elements(x + j, c - j) - vector_set(mean)) * vector_set(rstd);
    double_sum_add(&sum_g, g);
    double_sum_add(&sum_g_xhat, g * xhat);
  }
  *mean_g = double_sum_total(&sum_g) / (double)c;
  *mean_g_xhat = double_sum_total(&sum_g_xhat) / (double)c;
}

/* dx += rstd (g - mean(g) - xhat mean(g xhat)); the term mean(g) comes from centring and goes with it. */
static void norm_backward_input(const Device *device, int64_t n, int64_t c, const Element *dy,
                                const Element *x, const Element *weight, const float *mean, const float *rstd,
                                Element *dx) {
#pragma omp parallel for num_threads(device->threads) if (device->threads > 1)
  for (int64_t i = 0; i < n; i++) {
    poll_within(device, i, c);
    const Element *gradient = dy + i * c;
    const Element *row = x + i * c;
    Element *out = dx + i * c;
    const float middle = mean != NULL ? mean[i] : 0.0F;
    double mean_g = 0;
    double mean_g_xhat = 0;
    norm_row_means(c, gradient, row, weight, middle, rstd[i], &mean_g, &mean_g_xhat);
    const Vector off = vector_set(mean != NULL ? (float)mean_g : 0.0F);
    const Vector along = vector_set((float)mean_g_xhat);
    const Vector scale = vector_set(rstd[i]);
    for (int64_t j = 0; j < c; j += VECTOR_FLOATS) {
      const Vector g = vector_load_elements(gradient + j, c - j) * vector_load_elements(weight + j, c - j);
      const Vector xhat = (vector_load_elements(row + j, c - j) - vector_set(middle)) * scale;
      const Vector inner = g - off - xhat * along;
      vector_store_elements(out + j, vector_multiply_add(scale, inner, vector_load_elements(out + j, c - j)),
                            c - j);
    }
  }
}

/* dweight (width) += the column sums of dy xhat for `width` columns, up to `vectors` vectors of them; dy and
 * x point to the first of the columns, rows are c apart. Sixteen rows at a time are summed in float. */
static inline void norm_columns(const Device *device, int64_t n, int64_t c, const Element *dy,
                                const Element *x, const float *mean, const float *rstd, float *dweight,
                                int vectors, int64_t width) {
  DoubleSum totals[COLUMN_BLOCK / VECTOR_FLOATS];
  for (int v = 0; v < vectors; v++) totals[v] = double_sum_zero();
  for (int64_t row = 0; row < n; row += 16) {
    poll_within(device, row / 16, 16 * width);
    Vector sums[COLUMN_BLOCK / VECTOR_FLOATS];
    for (int v = 0; v < vectors; v++) sums[v] = vector_set(0.0F);
    for (int64_t i = row; i < n && i < row + 16; i++) {
      const Vector middle = vector_set(mean != NULL ? mean[i] : 0.0F);
      for (int v = 0; v < vectors; v++) {
        const int64_t at = v * VECTOR_FLOATS;
        const Vector xhat = (vector_load_elements(x + i * c + at, width - at) - middle) * vector_set(rstd[i]);
        sums[v] = vector_multiply_add(vector_load_elements(dy + i * c + at, width - at), xhat, sums[v]);
      }
    }
    for (int v = 0; v < vectors; v++) double_sum_add(&totals[v], sums[v]);
  }
  for (int v = 0; v < vectors; v++) {
    const int64_t at = v * VECTOR_FLOATS;
    const Vector sum = double_round(totals[v].low, totals[v].high);
    vector_store(dweight + at, vector_load(dweight + at, width - at) + sum, width - at);
  }
}

static void norm_backward_weight(const Device *device, int64_t n, int64_t c, const Element *dy,
                                 const Element *x, const float *mean, const float *rstd, float *dweight) {
  const int64_t blocks = (c + COLUMN_BLOCK - 1) / COLUMN_BLOCK;
#pragma omp parallel for num_threads(device->threads) if (device->threads > 1)
  for (int64_t block = 0; block < blocks; block++) {
    int64_t j = block * COLUMN_BLOCK;
    if (c - j >= COLUMN_BLOCK) {
      norm_columns(device, n, c, dy + j, x + j, mean, rstd, dweight + j, COLUMN_BLOCK / VECTOR_FLOATS,
                   COLUMN_BLOCK);
      continue;
    }
    for (; j < c; j += VECTOR_FLOATS)
      norm_columns(device, n, c, dy + j, x + j, mean, rstd, dweight + j, 1, c - j);
  }
}

static void norm_backward(Device *device, int64_t n, int64_t c, const Element *dy, const Element *x,
                          const Element *weight, const float *mean, const float *rstd, Element *dx,
                          float *dweight, float *dbias) {
  norm_backward_input(device, n, c, dy, x, weight, mean, rstd, dx);
  norm_backward_weight(device, n, c, dy, x, mean, rstd, dweight);
  if (dbias != NULL) columns_add(device, n, c, dy, dbias);
}

#endif
