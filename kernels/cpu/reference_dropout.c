/* Reference operation: dropout. */
#include "kernels/base/philox.h"
#include "kernels/cpu/poll.h"
#include "kernels/cpu/reference.h"
#include "kernels/device.h"

void reference_dropout(Device *device, int64_t n, int64_t c, const DropoutKey *key, const int64_t *rows,
                       const elem *x, elem *y) {
  const float *in = x; /* (n, c) */
  float *out = y;      /* (n, c) */
  const int64_t blocks = (c + 3) / 4;
#pragma omp parallel for num_threads(device->threads) if (device->threads > 1)
  for (int64_t i = 0; i < n; i++) {
    poll_within(device, i, 2 * c);
    const uint64_t first = (uint64_t)rows[i] * (uint64_t)blocks;
    uint32_t words[4];
    for (int64_t j = 0; j < c; j++) {
      if (j % 4 == 0) philox_draw(key->seed, PHILOX_DROPOUT, key->stream, first + (uint64_t)j / 4, words);
      out[i * c + j] = words[j % 4] >= key->threshold ? key->scale * in[i * c + j] : 0.0F;
    }
  }
}
