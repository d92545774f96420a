/* Reference operation: dropout: the body for any elements. */
#ifndef RINGGPT_CPU_REFERENCE_DROPOUT_H
#define RINGGPT_CPU_REFERENCE_DROPOUT_H

#include "kernels/base/philox.h"
#include "kernels/cpu/element.h"
#include "kernels/cpu/poll.h"
#include "kernels/device.h"

static void reference_dropout(Device *device, int64_t n, int64_t c, const DropoutKey *key,
                              const int64_t *rows, const elem *x, elem *y) {
  const Element *in = x; /* (n, c) */
  Element *out = y;      /* (n, c) */
  const int64_t blocks = (c + 3) / 4;
#pragma omp parallel for num_threads(device->threads) if (device->threads > 1)
  for (int64_t i = 0; i < n; i++) {
    poll_within(device, i, 2 * c);
    const uint64_t first = (uint64_t)rows[i] * (uint64_t)blocks;
    uint32_t words[4];
    for (int64_t j = 0; j < c; j++) {
      if (j % 4 == 0) philox_draw(key->seed, PHILOX_DROPOUT, key->stream, first + (uint64_t)j / 4, words);
      const bool kept = words[j % 4] >= key->threshold;
      out[i * c + j] = from_float(kept ? key->scale * to_float(in[i * c + j]) : 0.0F);
    }
  }
}

#endif
