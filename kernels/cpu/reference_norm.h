/* Reference operations: LayerNorm and RMSNorm: the bodies for any elements. RMSNorm is LayerNorm without mean
 * and bias, so that one forward and one backward serve both. Statistics and sums are taken in double. */
#ifndef RINGGPT_CPU_REFERENCE_NORM_H
#define RINGGPT_CPU_REFERENCE_NORM_H

#include <math.h>

#include "kernels/cpu/columns.h"
#include "kernels/cpu/element.h"
#include "kernels/cpu/norm_entries.h"
#include "kernels/cpu/poll.h"
#include "kernels/device.h"

/* x += residual. */
static void row_add(int64_t c, const Element *residual, Element *x) {
  for (int64_t j = 0; j < c; j++) x[j] = from_float(to_float(x[j]) + to_float(residual[j]));
}

static double row_mean(int64_t c, const Element *x) {
  double sum = 0;
  for (int64_t j = 0; j < c; j++) sum += (double)to_float(x[j]);
  return sum / (double)c;
}

/* Mean of the squares of x - centre. */
static double row_variance(int64_t c, const Element *x, double centre) {
  double sum = 0;
  for (int64_t j = 0; j < c; j++)
    sum += ((double)to_float(x[j]) - centre) * ((double)to_float(x[j]) - centre);
  return sum / (double)c;
}

static void norm_forward(const Device *device, int64_t n, int64_t c, float eps, const Element *residual,
                         Element *x, const Element *weight, const Element *bias, Element *y, float *mean,
                         float *rstd) {
#pragma omp parallel for num_threads(device->threads) if (device->threads > 1)
  for (int64_t i = 0; i < n; i++) {
    poll_within(device, i, c);
    Element *row = x + i * c;
    if (residual != NULL) row_add(c, residual + i * c, row);
    const double centre = mean != NULL ? row_mean(c, row) : 0.0;
    const double scale = 1.0 / sqrt(row_variance(c, row, centre) + (double)eps);
    for (int64_t j = 0; j < c; j++) {
      const double normal = ((double)to_float(row[j]) - centre) * scale;
      const double offset = bias != NULL ? (double)to_float(bias[j]) : 0.0;
      y[i * c + j] = from_float((float)(normal * (double)to_float(weight[j]) + offset));
    }
    if (mean != NULL) mean[i] = (float)centre;
    rstd[i] = (float)scale;
  }
}

/* dx += rstd (g - mean(g) - xhat mean(g xhat)) with g = dy weight and xhat = (x - mean) rstd; the term
 * mean(g) comes from centring and goes with it. */
static void norm_backward_input(const Device *device, int64_t n, int64_t c, const Element *dy,
                                const Element *x, const Element *weight, const float *mean, const float *rstd,
                                Element *dx) {
#pragma omp parallel for num_threads(device->threads) if (device->threads > 1)
  for (int64_t i = 0; i < n; i++) {
    poll_within(device, i, c);
    const double centre = mean != NULL ? (double)mean[i] : 0.0;
    const double scale = (double)rstd[i];
    double sum_g = 0;
    double sum_g_xhat = 0;
    for (int64_t j = 0; j < c; j++) {
      const double g = (double)to_float(dy[i * c + j]) * (double)to_float(weight[j]);
      sum_g += g;
      sum_g_xhat += g * ((double)to_float(x[i * c + j]) - centre) * scale;
    }
    const double mean_g = mean != NULL ? sum_g / (double)c : 0.0;
    const double mean_g_xhat = sum_g_xhat / (double)c;
    for (int64_t j = 0; j < c; j++) {
      const double g = (double)to_float(dy[i * c + j]) * (double)to_float(weight[j]);
      const double xhat = ((double)to_float(x[i * c + j]) - centre) * scale;
      const float change = (float)(scale * (g - mean_g - xhat * mean_g_xhat));
      dx[i * c + j] = from_float(to_float(dx[i * c + j]) + change);
    }
  }
}

/* dweight += the column sums of dy xhat. */
static void norm_backward_weight(const Device *device, int64_t n, int64_t c, const Element *dy,
                                 const Element *x, const float *mean, const float *rstd, float *dweight) {
  const int64_t blocks = (c + COLUMN_BLOCK - 1) / COLUMN_BLOCK;
#pragma omp parallel for num_threads(device->threads) if (device->threads > 1)
  for (int64_t block = 0; block < blocks; block++) {
    const int64_t first = block * COLUMN_BLOCK;
    const int64_t width = c - first < COLUMN_BLOCK ? c - first : COLUMN_BLOCK;
    double sums[COLUMN_BLOCK] = {0};
    for (int64_t i = 0; i < n; i++) {
      poll_within(device, i, width);
      const double centre = mean != NULL ? (double)mean[i] : 0.0;
      for (int64_t j = 0; j < width; j++) {
        const int64_t at = i * c + first + j;
        sums[j] += (double)to_float(dy[at]) * ((double)to_float(x[at]) - centre) * (double)rstd[i];
      }
    }
    for (int64_t j = 0; j < width; j++) dweight[first + j] += (float)sums[j];
  }
}

static void norm_backward(Device *device, int64_t n, int64_t c, const Element *dy, const Element *x,
                          const Element *weight, const float *mean, const float *rstd, Element *dx,
                          float *dweight, float *dbias) {
  norm_backward_input(device, n, c, dy, x, weight, mean, rstd, dx);
  norm_backward_weight(device, n, c, dy, x, mean, rstd, dweight);
  if (dbias != NULL) columns_add(device, n, c, c, dy, dbias);
}

#endif
