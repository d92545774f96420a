/* Flush-to-zero in the threads of a device: MXCSR on x86, FPCR on aarch64. */
#include "kernels/cpu/float_mode.h"

#if defined(__SSE2__)

#include <immintrin.h>

/* Results to zero (bit 15), operands as zero (bit 6). */
#define FLUSH_BITS UINT64_C(0x8040)

static uint64_t mode_read(void) {
  return _mm_getcsr();
}

static void mode_write(uint64_t mode) {
  _mm_setcsr((unsigned)mode);
}

#elif defined(__aarch64__)

/* FZ: results and operands. */
#define FLUSH_BITS (UINT64_C(1) << 24)

static uint64_t mode_read(void) {
  uint64_t mode;
  __asm__ volatile("mrs %0, fpcr" : "=r"(mode));
  return mode;
}

static void mode_write(uint64_t mode) {
  __asm__ volatile("msr fpcr, %0" : : "r"(mode));
}

#else

#define FLUSH_BITS UINT64_C(0)

static uint64_t mode_read(void) {
  return 0;
}

static void mode_write(uint64_t mode) {
  (void)mode;
}

#endif

/* One iteration a thread. Should the team come out smaller, a thread with two of them changes its mode in the
 * first and finds nothing to change in the second. */
void float_mode_flush(int threads, uint64_t *changed) {
#pragma omp parallel for schedule(static, 1) num_threads(threads) if (threads > 1)
  for (int i = 0; i < threads; i++) {
    const uint64_t mode = mode_read();
    changed[i] = FLUSH_BITS & ~mode;
    mode_write(mode | FLUSH_BITS);
  }
}

void float_mode_restore(int threads, const uint64_t *changed) {
#pragma omp parallel for schedule(static, 1) num_threads(threads) if (threads > 1)
  for (int i = 0; i < threads; i++) mode_write(mode_read() & ~changed[i]);
}
