/* Between rows (position, D) of elements and the packed tiles and panels, where D is the slow index. */
#ifndef RINGGPT_CPU_ATTENTION_PACK_H
#define RINGGPT_CPU_ATTENTION_PACK_H

#include "kernels/cpu/attention_layout.h"

/* Transposes 8 x 8 words: pairs of rows, pairs of pairs, then halves. Nothing is computed: the words may be
 * anything. */
static inline void transpose_8x8(__m256 rows[8]) {
  __m256 pairs[8];
  __m256 quads[8];
  for (int i = 0; i < 8; i += 2) {
    pairs[i] = _mm256_unpacklo_ps(rows[i], rows[i + 1]);
    pairs[i + 1] = _mm256_unpackhi_ps(rows[i], rows[i + 1]);
  }
  for (int i = 0; i < 8; i += 4) {
    quads[i] = _mm256_shuffle_ps(pairs[i], pairs[i + 2], 0x44);
    quads[i + 1] = _mm256_shuffle_ps(pairs[i], pairs[i + 2], 0xEE);
    quads[i + 2] = _mm256_shuffle_ps(pairs[i + 1], pairs[i + 3], 0x44);
    quads[i + 3] = _mm256_shuffle_ps(pairs[i + 1], pairs[i + 3], 0xEE);
  }
  for (int i = 0; i < 4; i++) {
    rows[i] = _mm256_permute2f128_ps(quads[i], quads[i + 4], 0x20);
    rows[i + 4] = _mm256_permute2f128_ps(quads[i], quads[i + 4], 0x31);
  }
}

/* Rows ahead of those at work that are asked for: far enough apart that the hardware does not see them
 * coming. */
#define ROWS_AHEAD 16

/* Asks for eight of `count` rows of d elements. */
static inline void fetch_rows(int64_t count, int64_t d, const Element *rows, int64_t stride) {
  for (int64_t i = ROWS_AHEAD; i < min_of(ROWS_AHEAD + 8, count); i++) {
    fetch_lines(rows + i * stride, d * (int64_t)sizeof(Element));
  }
}

#if defined(ATTENTION_PAIRS)

/* Two rows of `d` elements as words of both: to[j] = (a[j], b[j]); NULL rows are zeros. */
static inline void pair_rows(int64_t d, const Element *a, const Element *b, Word *to) {
  for (int64_t j = 0; j < d; j++) {
    to[j] = (Word)(a == NULL ? 0 : a[j].bits) | (Word)(b == NULL ? 0 : b[j].bits) << 16;
  }
}

/* Up to eight words of a row of elements from word j on; zeros behind the row's `words`. */
static inline __m256 row_words(const Element *row, int64_t j, int64_t words) {
  const __mmask8 real = (__mmask8)(words - j >= 8 ? 0xFF : (1U << (words - j)) - 1U);
  return _mm256_castsi256_ps(_mm256_maskz_loadu_epi32(real, row + 2 * j));
}

/* The factor is the caller's: products of bf16 are scaled behind the sum. */
static inline void pack_rows(int64_t count, int64_t d, float factor, const Element *rows, int64_t stride,
                             Word *packed, int64_t packed_row) {
  const int64_t words = d / TERMS;
  (void)factor;
  fetch_rows(count, d, rows, stride);
  for (int64_t j = 0; j < words; j += 8) {
    __m256 square[8];
    for (int64_t i = 0; i < 8; i++) {
      square[i] = i < count ? row_words(rows + i * stride, j, words) : _mm256_setzero_ps();
    }
    transpose_8x8(square);
    for (int64_t i = 0; i < min_of(8, words - j); i++) {
      _mm256_storeu_si256((__m256i *)(void *)(packed + (j + i) * packed_row), _mm256_castps_si256(square[i]));
    }
  }
}

/* From a tile [D/2][8], terms over D, to one [D][4], terms over keys: eight words of the one are two rows of
 * the other. `from` may be `to`. */
static inline void turn_to_keys(int64_t d, const Word *from, Word *to) {
  const __m256i by_keys = _mm256_set_epi16(15, 13, 11, 9, 7, 5, 3, 1, 14, 12, 10, 8, 6, 4, 2, 0);
  for (int64_t j = 0; j < d / 2; j++) {
    const __m256i words = _mm256_loadu_si256((const __m256i *)(const void *)(from + 8 * j));
    _mm256_storeu_si256((__m256i *)(void *)(to + 8 * j), _mm256_permutexvar_epi16(by_keys, words));
  }
}

/* The way back. */
static inline void turn_to_d(int64_t d, const Word *from, Word *to) {
  const __m256i by_d = _mm256_set_epi16(15, 7, 14, 6, 13, 5, 12, 4, 11, 3, 10, 2, 9, 1, 8, 0);
  for (int64_t j = 0; j < d / 2; j++) {
    const __m256i words = _mm256_loadu_si256((const __m256i *)(const void *)(from + 8 * j));
    _mm256_storeu_si256((__m256i *)(void *)(to + 8 * j), _mm256_permutexvar_epi16(by_d, words));
  }
}

#else

/* Words of one term lie the same way for both. */
static inline void turn_to_keys(int64_t d, const Word *from, Word *to) {
  (void)d;
  (void)from;
  (void)to;
}

/* One row of `d` elements as words; NULL is zeros. The second row is none: a word has one term. */
static inline void pair_rows(int64_t d, const Element *a, const Element *b, Word *to) {
  (void)b;
  for (int64_t j = 0; j < d; j += 8) {
    _mm256_storeu_ps(to + j, a == NULL ? _mm256_setzero_ps() : eight_load(a + j));
  }
}

/* Packs the first 8 of `count` rows of d elements, times `factor`: packed[j * packed_row + i] = factor
 * rows[i][j] for i < 8, zeros beyond `count`; j counts words. */
static inline void pack_rows(int64_t count, int64_t d, float factor, const Element *rows, int64_t stride,
                             Word *packed, int64_t packed_row) {
  fetch_rows(count, d, rows, stride);
  for (int64_t j = 0; j < d; j += 8) {
    __m256 square[8];
    for (int64_t i = 0; i < 8; i++) {
      square[i] = i < count ? eight_load(rows + i * stride + j) : _mm256_setzero_ps();
      square[i] = _mm256_mul_ps(square[i], _mm256_set1_ps(factor));
    }
    transpose_8x8(square);
    for (int64_t i = 0; i < 8; i++) _mm256_storeu_ps(packed + (j + i) * packed_row, square[i]);
  }
}

#endif

/* The way back from floats: rows[i][j] = factors[i] packed[j * packed_row + i] for i < 8 and i < count. */
static inline void unpack_rows(int64_t count, int64_t d, __m256 factors, const float *packed,
                               int64_t packed_row, Element *rows, int64_t stride) {
  for (int64_t j = 0; j < d; j += 8) {
    __m256 square[8];
    for (int64_t i = 0; i < 8; i++) {
      square[i] = _mm256_mul_ps(_mm256_loadu_ps(packed + (j + i) * packed_row), factors);
    }
    transpose_8x8(square);
    for (int64_t i = 0; i < min_of(8, count); i++) eight_store(rows + i * stride + j, square[i]);
  }
}

/* Packs the first PANEL of `count` rows of d elements, times `factor`, in a panel [D/TERMS][PANEL], terms
 * over D; zeros beyond them. */
static inline void pack_panel(int64_t count, int64_t d, float factor, const Element *rows, int64_t stride,
                              Word *panel) {
  for (int64_t i = 0; i < PANEL; i += 8) {
    pack_rows(count - i, d, factor, rows + i * stride, stride, panel + i, PANEL);
  }
}

/* The way back from floats: rows[i][j] = factors[i] panel[j][i] for i < count. */
static inline void unpack_panel(int64_t count, int64_t d, const float factors[PANEL], const float *panel,
                                Element *rows, int64_t stride) {
  for (int64_t i = 0; i < count; i += 8) {
    unpack_rows(count - i, d, _mm256_loadu_ps(factors + i), panel + i, PANEL, rows + i * stride, stride);
  }
}

static inline void zero_rows(int64_t count, int64_t d, Element *rows, int64_t stride) {
  for (int64_t i = 0; i < count; i++) memset(rows + i * stride, 0, (size_t)d * sizeof *rows);
}

/* Packs the first PANEL of `count` rows of d elements as (PANEL / TERMS, Dp), terms over queries, zeros in
 * the padding. */
static inline void pack_panel_by_rows(int64_t count, int64_t d, const Element *from, int64_t stride,
                                      Word *to) {
  const int64_t row = round_up(d, VECTOR_FLOATS);
  for (int64_t i = 0; i < PANEL; i += TERMS) {
    const Element *first = i < count ? from + i * stride : NULL;
    const Element *second = i + 1 < count ? from + (i + 1) * stride : NULL;
    Word *words = to + i / TERMS * row;
    pair_rows(d, first, second, words);
    memset(words + d, 0, (size_t)(row - d) * sizeof *words);
  }
}

#endif
