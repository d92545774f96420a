/* Between rows (position, D) and the packed tiles and panels, where D is the slow index. */
#ifndef RINGGPT_CPU_ATTENTION_PACK_AVX512_H
#define RINGGPT_CPU_ATTENTION_PACK_AVX512_H

#include <immintrin.h>
#include <stdint.h>

#include "kernels/cpu/attention_layout_avx512.h"

/* Transposes 8 x 8 floats: pairs of rows, pairs of pairs, then halves. */
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

/* Packs `count` (up to 8) rows of d floats, times `factor`: packed[j * packed_row + i] = factor rows[i][j]
 * for i < 8, zeros beyond `count`. */
static inline void pack_rows(int64_t count, int64_t d, float factor, const float *rows, int64_t stride,
                             float *packed, int64_t packed_row) {
  for (int64_t j = 0; j < d; j += 8) {
    __m256 square[8];
    for (int64_t i = 0; i < 8; i++) {
      square[i] = i < count ? _mm256_loadu_ps(rows + i * stride + j) : _mm256_setzero_ps();
      square[i] = _mm256_mul_ps(square[i], _mm256_set1_ps(factor));
    }
    transpose_8x8(square);
    for (int64_t i = 0; i < 8; i++) _mm256_storeu_ps(packed + (j + i) * packed_row, square[i]);
  }
}

/* The way back: rows[i][j] = factors[i] packed[j * packed_row + i] for i < 8 and i < count. */
static inline void unpack_rows(int64_t count, int64_t d, __m256 factors, const float *packed,
                               int64_t packed_row, float *rows, int64_t stride) {
  for (int64_t j = 0; j < d; j += 8) {
    __m256 square[8];
    for (int64_t i = 0; i < 8; i++) {
      square[i] = _mm256_mul_ps(_mm256_loadu_ps(packed + (j + i) * packed_row), factors);
    }
    transpose_8x8(square);
    for (int64_t i = 0; i < min_of(8, count); i++) _mm256_storeu_ps(rows + i * stride + j, square[i]);
  }
}

/* Packs `count` (up to PANEL) rows of d floats, times `factor`, in a panel [d][PANEL]; zeros beyond them. */
static inline void pack_panel(int64_t count, int64_t d, float factor, const float *rows, int64_t stride,
                              float *panel) {
  for (int64_t i = 0; i < PANEL; i += 8) {
    pack_rows(count - i, d, factor, rows + i * stride, stride, panel + i, PANEL);
  }
}

/* The way back: rows[i][j] = factors[i] panel[j][i] for i < count. */
static inline void unpack_panel(int64_t count, int64_t d, const float factors[PANEL], const float *panel,
                                float *rows, int64_t stride) {
  for (int64_t i = 0; i < count; i += 8) {
    unpack_rows(count - i, d, _mm256_loadu_ps(factors + i), panel + i, PANEL, rows + i * stride, stride);
  }
}

#endif
