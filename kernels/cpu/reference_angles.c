/* Reference operation: the angles of rotary position embeddings, floats in every table. */
#include <math.h>

#include "kernels/cpu/poll.h"
#include "kernels/cpu/reference.h"
#include "kernels/device.h"

/* The time of an angle in that of an element. */
#define ANGLE_ELEMENTS 64

/* Angles reach millions of radians at long contexts: in float they would be wrong by whole turns. */
void reference_rope_table(Device *device, int64_t n, int64_t d, const int64_t *positions,
                          const double *inverse_frequency, float *table) {
  const int64_t half = d / 2;
#pragma omp parallel for num_threads(device->threads) if (device->threads > 1)
  for (int64_t i = 0; i < n; i++) {
    poll_within(device, i, ANGLE_ELEMENTS * half);
    float *cosines = table + i * d;
    float *sines = cosines + half;
    for (int64_t j = 0; j < half; j++) {
      const double angle = (double)positions[i] * inverse_frequency[j];
      cosines[j] = (float)cos(angle);
      sines[j] = (float)sin(angle);
    }
  }
}
