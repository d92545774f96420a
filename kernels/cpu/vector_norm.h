/* Vectorised LayerNorm and RMSNorm: the bodies for any width of kernels/cpu/vector.h and any elements.
 * RMSNorm is LayerNorm without mean and bias. Long sums are taken in double, what is done to single elements
 * in float. */
#ifndef RINGGPT_CPU_VECTOR_NORM_H
#define RINGGPT_CPU_VECTOR_NORM_H

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>

#include "kernels/base/memory.h"
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

/* What backward is given. */
typedef struct NormRows {
  Device *device;
  int64_t n, c;
  const Element *dy;     /* (n, c) */
  const Element *x;      /* (n, c) */
  const Element *weight; /* (c) */
  const float *mean;     /* (n) or NULL */
  const float *rstd;     /* (n) */
  Element *dx;           /* (n, c) */
} NormRows;

/* dx += rstd (g - mean(g) - xhat mean(g xhat)) for row i; the term mean(g) comes from centring and goes with
 * it. On the way adds dy xhat to dweight and, unless NULL, dy to dbias, which both have room for whole
 * vectors. */
static inline void norm_row_backward(const NormRows *rows, int64_t i, float *dweight, float *dbias) {
  const int64_t c = rows->c;
  const Element *dy = rows->dy + i * c;
  const Element *x = rows->x + i * c;
  Element *dx = rows->dx + i * c;
  const float middle = rows->mean != NULL ? rows->mean[i] : 0.0F;
  double mean_g = 0;
  double mean_g_xhat = 0;
  norm_row_means(c, dy, x, rows->weight, middle, rows->rstd[i], &mean_g, &mean_g_xhat);
  const Vector off = vector_set(rows->mean != NULL ? (float)mean_g : 0.0F);
  const Vector along = vector_set((float)mean_g_xhat);
  const Vector scale = vector_set(rows->rstd[i]);
  for (int64_t j = 0; j < c; j += VECTOR_FLOATS) {
    const Vector gradient = vector_load_elements(dy + j, c - j);
    const Vector g = gradient * vector_load_elements(rows->weight + j, c - j);
    const Vector xhat = (vector_load_elements(x + j, c - j) - vector_set(middle)) * scale;
    const Vector inner = g - off - xhat * along;
    const Vector old = vector_load_elements(dx + j, c - j);
    vector_store_elements(dx + j, vector_multiply_add(scale, inner, old), c - j);
    const Vector sum = vector_load(dweight + j, VECTOR_FLOATS);
    vector_store(dweight + j, vector_multiply_add(gradient, xhat, sum), VECTOR_FLOATS);
    if (dbias == NULL) continue;
    vector_store(dbias + j, vector_load(dbias + j, VECTOR_FLOATS) + gradient, VECTOR_FLOATS);
  }
}

/* The rows are summed in parts, each by one thread, and the parts in their order. Where they begin depends on
 * the rows alone, so that the bits do not depend on the number of threads. A part's sums (kinds, width) are
 * those of dweight and of dbias, if there is one; `width` is c up to whole vectors. */
typedef struct NormParts {
  int64_t count;
  int64_t rows; /* of each, but the last one */
  int64_t kinds;
  int64_t width;
  double *totals; /* (count, kinds, width) */
  float *sums;    /* (count, kinds, width) of up to ROWS_IN_FLOAT rows, then zeros again */
} NormParts;

/* Enough parts for many threads, of enough rows for their totals to cost next to nothing. */
#define NORM_MOST_PARTS 128
#define NORM_PART_ROWS 32

/* False: no memory, and the device has failed. */
static bool norm_parts_alloc(const NormRows *rows, bool biased, NormParts *parts) {
  const int64_t share = (rows->n + NORM_MOST_PARTS - 1) / NORM_MOST_PARTS;
  parts->rows = share > NORM_PART_ROWS ? share : NORM_PART_ROWS;
  parts->count = (rows->n + parts->rows - 1) / parts->rows;
  parts->kinds = biased ? 2 : 1;
  parts->width = (rows->c + VECTOR_FLOATS - 1) / VECTOR_FLOATS * VECTOR_FLOATS;
  const size_t sums = (size_t)(parts->count * parts->kinds * parts->width);
  void *memory = NULL;
  Error error = {0};
  const Status status = memory_alloc(sums, sizeof(double) + sizeof(float), "norm backward", &memory, &error);
  if (status != STATUS_OK) {
    device_fail(rows->device, status, "%s", error.text);
    return false;
  }
  parts->totals = memory;
  parts->sums = (float *)(parts->totals + sums);
  return true;
}

static void norm_part_backward(const NormRows *rows, const NormParts *parts, int64_t part) {
  const int64_t columns = parts->kinds * parts->width;
  double *totals = parts->totals + part * columns;
  float *sums = parts->sums + part * columns;
  const int64_t begin = part * parts->rows;
  const int64_t end = begin + parts->rows < rows->n ? begin + parts->rows : rows->n;
  for (int64_t i = begin; i < end; i++) {
    poll_within(rows->device, i, rows->c);
    norm_row_backward(rows, i, sums, parts->kinds > 1 ? sums + parts->width : NULL);
    if ((i - begin + 1) % ROWS_IN_FLOAT != 0 && i + 1 < end) continue;
    for (int64_t j = 0; j < columns; j++) {
      totals[j] += (double)sums[j];
      sums[j] = 0;
    }
  }
}

/* gradient (c) += the totals of all parts, of a kind. */
static void norm_add_parts(const NormRows *rows, const NormParts *parts, int64_t kind, float *gradient) {
#pragma omp parallel for num_threads(rows->device->threads) if (rows->device->threads > 1)
  for (int64_t first = 0; first < rows->c; first += COLUMN_BLOCK) {
    const int64_t width = rows->c - first < COLUMN_BLOCK ? rows->c - first : COLUMN_BLOCK;
    double sums[COLUMN_BLOCK] = {0};
    for (int64_t part = 0; part < parts->count; part++) {
      const double *totals = parts->totals + (part * parts->kinds + kind) * parts->width + first;
      for (int64_t j = 0; j < width; j++) sums[j] += totals[j];
    }
    for (int64_t j = 0; j < width; j++) gradient[first + j] += (float)sums[j];
  }
}

static void norm_backward(Device *device, int64_t n, int64_t c, const Element *dy, const Element *x,
                          const Element *weight, const float *mean, const float *rstd, Element *dx,
                          float *dweight, float *dbias) {
  const NormRows rows = {device, n, c, dy, x, weight, mean, rstd, dx};
  NormParts parts;
  if (!norm_parts_alloc(&rows, dbias != NULL, &parts)) return;
#pragma omp parallel for num_threads(device->threads) if (device->threads > 1)
  for (int64_t part = 0; part < parts.count; part++) norm_part_backward(&rows, &parts, part);
  norm_add_parts(&rows, &parts, 0, dweight);
  if (dbias != NULL) norm_add_parts(&rows, &parts, 1, dbias);
  free(parts.totals);
}

#endif
