/* The random numbers behind every order that the emulator chooses: xorshift (G. Marsaglia, "Xorshift RNGs",
 * Journal of Statistical Software 8, 2003), started from EMULATOR_SEED. Guarded by the lock of streams.h. */
#ifndef RINGGPT_EMULATOR_RANDOM_H
#define RINGGPT_EMULATOR_RANDOM_H

#include <stdint.h>

namespace emulator {

extern uint64_t random_state;

inline uint32_t random_word(void) {
  random_state ^= random_state << 13;
  random_state ^= random_state >> 7;
  random_state ^= random_state << 17;
  return (uint32_t)(random_state >> 16);
}

/* Of 0 ... bound - 1, near enough to evenly. */
inline uint32_t random_below(uint32_t bound) {
  return (uint32_t)((uint64_t)random_word() * bound >> 32);
}

/* The number of a bit that is set in `bits`, which is not 0; each as likely, by the random `word`. */
inline int random_bit(uint32_t bits, uint32_t word) {
  uint32_t count =
      bits - (bits >> 1 & 0x55555555u); /* of the bits that are set: in pairs, fours, bytes, all */
  count = (count & 0x33333333u) + (count >> 2 & 0x33333333u);
  count = ((count + (count >> 4)) & 0x0F0F0F0Fu) * 0x01010101u >> 24;
  for (uint32_t skipped = (word & 0xFFFF) * count >> 16; skipped > 0; skipped--) bits &= bits - 1;
  return __builtin_ctz(bits);
}

} // namespace emulator

#endif
