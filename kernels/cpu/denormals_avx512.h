/* Numbers too small for full precision as zero: probabilities that small change nothing and slow a CPU down.
 */
#ifndef RINGGPT_CPU_DENORMALS_AVX512_H
#define RINGGPT_CPU_DENORMALS_AVX512_H

#include <immintrin.h>

/* Switches denormal numbers off in this thread and returns the mode to restore. */
static inline unsigned denormals_off(void) {
  const unsigned mode = _mm_getcsr();
  _mm_setcsr(mode | 0x8040U); /* flush results to zero, take inputs as zero */
  return mode;
}

static inline void denormals_restore(unsigned mode) {
  _mm_setcsr(mode);
}

#endif
