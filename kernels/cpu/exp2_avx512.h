/* Two to the power of sixteen floats. */
#ifndef RINGGPT_CPU_EXP2_AVX512_H
#define RINGGPT_CPU_EXP2_AVX512_H

#include <immintrin.h>

/* 2^x by a polynomial on the fraction of x, of degree 5 with the smallest largest relative error
 * (7.5e-8, 2.2e-7 with the rounding of its steps), scaled by 2^floor(x). -inf gives 0, overflow gives +inf,
 * NaN stays NaN. */
static inline __m512 exp2_avx512(__m512 x) {
  const __m512 fraction = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF);
  __m512 y = _mm512_set1_ps(1.8775767e-3F);
  y = _mm512_fmadd_ps(y, fraction, _mm512_set1_ps(8.9893401e-3F));
  y = _mm512_fmadd_ps(y, fraction, _mm512_set1_ps(5.5826318e-2F));
  y = _mm512_fmadd_ps(y, fraction, _mm512_set1_ps(2.4015362e-1F));
  y = _mm512_fmadd_ps(y, fraction, _mm512_set1_ps(6.9315307e-1F));
  y = _mm512_fmadd_ps(y, fraction, _mm512_set1_ps(9.9999993e-1F));
  return _mm512_scalef_ps(y, x);
}

#endif
