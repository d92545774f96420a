/* The dot products of pairs of AVX-512 BF16. */
#if defined(__AVX512BF16__)

#include <immintrin.h>

#include "tests/bench/peak_kernel.h"

typedef __m512 Sum;
typedef __m512bh Factor;
#define ADD_PRODUCT(sum, factor) _mm512_dpbf16_ps(sum, factor, factor)
#define SUMS 24
#define FACTOR ((__m512bh)_mm512_set1_epi16(0x3f40))
#define REGISTER "v"

#include "tests/bench/peak_loop.h"

const PeakKernel peak_dot_avx512bf16 = {"AVX-512 bf16 dot product", 4 * 16, SUMS, run};

#endif
