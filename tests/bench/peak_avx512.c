/* Float multiply-adds of AVX-512. */
#if defined(__AVX512F__)

#include <immintrin.h>

#include "tests/bench/peak_kernel.h"

typedef __m512 Sum;
typedef __m512 Factor;
#define ADD_PRODUCT(sum, factor) _mm512_fmadd_ps(factor, factor, sum)
#define SUMS 24
#define FACTOR _mm512_set1_ps(0.75F)
#define REGISTER "v"

#include "tests/bench/peak_loop.h"

const PeakKernel peak_fma_avx512 = {"AVX-512 multiply-add", 2 * 16, SUMS, run};

#endif
