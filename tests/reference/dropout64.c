/* Dropout in float64, with a Philox4x32-10 of its own. */
#include "tests/reference/dropout64.h"

#include <math.h>
#include <stddef.h>

/* The key of round i is the key plus i times Weyl's constants. A round sends (L0, R0, L1, R1) to
 * (high(M1 L1) ^ R0 ^ k0, low(M1 L1), high(M0 L0) ^ R1 ^ k1, low(M0 L0)). */
void ref_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t words[4]) {
  const uint64_t m0 = 3528531795U;
  const uint64_t m1 = 3449720151U;
  const uint64_t low = 4294967295U;
  uint64_t l0 = counter[0], r0 = counter[1], l1 = counter[2], r1 = counter[3];
  for (uint64_t i = 0; i < 10; i++) {
    const uint64_t k0 = (key[0] + i * 2654435769U) & low;
    const uint64_t k1 = (key[1] + i * 3144134277U) & low;
    const uint64_t a = m0 * l0;
    const uint64_t b = m1 * l1;
    l0 = (b >> 32) ^ r0 ^ k0;
    r0 = b & low;
    l1 = (a >> 32) ^ r1 ^ k1;
    r1 = a & low;
  }
  words[0] = (uint32_t)l0;
  words[1] = (uint32_t)r0;
  words[2] = (uint32_t)l1;
  words[3] = (uint32_t)r1;
}

uint32_t ref_dropout_word(uint64_t seed, uint32_t place, int64_t token, int64_t columns, int64_t column) {
  enum { DROPOUT = 4 };
  const uint64_t block = (uint64_t)token * (uint64_t)((columns + 3) / 4) + (uint64_t)(column / 4);
  const uint32_t counter[4] = {(uint32_t)(block % 4294967296U), (uint32_t)(block / 4294967296U), place,
                               DROPOUT};
  const uint32_t key[2] = {(uint32_t)(seed % 4294967296U), (uint32_t)(seed / 4294967296U)};
  uint32_t words[4];
  ref_philox(counter, key, words);
  return words[column % 4];
}

double ref_dropout_factor(double p, uint64_t seed, uint32_t place, int64_t token, int64_t columns,
                          int64_t column) {
  const double limit = fmin(floor(p * 4294967296.0 + 0.5), 4294967295.0);
  const uint32_t word = ref_dropout_word(seed, place, token, columns, column);
  return (double)word < limit ? 0.0 : 1.0 / (1.0 - p);
}

void ref_dropout(const RefDropout *dropout, uint32_t place, RefMatrix x) {
  if (dropout == NULL) return;
  for (int64_t t = 0; t < x.rows; t++) {
    for (int64_t j = 0; j < x.cols; j++) {
      x.at[t * x.stride + j] *=
          ref_dropout_factor(dropout->p, dropout->seed, place, dropout->first_token + t, x.cols, j);
    }
  }
}
