/* Reference operations: LayerNorm and RMSNorm. RMSNorm is LayerNorm without mean and bias, so that one
 * forward and one backward serve both. Statistics and sums are taken in double. */
#include <math.h>

#include "kernels/cpu/columns.h"
#include "kernels/cpu/poll.h"
#include "kernels/cpu/reference.h"
#include "kernels/device.h"

static double row_mean(int64_t c, const float *x) {
  double sum = 0;
  for (int64_t j = 0; j < c; j++) sum += (double)x[j];
  return sum / (double)c;
}

/* Mean of the squares of x - centre. */
static double row_variance(int64_t c, const float *x, double centre) {
  double sum = 0;
  for (int64_t j = 0; j < c; j++) sum += ((double)x[j] - centre) * ((double)x[j] - centre);
  return sum / (double)c;
}

/* A NULL mean leaves the mean out, a NULL bias the bias. */
static void norm_forward(const Device *device, int64_t n, int64_t c, float eps, const float *x,
                         const float *weight, const float *bias, float *y, float *mean, float *rstd) {
#pragma omp parallel for num_threads(device->threads) if (device->threads > 1)
  for (int64_t i = 0; i < n; i++) {
    poll_within(device, i, c);
    const float *row = x + i * c;
    const double centre = mean != NULL ? row_mean(c, row) : 0.0;
    const double scale = 1.0 / sqrt(row_variance(c, row, centre) + (double)eps);
    for (int64_t j = 0; j < c; j++) {
      const double normal = ((double)row[j] - centre) * scale;
      y[i * c + j] = (float)(normal * (double)weight[j] + (bias != NULL ? (double)bias[j] : 0.0));
    }
    if (mean != NULL) mean[i] = (float)centre;
    rstd[i] = (float)scale;
  }
}

/* dx += rstd (g - mean(g) - xhat mean(g xhat)) with g = dy weight and xhat = (x - mean) rstd; the term
 * mean(g) comes from centring and goes with it. */
static void norm_backward_input(const Device *device, int64_t n, int64_t c, const float *dy, const float *x,
                                const float *weight, const float *mean, const float *rstd, float *dx) {
#pragma omp parallel for num_threads(device->threads) if (device->threads > 1)
  for (int64_t i = 0; i < n; i++) {
    poll_within(device, i, c);
    const double centre = mean != NULL ? (double)mean[i] : 0.0;
    const double scale = (double)rstd[i];
    double sum_g = 0;
    double sum_g_xhat = 0;
    for (int64_t j = 0; j < c; j++) {
      const double g = (double)dy[i * c + j] * (double)weight[j];
      sum_g += g;
      sum_g_xhat += g * ((double)x[i * c + j] - centre) * scale;
    }
    const double mean_g = mean != NULL ? sum_g / (double)c : 0.0;
    const double mean_g_xhat = sum_g_xhat / (double)c;
    for (int64_t j = 0; j < c; j++) {
      const double g = (double)dy[i * c + j] * (double)weight[j];
      const double xhat = ((double)x[i * c + j] - centre) * scale;
      dx[i * c + j] += (float)(scale * (g - mean_g - xhat * mean_g_xhat));
    }
  }
}

/* dweight += the column sums of dy xhat. */
static void norm_backward_weight(const Device *device, int64_t n, int64_t c, const float *dy, const float *x,
                                 const float *mean, const float *rstd, float *dweight) {
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
        sums[j] += (double)dy[at] * ((double)x[at] - centre) * (double)rstd[i];
      }
    }
    for (int64_t j = 0; j < width; j++) dweight[first + j] += (float)sums[j];
  }
}

void reference_layernorm_forward(Device *device, int64_t n, int64_t c, float eps, const elem *x,
                                 const elem *weight, const elem *bias, elem *y, float *mean, float *rstd) {
  norm_forward(device, n, c, eps, x, weight, bias, y, mean, rstd);
}

void reference_layernorm_backward(Device *device, int64_t n, int64_t c, const elem *dy, const elem *x,
                                  const elem *weight, const float *mean, const float *rstd, elem *dx,
                                  float *dweight, float *dbias) {
  norm_backward_input(device, n, c, dy, x, weight, mean, rstd, dx);
  norm_backward_weight(device, n, c, dy, x, mean, rstd, dweight);
  columns_add(device, n, c, dy, dbias);
}

void reference_rmsnorm_forward(Device *device, int64_t n, int64_t c, float eps, const elem *x,
                               const elem *weight, elem *y, float *rstd) {
  norm_forward(device, n, c, eps, x, weight, NULL, y, NULL, rstd);
}

void reference_rmsnorm_backward(Device *device, int64_t n, int64_t c, const elem *dy, const elem *x,
                                const elem *weight, const float *rstd, elem *dx, float *dweight) {
  norm_backward_input(device, n, c, dy, x, weight, NULL, rstd, dx);
  norm_backward_weight(device, n, c, dy, x, NULL, rstd, dweight);
}
