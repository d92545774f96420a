/* Vectors of floats in the width that the compiler's flags allow: the words in which the vectorised
 * operations are written once, for AVX2 and for AVX-512. A `count` below VECTOR_FLOATS touches the first
 * elements only.
 *
 * Functions of a group take up to VECTOR_GROUP vectors through each step together: a CPU that waits for the
 * steps of one vector has the others' to go on with. VECTOR_GROUP is what fits the registers.
 *
 * Additions and products use the compiler's operators; multiply-add is always written out, as the build
 * forbids the compiler to contract. */
#ifndef RINGGPT_CPU_VECTOR_H
#define RINGGPT_CPU_VECTOR_H

#include <immintrin.h>
#include <stdint.h>

#if defined(__AVX512F__)

#define VECTOR_FLOATS 16
#define VECTOR_GROUP 4
typedef __m512 Vector;
typedef __m512d DoubleVector; /* half as many elements */

static inline Vector vector_set(float x) {
  return _mm512_set1_ps(x);
}

static inline Vector vector_load(const float *p, int64_t count) {
  if (count >= VECTOR_FLOATS) return _mm512_loadu_ps(p);
  return _mm512_maskz_loadu_ps((__mmask16)((1U << count) - 1U), p);
}

static inline void vector_store(float *p, Vector x, int64_t count) {
  if (count >= VECTOR_FLOATS) {
    _mm512_storeu_ps(p, x);
  } else {
    _mm512_mask_storeu_ps(p, (__mmask16)((1U << count) - 1U), x);
  }
}

/* a b + c, rounded once. */
static inline Vector vector_multiply_add(Vector a, Vector b, Vector c) {
  return _mm512_fmadd_ps(a, b, c);
}

/* The larger of each pair; b where either is not a number. */
static inline Vector vector_max(Vector a, Vector b) {
  return _mm512_max_ps(a, b);
}

static inline Vector vector_min(Vector a, Vector b) {
  return _mm512_min_ps(a, b);
}

/* a where x is below 0, else b. */
static inline Vector vector_select_negative(Vector x, Vector a, Vector b) {
  return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_LT_OQ), b, a);
}

static inline Vector vector_sqrt(Vector x) {
  return _mm512_sqrt_ps(x);
}

static inline float vector_largest(Vector x) {
  return _mm512_reduce_max_ps(x);
}

/* Without optimisation gcc's header makes this a macro, and warns its caller of the macro's mask. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wsign-conversion"
static inline Vector vector_round(Vector x) {
  return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
#pragma GCC diagnostic pop

/* x 2^n for whole numbers n. */
static inline Vector vector_scale(Vector x, Vector n) {
  return _mm512_scalef_ps(x, n);
}

static inline DoubleVector double_set(double x) {
  return _mm512_set1_pd(x);
}

static inline DoubleVector double_low(Vector x) {
  return _mm512_cvtps_pd(_mm512_castps512_ps256(x));
}

static inline DoubleVector double_high(Vector x) {
  return _mm512_cvtps_pd(_mm512_extractf32x8_ps(x, 1));
}

static inline DoubleVector double_multiply_add(DoubleVector a, DoubleVector b, DoubleVector c) {
  return _mm512_fmadd_pd(a, b, c);
}

static inline double double_total(DoubleVector x) {
  return _mm512_reduce_add_pd(x);
}

/* Both halves rounded to floats. */
static inline Vector double_round(DoubleVector low, DoubleVector high) {
  return _mm512_insertf32x8(_mm512_castps256_ps512(_mm512_cvtpd_ps(low)), _mm512_cvtpd_ps(high), 1);
}

#else

#define VECTOR_FLOATS 8
#define VECTOR_GROUP 2
typedef __m256 Vector;
typedef __m256d DoubleVector; /* half as many elements */

/* All ones in the first `count` elements. */
static inline __m256i vector_mask(int64_t count) {
  static const int32_t ones_and_zeros[2 * VECTOR_FLOATS] = {-1, -1, -1, -1, -1, -1, -1, -1};
  return _mm256_loadu_si256((const __m256i *)(const void *)(ones_and_zeros + VECTOR_FLOATS - count));
}

static inline Vector vector_set(float x) {
  return _mm256_set1_ps(x);
}

static inline Vector vector_load(const float *p, int64_t count) {
  return count >= VECTOR_FLOATS ? _mm256_loadu_ps(p) : _mm256_maskload_ps(p, vector_mask(count));
}

static inline void vector_store(float *p, Vector x, int64_t count) {
  if (count >= VECTOR_FLOATS) {
    _mm256_storeu_ps(p, x);
  } else {
    _mm256_maskstore_ps(p, vector_mask(count), x);
  }
}

/* a b + c, rounded once. */
static inline Vector vector_multiply_add(Vector a, Vector b, Vector c) {
  return _mm256_fmadd_ps(a, b, c);
}

/* The larger of each pair; b where either is not a number. */
static inline Vector vector_max(Vector a, Vector b) {
  return _mm256_max_ps(a, b);
}

static inline Vector vector_min(Vector a, Vector b) {
  return _mm256_min_ps(a, b);
}

/* a where x is below 0, else b. */
static inline Vector vector_select_negative(Vector x, Vector a, Vector b) {
  return _mm256_blendv_ps(b, a, x);
}

static inline Vector vector_sqrt(Vector x) {
  return _mm256_sqrt_ps(x);
}

static inline float vector_largest(Vector x) {
  __m128 four = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  four = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(four, _mm_movehdup_ps(four)));
}

static inline Vector vector_round(Vector x) {
  return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

/* 2^n for whole numbers n in [-126, 127]. */
static inline Vector vector_power_of_two(__m256i n) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(127)), 23));
}

/* x 2^n for whole numbers n in [-252, 254], in two steps so that neither factor leaves the range of a float.
 */
static inline Vector vector_scale(Vector x, Vector n) {
  const __m256i whole = _mm256_cvtps_epi32(n);
  const __m256i half = _mm256_srai_epi32(whole, 1);
  return x * vector_power_of_two(half) * vector_power_of_two(_mm256_sub_epi32(whole, half));
}

static inline DoubleVector double_set(double x) {
  return _mm256_set1_pd(x);
}

static inline DoubleVector double_low(Vector x) {
  return _mm256_cvtps_pd(_mm256_castps256_ps128(x));
}

static inline DoubleVector double_high(Vector x) {
  return _mm256_cvtps_pd(_mm256_extractf128_ps(x, 1));
}

static inline DoubleVector double_multiply_add(DoubleVector a, DoubleVector b, DoubleVector c) {
  return _mm256_fmadd_pd(a, b, c);
}

static inline double double_total(DoubleVector x) {
  const __m128d two = _mm_add_pd(_mm256_castpd256_pd128(x), _mm256_extractf128_pd(x, 1));
  return _mm_cvtsd_f64(two) + _mm_cvtsd_f64(_mm_unpackhi_pd(two, two));
}

/* Both halves rounded to floats. */
static inline Vector double_round(DoubleVector low, DoubleVector high) {
  return _mm256_set_m128(_mm256_cvtpd_ps(high), _mm256_cvtpd_ps(low));
}

#endif

#define GROUP_FLOATS (VECTOR_GROUP * VECTOR_FLOATS)

/* A running sum of vectors in double, element by element. */
typedef struct DoubleSum {
  DoubleVector low;
  DoubleVector high;
} DoubleSum;

static inline DoubleSum double_sum_zero(void) {
  return (DoubleSum){double_set(0), double_set(0)};
}

static inline void double_sum_add(DoubleSum *sum, Vector x) {
  sum->low += double_low(x);
  sum->high += double_high(x);
}

/* sum += a b, the products exact. */
static inline void double_sum_add_product(DoubleSum *sum, Vector a, Vector b) {
  sum->low = double_multiply_add(double_low(a), double_low(b), sum->low);
  sum->high = double_multiply_add(double_high(a), double_high(b), sum->high);
}

static inline double double_sum_total(const DoubleSum *sum) {
  return double_total(sum->low + sum->high);
}

/* For functions of a group: only inlined, with a `count` that is known there, are its vectors in registers.
 */
#define GROUP_INLINE static inline __attribute__((always_inline))

/* For each of `count` vectors, e^x with a relative error below 1e-7; 0 for -inf, inf above 88.7, not a number
 * for one. The argument is cut into n ln 2 + r, |r| <= ln 2 / 2 (ln 2 in two parts, W. Cody and W. Waite,
 * 1980), e^r is 1 + r + r^2 P(r) with a P of degree 4 fitted for the smallest relative error, 4e-9. */
GROUP_INLINE void group_exp(int count, Vector *x) {
  static const float factors[] = {0x1.123a6cp-7F, 0x1.5558f4p-5F, 0x1.55549p-3F, 0x1.fffffcp-2F};
  Vector n[VECTOR_GROUP];
  Vector p[VECTOR_GROUP];
  for (int k = 0; k < count; k++) x[k] = vector_min(vector_set(89.0F), vector_max(vector_set(-104.0F), x[k]));
  for (int k = 0; k < count; k++) n[k] = vector_round(x[k] * vector_set(1.44269504F));
  for (int k = 0; k < count; k++) x[k] = vector_multiply_add(n[k], vector_set(-0x1.62e4p-1F), x[k]);
  for (int k = 0; k < count; k++) x[k] = vector_multiply_add(n[k], vector_set(-0x1.7f7d1cp-20F), x[k]);
  for (int k = 0; k < count; k++) p[k] = vector_set(0x1.6a2352p-10F);
  for (int i = 0; i < 4; i++) {
    for (int k = 0; k < count; k++) p[k] = vector_multiply_add(p[k], x[k], vector_set(factors[i]));
  }
  for (int k = 0; k < count; k++) p[k] = vector_multiply_add(p[k], x[k] * x[k], x[k]);
  for (int k = 0; k < count; k++) x[k] = vector_scale(p[k] + vector_set(1.0F), n[k]);
}

/* For each of `count` vectors, 1 / (1 + e^-x). */
GROUP_INLINE void group_sigmoid(int count, Vector *x) {
  for (int k = 0; k < count; k++) x[k] = -x[k];
  group_exp(count, x);
  for (int k = 0; k < count; k++) x[k] = vector_set(1.0F) / (vector_set(1.0F) + x[k]);
}

/* For each of `count` vectors, the sigmoid s and its derivative s (1 - s), without taking s from 1 where it
 * is all but 1: with e = e^-|x| they are 1 / (1 + e), or e times that below 0, and e / (1 + e)^2. */
GROUP_INLINE void group_sigmoid_slope(int count, Vector *x, Vector *slope) {
  Vector e[VECTOR_GROUP];
  for (int k = 0; k < count; k++) e[k] = vector_min(x[k], -x[k]);
  group_exp(count, e);
  for (int k = 0; k < count; k++) {
    const Vector larger = vector_set(1.0F) / (vector_set(1.0F) + e[k]);
    const Vector smaller = e[k] * larger;
    slope[k] = smaller * larger;
    x[k] = vector_select_negative(x[k], smaller, larger);
  }
}

#endif
