/* The register tile of attention on AVX-512: 8 x 32 floats in sixteen accumulators. All products of forward
 * and backward, whatever their shapes, are sums of its one step. */
#ifndef RINGGPT_CPU_ATTENTION_TILE_AVX512_H
#define RINGGPT_CPU_ATTENTION_TILE_AVX512_H

#include <immintrin.h>
#include <stdint.h>

/* Rows of two vectors. A tile of one vector a row leaves the second unused. */
typedef struct Tile {
  __m512 row[8][2];
} Tile;

/* Memory that will be needed soon: every eight steps of a product ask for one line of it, up to `last`. */
typedef struct Ahead {
  const float *next;
  const float *last;
} Ahead;

/* `start` must be readable even where `floats` is 0. */
static inline Ahead ahead_of(const float *start, int64_t floats) {
  return (Ahead){.next = start, .last = floats > 16 ? start + floats - 16 : start};
}

/* Asks for a line to be brought into the second-level cache. */
static inline __attribute__((always_inline)) void ahead_fetch(Ahead *ahead) {
  _mm_prefetch((const char *)ahead->next, _MM_HINT_T1);
  ahead->next += ahead->next < ahead->last ? 16 : 0;
}

/* All rows start alike: at `start` (2 x 16). */
static inline __attribute__((always_inline)) void tile_set(Tile *tile, const __m512 start[2]) {
#pragma GCC unroll 8
  for (int r = 0; r < 8; r++) {
    tile->row[r][0] = start[0];
    tile->row[r][1] = start[1];
  }
}

/* Eight steps of a product: row[r] += a[r * a_row + s * a_step] * b[s * b_step ...] for s = 0 ... 7, where b
 * holds `vectors` (1 or 2) vectors. Strides and `vectors` should be constants. */
static inline __attribute__((always_inline)) void tile_multiply(Tile *tile, int vectors, const float *a,
                                                                int64_t a_row, int64_t a_step, const float *b,
                                                                int64_t b_step, Ahead *ahead) {
  ahead_fetch(ahead);
#pragma GCC unroll 8
  for (int s = 0; s < 8; s++) {
    const __m512 b0 = _mm512_loadu_ps(b + s * b_step);
    const __m512 b1 = vectors > 1 ? _mm512_loadu_ps(b + s * b_step + 16) : b0;
#pragma GCC unroll 8
    for (int r = 0; r < 8; r++) {
      const __m512 factor = _mm512_set1_ps(a[r * a_row + s * a_step]);
      tile->row[r][0] = _mm512_fmadd_ps(factor, b0, tile->row[r][0]);
      if (vectors > 1) tile->row[r][1] = _mm512_fmadd_ps(factor, b1, tile->row[r][1]);
    }
  }
}

/* to[r * stride ...] += row[r]. */
static inline __attribute__((always_inline)) void tile_add_to(const Tile *tile, int vectors, float *to,
                                                              int64_t stride) {
#pragma GCC unroll 8
  for (int r = 0; r < 8; r++) {
    float *row = to + r * stride;
#pragma GCC unroll 2
    for (int v = 0; v < vectors; v++) {
      _mm512_storeu_ps(row + 16 * v, _mm512_add_ps(_mm512_loadu_ps(row + 16 * v), tile->row[r][v]));
    }
  }
}

#endif
