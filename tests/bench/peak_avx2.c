/* Float multiply-adds of AVX2, which has 16 registers: 12 sums cover two units of latency 5. */
#if defined(__AVX2__) && defined(__FMA__)

#include <immintrin.h>

#include "tests/bench/peak_kernel.h"

typedef __m256 Sum;
typedef __m256 Factor;
#define ADD_PRODUCT(sum, factor) _mm256_fmadd_ps(factor, factor, sum)
#define SUMS 12
#define FACTOR _mm256_set1_ps(0.75F)
#define REGISTER "x"

#include "tests/bench/peak_loop.h"

const PeakKernel peak_fma_avx2 = {"AVX2 multiply-add", 2 * 8, SUMS, run};

#endif
