/* Vectors of elements (kernels/cpu/element.h), read to floats and rounded from them: by the instruction for
 * it where the flags allow it, otherwise in whole numbers, which every CPU with the vectors of
 * kernels/cpu/vector.h has. A `count` below VECTOR_FLOATS touches the first
 * elements only. */
#ifndef RINGGPT_CPU_VECTOR_ELEMENT_H
#define RINGGPT_CPU_VECTOR_ELEMENT_H

#include "kernels/cpu/element.h"
#include "kernels/cpu/vector.h"

#ifdef ELEMENTS_ARE_BF16

/* Eight elements as floats. */
static inline __m256 eight_load(const Element *p) {
  const __m128i bits = _mm_loadu_si128((const __m128i *)(const void *)p);
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}

#if defined(__AVX512BF16__)

/* Rounds as from_float does, except that subnormal numbers become 0. */
static inline __m128i eight_round_to_bf16(__m256 x) {
  return (__m128i)_mm256_cvtneps_pbh(x);
}

#else

/* Rounds as from_float does. */
static inline __m128i eight_round_to_bf16(__m256 x) {
  const __m256i bits = _mm256_castps_si256(x);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i nearest = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7FFF)));
  const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
  const __m256i no_number = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
  const __m256i upper = _mm256_srli_epi32(_mm256_blendv_epi8(nearest, quiet, no_number), 16);
  return _mm_packus_epi32(_mm256_castsi256_si128(upper), _mm256_extracti128_si256(upper, 1));
}

#endif

static inline void eight_store(Element *p, __m256 x) {
  _mm_storeu_si128((__m128i *)(void *)p, eight_round_to_bf16(x));
}

#else

static inline __m256 eight_load(const Element *p) {
  return _mm256_loadu_ps(p);
}

static inline void eight_store(Element *p, __m256 x) {
  _mm256_storeu_ps(p, x);
}

#endif

#ifndef ELEMENTS_ARE_BF16

static inline Vector vector_load_elements(const Element *p, int64_t count) {
  return vector_load(p, count);
}

static inline void vector_store_elements(Element *p, Vector x, int64_t count) {
  vector_store(p, x, count);
}

#elif defined(__AVX512F__)

static inline Vector vector_load_elements(const Element *p, int64_t count) {
  const __m256i bits = count >= VECTOR_FLOATS ? _mm256_loadu_si256((const __m256i *)(const void *)p)
                                              : _mm256_maskz_loadu_epi16((__mmask16)((1U << count) - 1U), p);
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}

#if defined(__AVX512BF16__)

/* Rounds as from_float does, except that subnormal numbers become 0. */
static inline __m256i vector_round_to_bf16(Vector x) {
  return (__m256i)_mm512_cvtneps_pbh(x);
}

#else

/* Rounds as from_float does. */
static inline __m256i vector_round_to_bf16(Vector x) {
  const __m512i bits = _mm512_castps_si512(x);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i nearest = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7FFF)));
  const __mmask16 no_number = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
  const __m512i upper = _mm512_mask_or_epi32(nearest, no_number, bits, _mm512_set1_epi32(0x400000));
  return _mm512_cvtepi32_epi16(_mm512_srli_epi32(upper, 16));
}

#endif

static inline void vector_store_elements(Element *p, Vector x, int64_t count) {
  const __m256i bits = vector_round_to_bf16(x);
  if (count >= VECTOR_FLOATS) {
    _mm256_storeu_si256((__m256i *)(void *)p, bits);
  } else {
    _mm256_mask_storeu_epi16(p, (__mmask16)((1U << count) - 1U), bits);
  }
}

#else

/* AVX2 masks nothing smaller than 32 bits: a part of a vector goes through memory. */
static inline Vector vector_load_elements(const Element *p, int64_t count) {
  Element part[VECTOR_FLOATS] = {{0}};
  if (count < VECTOR_FLOATS) p = memcpy(part, p, (size_t)count * sizeof *p);
  return eight_load(p);
}

static inline void vector_store_elements(Element *p, Vector x, int64_t count) {
  const __m128i bits = eight_round_to_bf16(x);
  if (count >= VECTOR_FLOATS) {
    _mm_storeu_si128((__m128i *)(void *)p, bits);
  } else {
    memcpy(p, &bits, (size_t)count * sizeof *p);
  }
}

#endif

/* The same for a group: `count` elements of as many vectors as `vectors`. */
GROUP_INLINE void group_load_elements(int vectors, const Element *p, int64_t count, Vector *x) {
  for (int k = 0; k < vectors; k++) {
    x[k] = vector_load_elements(p + k * VECTOR_FLOATS, count - k * VECTOR_FLOATS);
  }
}

GROUP_INLINE void group_store_elements(int vectors, Element *p, const Vector *x, int64_t count) {
  for (int k = 0; k < vectors; k++) {
    vector_store_elements(p + k * VECTOR_FLOATS, x[k], count - k * VECTOR_FLOATS);
  }
}

/* Asks for the elements of a group to come into the first cache. Without effect past the end of an array. */
GROUP_INLINE void group_prefetch(const Element *p) {
  for (size_t byte = 0; byte < GROUP_FLOATS * sizeof *p; byte += 64) {
    _mm_prefetch((const char *)p + byte, _MM_HINT_T0);
  }
}

#endif
