/* Vectorised rotary position embeddings: the body for any width of kernels/cpu/vector.h and any elements. */
#ifndef RINGGPT_CPU_VECTOR_ROPE_H
#define RINGGPT_CPU_VECTOR_ROPE_H

#include "kernels/cpu/poll.h"
#include "kernels/cpu/vector_element.h"
#include "kernels/device.h"

static void vector_rope_apply(Device *device, int64_t n, int64_t heads, int64_t d, int64_t stride,
                              const float *table, bool inverse, elem *x) {
  Element *rows = x; /* (n, heads, d), row stride `stride` */
  const int64_t half = d / 2;
  const Vector sign = vector_set(inverse ? -1.0F : 1.0F);
#pragma omp parallel for num_threads(device->threads) if (device->threads > 1)
  for (int64_t i = 0; i < n; i++) {
    poll_within(device, i, heads * d);
    const float *angles = table + i * d;
    for (int64_t j = 0; j < half; j += VECTOR_FLOATS) {
      const Vector cosine = vector_load(angles + j, half - j);
      const Vector sine = sign * vector_load(angles + half + j, half - j);
      for (int64_t h = 0; h < heads; h++) {
        Element *first = rows + i * stride + h * d + j;
        const Vector a = vector_load_elements(first, half - j);
        const Vector b = vector_load_elements(first + half, half - j);
        vector_store_elements(first, a * cosine - b * sine, half - j);
        vector_store_elements(first + half, b * cosine + a * sine, half - j);
      }
    }
  }
}

#endif
