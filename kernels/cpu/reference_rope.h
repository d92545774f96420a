/* Reference operation: rotary position embeddings: the body for any elements. */
#ifndef RINGGPT_CPU_REFERENCE_ROPE_H
#define RINGGPT_CPU_REFERENCE_ROPE_H

#include "kernels/cpu/element.h"
#include "kernels/cpu/poll.h"
#include "kernels/device.h"

static void reference_rope_apply(Device *device, int64_t n, int64_t heads, int64_t d, int64_t stride,
                                 const float *table, bool inverse, elem *x) {
  Element *rows = x; /* (n, heads, d), row stride `stride` */
  const int64_t half = d / 2;
  const float sign = inverse ? -1.0F : 1.0F;
#pragma omp parallel for num_threads(device->threads) if (device->threads > 1)
  for (int64_t i = 0; i < n; i++) {
    poll_within(device, i, heads * d);
    const float *cosines = table + i * d;
    const float *sines = cosines + half;
    for (int64_t h = 0; h < heads; h++) {
      Element *first = rows + i * stride + h * d;
      Element *second = first + half;
      for (int64_t j = 0; j < half; j++) {
        const float a = to_float(first[j]);
        const float b = to_float(second[j]);
        const float s = sign * sines[j];
        first[j] = from_float(a * cosines[j] - b * s);
        second[j] = from_float(b * cosines[j] + a * s);
      }
    }
  }
}

#endif
