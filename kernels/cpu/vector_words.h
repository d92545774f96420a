/* Vectors of random words: Philox4x32-10 for as many blocks at once as a vector has pairs of 32-bit elements.
 * A state word lies in the low half of its pair; the high halves hold what the products left there, which no
 * step reads. */
#ifndef RINGGPT_CPU_VECTOR_WORDS_H
#define RINGGPT_CPU_VECTOR_WORDS_H

#include "kernels/base/philox.h"
#include "kernels/cpu/vector.h"

/* Blocks computed at once. */
#define WORDS_BLOCKS (VECTOR_FLOATS / 2)

/* Draws of so many blocks that are computed side by side: their words are as many vectors as a group has. */
#define WORDS_DRAWS (VECTOR_GROUP / 2)

#if defined(__AVX512F__)

typedef __m512i Words;

static inline Words words_set(uint32_t x) {
  return _mm512_set1_epi64(x);
}

/* `first` plus the number of each pair's block: even pairs hold the first half of the blocks, odd pairs the
 * second, so that words_columns puts them side by side. */
static inline Words words_indices(uint64_t first) {
  return _mm512_add_epi64(_mm512_set1_epi64((int64_t)first), _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7));
}

/* The 64-bit products of the low halves. */
static inline Words words_multiply(Words a, Words b) {
  return _mm512_mul_epu32(a, b);
}

static inline Words words_high(Words x) {
  return _mm512_srli_epi64(x, 32);
}

static inline Words words_xor(Words a, Words b, Words c) {
  return _mm512_ternarylogic_epi64(a, b, c, 0x96);
}

/* From the words 0, 1, 2, 3 of all blocks to columns: the first half of the blocks, then the second. */
static inline void words_columns(const Words word[4], Words columns[2]) {
  const Words front = _mm512_mask_blend_epi32(0xAAAA, word[0], _mm512_slli_epi64(word[1], 32));
  const Words back = _mm512_mask_blend_epi32(0xAAAA, word[2], _mm512_slli_epi64(word[3], 32));
  columns[0] = _mm512_unpacklo_epi64(front, back);
  columns[1] = _mm512_unpackhi_epi64(front, back);
}

/* x where the word is at least the threshold, given to all 32-bit elements, else 0. */
static inline Vector words_keep(Words word, uint32_t threshold, Vector x) {
  return _mm512_maskz_mov_ps(_mm512_cmpge_epu32_mask(word, _mm512_set1_epi32((int32_t)threshold)), x);
}

#else

typedef __m256i Words;

static inline Words words_set(uint32_t x) {
  return _mm256_set1_epi64x(x);
}

/* `first` plus the number of each pair's block: even pairs hold the first half of the blocks, odd pairs the
 * second, so that words_columns puts them side by side. */
static inline Words words_indices(uint64_t first) {
  return _mm256_add_epi64(_mm256_set1_epi64x((int64_t)first), _mm256_setr_epi64x(0, 2, 1, 3));
}

/* The 64-bit products of the low halves. */
static inline Words words_multiply(Words a, Words b) {
  return _mm256_mul_epu32(a, b);
}

static inline Words words_high(Words x) {
  return _mm256_srli_epi64(x, 32);
}

static inline Words words_xor(Words a, Words b, Words c) {
  return _mm256_xor_si256(_mm256_xor_si256(a, b), c);
}

/* From the words 0, 1, 2, 3 of all blocks to columns: the first half of the blocks, then the second. */
static inline void words_columns(const Words word[4], Words columns[2]) {
  const Words front = _mm256_blend_epi32(word[0], _mm256_slli_epi64(word[1], 32), 0xAA);
  const Words back = _mm256_blend_epi32(word[2], _mm256_slli_epi64(word[3], 32), 0xAA);
  columns[0] = _mm256_unpacklo_epi64(front, back);
  columns[1] = _mm256_unpackhi_epi64(front, back);
}

/* x where the word is at least the threshold, given to all 32-bit elements, else 0. */
static inline Vector words_keep(Words word, uint32_t threshold, Vector x) {
  const Words larger = _mm256_max_epu32(word, _mm256_set1_epi32((int32_t)threshold));
  return _mm256_and_ps(_mm256_castsi256_ps(_mm256_cmpeq_epi32(larger, word)), x);
}

#endif

/* The words of draws * WORDS_BLOCKS blocks with numbers from `first` on (philox_draw), a column's word after
 * the other, in columns (2 draws): each draw's those of the first half of its blocks, then of the second.
 * Draws go through each round together, as groups do (kernels/cpu/vector.h). */
GROUP_INLINE void words_draw(uint64_t seed, PhiloxPurpose purpose, uint32_t stream, uint64_t first, int draws,
                             Words *columns) {
  const Words multiplier0 = words_set(PHILOX_MULTIPLIER_0);
  const Words multiplier1 = words_set(PHILOX_MULTIPLIER_1);
  Words word[WORDS_DRAWS][4];
  for (int d = 0; d < draws; d++) {
    word[d][0] = words_indices(first + (uint64_t)d * WORDS_BLOCKS);
    word[d][1] = words_high(word[d][0]);
    word[d][2] = words_set(stream);
    word[d][3] = words_set((uint32_t)purpose);
  }
  uint32_t key0 = (uint32_t)seed;
  uint32_t key1 = (uint32_t)(seed >> 32);
  for (int round = 0; round < PHILOX_ROUNDS; round++) {
    for (int d = 0; d < draws; d++) {
      const Words product0 = words_multiply(multiplier0, word[d][0]);
      const Words product1 = words_multiply(multiplier1, word[d][2]);
      word[d][0] = words_xor(words_high(product1), word[d][1], words_set(key0));
      word[d][2] = words_xor(words_high(product0), word[d][3], words_set(key1));
      word[d][1] = product1;
      word[d][3] = product0;
    }
    key0 += PHILOX_KEY_STEP_0;
    key1 += PHILOX_KEY_STEP_1;
  }
  for (int d = 0; d < draws; d++) words_columns(word[d], columns + (ptrdiff_t)2 * d);
}

#endif
