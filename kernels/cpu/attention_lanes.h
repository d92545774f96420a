/* What attention on vector registers is written in, for AVX2 and AVX-512: how many queries and keys its
 * register tiles hold, comparisons of lanes, and the power of two. The lanes of a vector are queries. */
#ifndef RINGGPT_CPU_ATTENTION_LANES_H
#define RINGGPT_CPU_ATTENTION_LANES_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>

#include "kernels/cpu/vector.h"

#if defined(__AVX512F__)

/* Of a register tile: sixteen accumulators of 32 registers, or twelve of sixteen. */
enum { ROWS = 8, PANEL_VECTORS = 2 };

/* One truth value a lane. */
typedef __mmask16 Mask;

static inline Mask mask_all(void) {
  return 0xFFFF;
}

static inline Mask mask_and(Mask a, Mask b) {
  return a & b;
}

static inline bool mask_any(Mask mask) {
  return mask != 0;
}

static inline bool mask_every(Mask mask) {
  return mask == 0xFFFF;
}

static inline Mask lanes_equal(Vector x, Vector y) {
  return _mm512_cmp_ps_mask(x, y, _CMP_EQ_OQ);
}

static inline Mask lanes_at_least(Vector x, Vector y) {
  return _mm512_cmp_ps_mask(x, y, _CMP_GE_OQ);
}

static inline Mask lanes_below(const int32_t *first, const int32_t *last) {
  return _mm512_cmplt_epi32_mask(_mm512_loadu_si512(first), _mm512_loadu_si512(last));
}

/* first <= index < last. */
static inline Mask lanes_within(const int32_t *first, int32_t index, const int32_t *last) {
  const __m512i indices = _mm512_set1_epi32(index);
  return _mm512_mask_cmpgt_epi32_mask(_mm512_cmple_epi32_mask(_mm512_loadu_si512(first), indices),
                                      _mm512_loadu_si512(last), indices);
}

/* x where the mask holds, else `otherwise`. */
static inline Vector lanes_choose(Mask mask, Vector x, Vector otherwise) {
  return _mm512_mask_mov_ps(otherwise, mask, x);
}

/* The fraction of x above the next whole number below, in [0, 1). */
static inline Vector lanes_fraction(Vector x) {
  return _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF);
}

/* y 2^floor(x). */
static inline Vector lanes_scale(Vector y, Vector x) {
  return _mm512_scalef_ps(y, x);
}

#else

enum { ROWS = 4, PANEL_VECTORS = 3 };

typedef __m256 Mask;

static inline Mask mask_all(void) {
  return _mm256_castsi256_ps(_mm256_set1_epi32(-1));
}

static inline Mask mask_and(Mask a, Mask b) {
  return _mm256_and_ps(a, b);
}

static inline bool mask_any(Mask mask) {
  return _mm256_movemask_ps(mask) != 0;
}

static inline bool mask_every(Mask mask) {
  return _mm256_movemask_ps(mask) == 0xFF;
}

static inline Mask lanes_equal(Vector x, Vector y) {
  return _mm256_cmp_ps(x, y, _CMP_EQ_OQ);
}

static inline Mask lanes_at_least(Vector x, Vector y) {
  return _mm256_cmp_ps(x, y, _CMP_GE_OQ);
}

static inline __m256i lanes_load_whole(const int32_t *p) {
  return _mm256_loadu_si256((const __m256i *)(const void *)p);
}

static inline Mask lanes_below(const int32_t *first, const int32_t *last) {
  return _mm256_castsi256_ps(_mm256_cmpgt_epi32(lanes_load_whole(last), lanes_load_whole(first)));
}

/* first <= index < last. */
static inline Mask lanes_within(const int32_t *first, int32_t index, const int32_t *last) {
  const __m256i indices = _mm256_set1_epi32(index);
  const __m256i before = _mm256_cmpgt_epi32(lanes_load_whole(first), indices);
  const __m256i within = _mm256_cmpgt_epi32(lanes_load_whole(last), indices);
  return _mm256_castsi256_ps(_mm256_andnot_si256(before, within));
}

/* x where the mask holds, else `otherwise`. */
static inline Vector lanes_choose(Mask mask, Vector x, Vector otherwise) {
  return _mm256_blendv_ps(otherwise, x, mask);
}

/* Exponents that a float has without becoming subnormal or infinite. What is not a number passes: it is the
 * second operand. */
static inline Vector lanes_exponent(Vector x) {
  return _mm256_floor_ps(_mm256_min_ps(_mm256_set1_ps(127.0F), _mm256_max_ps(_mm256_set1_ps(-126.0F), x)));
}

/* The fraction of x above the next whole number below, in [0, 1). */
static inline Vector lanes_fraction(Vector x) {
  return _mm256_min_ps(_mm256_set1_ps(127.0F), _mm256_max_ps(_mm256_set1_ps(-126.0F), x)) - lanes_exponent(x);
}

/* y 2^floor(x) for y of about 1 to 2 and x below 128, which x passes for; 0 below the normal numbers. */
static inline Vector lanes_scale(Vector y, Vector x) {
  const __m256i bits = _mm256_slli_epi32(_mm256_cvtps_epi32(lanes_exponent(x)), 23);
  const Vector scaled = _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(y), bits));
  return _mm256_and_ps(_mm256_cmp_ps(x, _mm256_set1_ps(-126.0F), _CMP_NLT_UQ), scaled);
}

#endif

/* Queries of a panel. */
enum { PANEL = PANEL_VECTORS * VECTOR_FLOATS };

static inline float sum_of_eight(__m256 x) {
  __m128 four = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  four = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(four, _mm_movehdup_ps(four)));
}

/* A whole vector. */
static inline Vector lanes_load(const float *p) {
  return vector_load(p, VECTOR_FLOATS);
}

static inline void lanes_store(float *p, Vector x) {
  vector_store(p, x, VECTOR_FLOATS);
}

/* 2^x by a polynomial on the fraction of x with the smallest largest relative error, scaled by 2^floor(x).
 * -inf gives 0, what passes 2^127 gives 2^127 at least, what is not a number stays so. Degree
 * 5: 7.5e-8, 2.2e-7 with the rounding of its steps; `coarse`, of degree 3, for a result that is rounded to
 * bf16: 7.5e-5. */
static inline __attribute__((always_inline)) Vector lanes_exp2(Vector x, bool coarse) {
  const Vector fraction = lanes_fraction(x);
  Vector y;
  if (coarse) {
    y = vector_set(7.8024523e-2F);
    y = vector_multiply_add(y, fraction, vector_set(2.2606716e-1F));
    y = vector_multiply_add(y, fraction, vector_set(6.9583354e-1F));
    y = vector_multiply_add(y, fraction, vector_set(9.9992522e-1F));
    return lanes_scale(y, x);
  }
  y = vector_set(1.8775767e-3F);
  y = vector_multiply_add(y, fraction, vector_set(8.9893401e-3F));
  y = vector_multiply_add(y, fraction, vector_set(5.5826318e-2F));
  y = vector_multiply_add(y, fraction, vector_set(2.4015362e-1F));
  y = vector_multiply_add(y, fraction, vector_set(6.9315307e-1F));
  y = vector_multiply_add(y, fraction, vector_set(9.9999993e-1F));
  return lanes_scale(y, x);
}

#endif
