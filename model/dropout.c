/* Dropout: the keys of its masks. */
#include "model/dropout.h"

#include <math.h>

uint32_t dropout_attention(int64_t layer) {
  return (uint32_t)(1 + 2 * layer);
}

uint32_t dropout_mlp(int64_t layer) {
  return (uint32_t)(2 + 2 * layer);
}

DropoutKey dropout_key(double p, uint64_t seed, uint32_t place) {
  return (DropoutKey){.seed = seed,
                      .stream = place,
                      .threshold = (uint32_t)fmin(nearbyint(p * 0x1p32), 0x1p32 - 1.0),
                      .scale = (float)(1.0 / (1.0 - p))};
}

void dropout_token_numbers(int64_t first_draw, int64_t sequence_length, int64_t n, int64_t local_length,
                           int64_t *rows) {
  for (int64_t i = 0; i < n; i++) rows[i] += (first_draw + i / local_length) * sequence_length;
}
