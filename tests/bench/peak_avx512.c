/* The rate of fused multiply-adds in registers: what a product of matrices cannot pass. */
#if defined(__AVX512F__)

#include "tests/bench/peak_avx512.h"

#include <immintrin.h>
#include <stdint.h>
#include <time.h>

/* Enough independent sums to cover the latency of two units. */
#define SUMS 24
#define STEPS 2000000

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static float multiply_add(float start) {
  __m512 sums[SUMS];
  __m512 factor = _mm512_set1_ps(start);
  for (int i = 0; i < SUMS; i++) sums[i] = _mm512_set1_ps((float)i);
  for (int64_t step = 0; step < STEPS; step++) {
    __asm__ volatile("" : "+v"(factor)); /* keeps the loop from being computed in advance */
#pragma GCC unroll 24
    for (int i = 0; i < SUMS; i++) sums[i] = _mm512_fmadd_ps(factor, factor, sums[i]);
  }
  __m512 total = sums[0];
  for (int i = 1; i < SUMS; i++) total = _mm512_add_ps(total, sums[i]);
  return _mm512_reduce_add_ps(total);
}

double peak_avx512(int threads) {
  volatile float sink = 0;
  const double start = now();
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    const float result = multiply_add(0.5F);
#pragma omp critical
    sink += result;
  }
  const double flops = 2.0 * 16 * SUMS * STEPS * threads;
  return 1e-9 * flops / (now() - start);
}

#endif
