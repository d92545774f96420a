/* Vectorised sum of gradients, gradient norm and AdamW update: the bodies for any width of
 * kernels/cpu/vector.h. */
#ifndef RINGGPT_CPU_VECTOR_OPTIMIZER_H
#define RINGGPT_CPU_VECTOR_OPTIMIZER_H

#include <math.h>

#include "kernels/cpu/poll.h"
#include "kernels/cpu/reference.h"
#include "kernels/cpu/vector.h"
#include "kernels/device.h"

static void vector_add_f32(Device *device, int64_t count, const float *x, float *y) {
#pragma omp parallel for num_threads(device->threads) if (device->threads > 1)
  for (int64_t first = 0; first < count; first += POLL_ELEMENTS) {
    const int64_t end = poll_piece(device, first, count);
    for (int64_t i = first; i < end; i += VECTOR_FLOATS) {
      vector_store(y + i, vector_load(y + i, count - i) + vector_load(x + i, count - i), count - i);
    }
  }
}

/* Floats between those that are summed and those that are asked for meanwhile: nothing but their arrival
 * takes time. */
#define SUM_AHEAD 1024

static void vector_sum_of_squares(Device *device, int64_t count, const float *x, double *sum) {
  double pieces[SUM_PIECES] = {0};
  const int64_t length = (count + SUM_PIECES - 1) / SUM_PIECES;
#pragma omp parallel for num_threads(device->threads) if (device->threads > 1)
  for (int64_t piece = 0; piece < SUM_PIECES; piece++) {
    const int64_t last = (piece + 1) * length < count ? (piece + 1) * length : count;
    DoubleSum total = double_sum_zero();
    for (int64_t first = piece * length; first < last; first += POLL_ELEMENTS) {
      const int64_t end = poll_piece(device, first, last);
      for (int64_t i = first; i < end; i += VECTOR_FLOATS) {
        _mm_prefetch((const char *)(x + i + SUM_AHEAD), _MM_HINT_T0);
        const Vector value = vector_load(x + i, last - i);
        double_sum_add_product(&total, value, value);
      }
    }
    pieces[piece] = double_sum_total(&total);
  }
  double total = 0;
  for (int piece = 0; piece < SUM_PIECES; piece++) total += pieces[piece];
  *sum += total;
}

/* The equations are those of reference_adamw; factors that hold for the whole step are made in double. */
static void vector_adamw(Device *device, const AdamwStep *step, int64_t count, const float *gradient,
                         float *weights, float *m, float *v) {
  const double beta1 = (double)step->beta1;
  const double beta2 = (double)step->beta2;
  const Vector keep1 = vector_set(step->beta1);
  const Vector keep2 = vector_set(step->beta2);
  const Vector take1 = vector_set((float)(1.0 - beta1));
  const Vector take2 = vector_set((float)(1.0 - beta2));
  const Vector correction1 = vector_set((float)(1.0 / (1.0 - pow(beta1, (double)step->step))));
  const Vector correction2 = vector_set((float)(1.0 / (1.0 - pow(beta2, (double)step->step))));
  const Vector eps = vector_set(step->eps);
  const Vector rate = vector_set(-step->learning_rate);
  const Vector decay = vector_set(step->weight_decay);
  const Vector gradient_scale = vector_set(step->gradient_scale);
#pragma omp parallel for num_threads(device->threads) if (device->threads > 1)
  for (int64_t first = 0; first < count; first += POLL_ELEMENTS) {
    const int64_t end = poll_piece(device, first, count);
    for (int64_t i = first; i < end; i += VECTOR_FLOATS) {
      const Vector g = gradient_scale * vector_load(gradient + i, count - i);
      const Vector moment = vector_multiply_add(take1, g, keep1 * vector_load(m + i, count - i));
      const Vector square = vector_multiply_add(take2 * g, g, keep2 * vector_load(v + i, count - i));
      const Vector direction = moment * correction1 / (vector_sqrt(square * correction2) + eps);
      const Vector weight = vector_load(weights + i, count - i);
      const Vector change = vector_multiply_add(decay, weight, direction);
      vector_store(weights + i, vector_multiply_add(rate, change, weight), count - i);
      vector_store(m + i, moment, count - i);
      vector_store(v + i, square, count - i);
    }
  }
}

#endif
