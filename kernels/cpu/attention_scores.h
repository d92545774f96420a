/* Scores of a register tile: ROWS keys against a panel of queries. Where a word is a float, the scale of the
 * scores is in q; bf16 numbers stay as they are, and the product is scaled. */
#ifndef RINGGPT_CPU_ATTENTION_SCORES_H
#define RINGGPT_CPU_ATTENTION_SCORES_H

#include "kernels/cpu/attention_layout.h"

/* What q is packed with. */
static inline float query_factor(const AttentionDims *dims) {
  return TERMS > 1 ? 1.0F : dims->scale * LOG2_E;
}

/* From the product of what is packed to a score in units of log 2. */
static inline float score_factor(const AttentionDims *dims) {
  return TERMS > 1 ? dims->scale * LOG2_E : 1.0F;
}

/* tile = start + a b over D: a at the first of ROWS keys, or values, of a tile [D/TERMS][8]; b a panel. */
static inline __attribute__((always_inline)) void product_tile(int64_t head_dim, const Word *a, const Word *b,
                                                               const Vector start[PANEL_VECTORS],
                                                               Ahead *ahead, Tile *tile) {
  tile_set(tile, start);
  for (int64_t d = 0; d < head_dim / TERMS; d += STEP_WORDS) {
    tile_multiply(tile, PANEL_VECTORS, a + d * TILE, 1, TILE, b + d * PANEL, PANEL, ahead);
  }
}

/* tile = start + factor k q: scores in units of log 2. */
static inline __attribute__((always_inline)) void score_tile(int64_t head_dim, float factor, const Word *k,
                                                             const Word *q, const Vector start[PANEL_VECTORS],
                                                             Ahead *ahead, Tile *tile) {
  if (TERMS == 1) {
    product_tile(head_dim, k, q, start, ahead, tile);
    return;
  }
  Vector zero[PANEL_VECTORS];
  for (int v = 0; v < PANEL_VECTORS; v++) zero[v] = vector_set(0.0F);
  product_tile(head_dim, k, q, zero, ahead, tile);
  const Vector factors = vector_set(factor);
#pragma GCC unroll 8
  for (int r = 0; r < ROWS; r++) {
#pragma GCC unroll 3
    for (int v = 0; v < PANEL_VECTORS; v++) {
      tile->row[r][v] = vector_multiply_add(tile->row[r][v], factors, start[v]);
    }
  }
}

#endif
