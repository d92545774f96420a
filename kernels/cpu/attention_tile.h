/* The register tile of attention: ROWS x PANEL floats in as many accumulators as leave room for the operands.
 * All products of forward and backward, whatever their shapes, are sums of its one step. */
#ifndef RINGGPT_CPU_ATTENTION_TILE_H
#define RINGGPT_CPU_ATTENTION_TILE_H

#include "kernels/cpu/attention_words.h"

/* A tile of fewer vectors a row leaves the others unused. */
typedef struct Tile {
  Vector row[ROWS][PANEL_VECTORS];
} Tile;

/* Terms that one step of a product adds: words of each operand row. */
enum { STEP = 8, STEP_WORDS = STEP / TERMS };

#define LINE_BYTES 64

/* Memory that will be needed soon: every step of a product asks for one line of it, up to `last`. */
typedef struct Ahead {
  const char *next;
  const char *last;
} Ahead;

/* `start` must be readable even where `bytes` is 0. */
static inline Ahead ahead_of(const void *start, int64_t bytes) {
  const char *first = start;
  return (Ahead){.next = first, .last = bytes > LINE_BYTES ? first + bytes - LINE_BYTES : first};
}

/* Asks for a line to be brought into the second-level cache. */
static inline __attribute__((always_inline)) void ahead_fetch(Ahead *ahead) {
  _mm_prefetch(ahead->next, _MM_HINT_T1);
  ahead->next += ahead->next < ahead->last ? LINE_BYTES : 0;
}

/* Asks for `bytes` from `start` on. */
static inline void fetch_lines(const void *start, int64_t bytes) {
  for (int64_t at = 0; at < bytes; at += LINE_BYTES) _mm_prefetch((const char *)start + at, _MM_HINT_T1);
}

/* All rows start alike. */
static inline __attribute__((always_inline)) void tile_set(Tile *tile, const Vector start[PANEL_VECTORS]) {
#pragma GCC unroll 8
  for (int r = 0; r < ROWS; r++) {
#pragma GCC unroll 3
    for (int v = 0; v < PANEL_VECTORS; v++) tile->row[r][v] = start[v];
  }
}

static inline __attribute__((always_inline)) void tile_zero(Tile *tile) {
  Vector zero[PANEL_VECTORS];
  for (int v = 0; v < PANEL_VECTORS; v++) zero[v] = vector_set(0.0F);
  tile_set(tile, zero);
}

/* One step of a product: row[r] += a[r * a_row + s * a_step] b[s * b_step ...] for the words s, where b holds
 * `vectors` vectors. Strides and `vectors` should be constants. */
static inline __attribute__((always_inline)) void tile_multiply(Tile *tile, int vectors, const Word *a,
                                                                int64_t a_row, int64_t a_step, const Word *b,
                                                                int64_t b_step, Ahead *ahead) {
  ahead_fetch(ahead);
#pragma GCC unroll 8
  for (int s = 0; s < STEP_WORDS; s++) {
    Words right[PANEL_VECTORS];
#pragma GCC unroll 3
    for (int v = 0; v < vectors; v++) right[v] = words_load(b + s * b_step + (int64_t)v * VECTOR_FLOATS);
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; r++) {
      const Words left = words_set(a[r * a_row + s * a_step]);
#pragma GCC unroll 3
      for (int v = 0; v < vectors; v++) {
        tile->row[r][v] = words_multiply_add(left, right[v], tile->row[r][v]);
      }
    }
  }
}

/* to[r * stride ...] = row[r]. */
static inline __attribute__((always_inline)) void tile_store(const Tile *tile, float *to, int64_t stride) {
#pragma GCC unroll 8
  for (int r = 0; r < ROWS; r++) {
#pragma GCC unroll 3
    for (int v = 0; v < PANEL_VECTORS; v++) {
      lanes_store(to + r * stride + (int64_t)v * VECTOR_FLOATS, tile->row[r][v]);
    }
  }
}

/* to[r * stride ...] += row[r]. */
static inline __attribute__((always_inline)) void tile_add_to(const Tile *tile, int vectors, float *to,
                                                              int64_t stride) {
#pragma GCC unroll 8
  for (int r = 0; r < ROWS; r++) {
#pragma GCC unroll 3
    for (int v = 0; v < vectors; v++) {
      float *at = to + r * stride + (int64_t)v * VECTOR_FLOATS;
      lanes_store(at, lanes_load(at) + tile->row[r][v]);
    }
  }
}

#if defined(ATTENTION_PAIRS)

/* As words whose terms are rows that follow each other: (ROWS / TERMS, PANEL). */
static inline __attribute__((always_inline)) void tile_store_by_rows(const Tile *tile, Word *to) {
  const __m512i alternate = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23,
                                             7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
#pragma GCC unroll 4
  for (int r = 0; r < ROWS; r += 2) {
#pragma GCC unroll 2
    for (int v = 0; v < PANEL_VECTORS; v++) {
      const __m512i pair = (__m512i)_mm512_cvtne2ps_pbh(tile->row[r + 1][v], tile->row[r][v]);
      _mm512_storeu_si512(to + r / 2 * PANEL + v * VECTOR_FLOATS, _mm512_permutexvar_epi16(alternate, pair));
    }
  }
}

/* As words whose terms are columns that follow each other: (ROWS, PANEL / TERMS). */
static inline __attribute__((always_inline)) void tile_store_by_columns(const Tile *tile, Word *to) {
#pragma GCC unroll 8
  for (int r = 0; r < ROWS; r++) {
    const __m512i row = (__m512i)_mm512_cvtne2ps_pbh(tile->row[r][1], tile->row[r][0]);
    _mm512_storeu_si512(to + r * PANEL / 2, row);
  }
}

#else

/* As words: (ROWS, PANEL). */
static inline __attribute__((always_inline)) void tile_store_by_rows(const Tile *tile, Word *to) {
  tile_store(tile, to, PANEL);
}

static inline __attribute__((always_inline)) void tile_store_by_columns(const Tile *tile, Word *to) {
  tile_store_by_rows(tile, to);
}

#endif

#endif
