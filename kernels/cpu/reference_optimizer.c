/* Reference operations on floats alone: the sum of gradients, the sums of the loss and of the gradient norm,
 * and the AdamW update. */
#include <math.h>

#include "kernels/cpu/poll.h"
#include "kernels/cpu/reference.h"
#include "kernels/device.h"

void reference_add_f32(Device *device, int64_t count, const float *x, float *y) {
#pragma omp parallel for num_threads(device->threads) if (device->threads > 1)
  for (int64_t first = 0; first < count; first += POLL_ELEMENTS) {
    const int64_t end = poll_piece(device, first, count);
    for (int64_t i = first; i < end; i++) y[i] += x[i];
  }
}

/* Adds x, or its squares, to *sum: in pieces whose number does not depend on the threads. */
static void add_to_sum(Device *device, bool squares, int64_t count, const float *x, double *sum) {
  double pieces[SUM_PIECES] = {0};
  const int64_t length = (count + SUM_PIECES - 1) / SUM_PIECES;
#pragma omp parallel for num_threads(device->threads) if (device->threads > 1)
  for (int64_t piece = 0; piece < SUM_PIECES; piece++) {
    const int64_t last = (piece + 1) * length < count ? (piece + 1) * length : count;
    double total = 0;
    for (int64_t first = piece * length; first < last; first += POLL_ELEMENTS) {
      const int64_t end = poll_piece(device, first, last);
      for (int64_t i = first; i < end; i++) total += squares ? (double)x[i] * (double)x[i] : (double)x[i];
    }
    pieces[piece] = total;
  }
  double total = 0;
  for (int piece = 0; piece < SUM_PIECES; piece++) total += pieces[piece];
  *sum += total;
}

void reference_sum(Device *device, int64_t count, const float *x, double *sum) {
  add_to_sum(device, false, count, x, sum);
}

void reference_sum_of_squares(Device *device, int64_t count, const float *x, double *sum) {
  add_to_sum(device, true, count, x, sum);
}

/* m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g^2; w -= lr (mhat / (sqrt(vhat) + eps) + wd w), where mhat and
 * vhat are m and v over 1 - b^step. */
void reference_adamw(Device *device, const AdamwStep *step, int64_t count, const float *gradient,
                     float *weights, float *m, float *v) {
  const double beta1 = (double)step->beta1;
  const double beta2 = (double)step->beta2;
  const double correction1 = 1.0 / (1.0 - pow(beta1, (double)step->step));
  const double correction2 = 1.0 / (1.0 - pow(beta2, (double)step->step));
#pragma omp parallel for num_threads(device->threads) if (device->threads > 1)
  for (int64_t first = 0; first < count; first += POLL_ELEMENTS) {
    const int64_t end = poll_piece(device, first, count);
    for (int64_t i = first; i < end; i++) {
      const double g = (double)gradient[i] * (double)step->gradient_scale;
      m[i] = (float)(beta1 * (double)m[i] + (1.0 - beta1) * g);
      v[i] = (float)(beta2 * (double)v[i] + (1.0 - beta2) * g * g);
      const double direction =
          (double)m[i] * correction1 / (sqrt((double)v[i] * correction2) + (double)step->eps);
      const double weight = (double)weights[i];
      weights[i] =
          (float)(weight - (double)step->learning_rate * (direction + (double)step->weight_decay * weight));
    }
  }
}
