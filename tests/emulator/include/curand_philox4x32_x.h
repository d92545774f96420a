/* Philox4x32-10 for kernels under the emulator: cuRAND's device function of that name, over the constants of
 * kernels/base/philox.h. J. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011. */
#ifndef RINGGPT_EMULATED_CURAND_PHILOX_H
#define RINGGPT_EMULATED_CURAND_PHILOX_H

#include <cuda_runtime.h>

#include "kernels/base/philox.h"

/* Four random words: the block of ten rounds over `counter` under `key`. */
static inline uint4 curand_Philox4x32_10(uint4 counter, uint2 key) {
  for (int round = 0; round < PHILOX_ROUNDS; round++) {
    counter = make_uint4(
        __umulhi(PHILOX_MULTIPLIER_1, counter.z) ^ counter.y ^ key.x, PHILOX_MULTIPLIER_1 * counter.z,
        __umulhi(PHILOX_MULTIPLIER_0, counter.x) ^ counter.w ^ key.y, PHILOX_MULTIPLIER_0 * counter.x);
    key = make_uint2(key.x + PHILOX_KEY_STEP_0, key.y + PHILOX_KEY_STEP_1);
  }
  return counter;
}

#endif
