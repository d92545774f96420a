/* Philox4x32-10, a counter-based random number generator. */
#include "kernels/base/philox.h"

#include <math.h>

static void philox_round(uint32_t state[4], uint32_t key0, uint32_t key1) {
  const uint64_t product0 = (uint64_t)PHILOX_MULTIPLIER_0 * state[0];
  const uint64_t product1 = (uint64_t)PHILOX_MULTIPLIER_1 * state[2];
  const uint32_t next0 = (uint32_t)(product1 >> 32) ^ state[1] ^ key0;
  const uint32_t next2 = (uint32_t)(product0 >> 32) ^ state[3] ^ key1;
  state[1] = (uint32_t)product1;
  state[3] = (uint32_t)product0;
  state[0] = next0;
  state[2] = next2;
}

void philox_block(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]) {
  uint32_t key0 = key[0];
  uint32_t key1 = key[1];
  for (int i = 0; i < 4; i++) out[i] = counter[i];
  for (int round = 0; round < PHILOX_ROUNDS; round++) {
    philox_round(out, key0, key1);
    key0 += PHILOX_KEY_STEP_0;
    key1 += PHILOX_KEY_STEP_1;
  }
}

void philox_draw(uint64_t seed, PhiloxPurpose purpose, uint32_t stream, uint64_t index, uint32_t out[4]) {
  const uint32_t counter[4] = {(uint32_t)index, (uint32_t)(index >> 32), stream, (uint32_t)purpose};
  const uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
  philox_block(counter, key, out);
}

void philox_normal_pair(uint32_t a, uint32_t b, double out[2]) {
  const double two_pi = 6.283185307179586476925286766559;
  /* (0, 1]: the logarithm never sees zero. */
  const double radius = sqrt(-2.0 * log(((double)a + 1.0) * 0x1p-32));
  const double angle = two_pi * ((double)b + 0.5) * 0x1p-32;
  out[0] = radius * cos(angle);
  out[1] = radius * sin(angle);
}
