/* The five products of attention backward on vector registers, per pair of a key block and a few panels of
 * queries,
 *
 *   P^T = 2^(K Q^T - lse)     dS^T = P^T (V dO^T - delta)
 *   dV += P^T dO              dK += dS^T Q              dQ^T += K^T dS^T
 *
 * all on the transposed scores as they are, without a transposition in between. The accumulators of the first
 * two start at -lse and -delta, so that P and dS come straight from the registers of the products. The scale
 * of the scores is put to dK and dQ at the end. */
#ifndef RINGGPT_CPU_ATTENTION_BACKWARD_PRODUCTS_H
#define RINGGPT_CPU_ATTENTION_BACKWARD_PRODUCTS_H

#include "kernels/cpu/attention_layout.h"
#include "kernels/cpu/attention_scores.h"
#include "kernels/cpu/attention_sight.h"

/* Panels whose scores against a key block are held at a time. */
#define STEP_PANELS 3

/* The state of one head. */
typedef struct BackwardHead {
  Word *q;            /* panels */
  Word *dout;         /* panels */
  Word *q_rows;       /* (Lp / TERMS, Dp) */
  Word *dout_rows;    /* (Lp / TERMS, Dp) */
  float *dq;          /* panels: sum of dS K, without the scale; nothing yet in a panel that is not begun */
  float *minus_lse;   /* (Lp), in units of log 2; -inf for a query that sees nothing, so that P is 0 */
  float *minus_delta; /* (Lp): -rowsum(dO O) */
  float *begun;       /* (panels): whether something has been added to the panel's dq, else 0 */
} BackwardHead;

/* A block of keys of one key head. */
typedef struct BackwardBlock {
  const Word *k;         /* tiles, terms over D */
  const Word *v;         /* tiles, terms over D */
  const Word *k_by_keys; /* tiles, terms over keys */
  float *dk;             /* (keys, Dp) */
  float *dv;             /* (keys, Dp) */
  int64_t start;         /* global position of the first key */
  int64_t count;         /* keys */
  int64_t head_dim;      /* D */
  int64_t row;           /* Dp */
  float factor;          /* of a product, to a score in units of log 2 */
} BackwardBlock;

/* P^T and dS^T of a few panels against a block. */
typedef struct Scores {
  Word p[STEP_PANELS][KEY_BLOCK * PANEL / TERMS];  /* [key][PANEL], terms over queries */
  Word ds[STEP_PANELS][KEY_BLOCK * PANEL / TERMS]; /* likewise */
#if defined(ATTENTION_PAIRS)
  Word ds_by_keys[STEP_PANELS][KEY_BLOCK * PANEL / TERMS]; /* [key][PANEL], terms over keys */
#endif
  Sight sight[STEP_PANELS];
} Scores;

/* What the next step needs of one head, which the five products of a step ask for ahead. */
typedef struct Next {
  Ahead q;
  Ahead dout;
  Ahead dq;
  Ahead q_rows;
  Ahead dout_rows;
} Next;

/* Words of the state of one head, a multiple of a line. */
static int64_t backward_head_words(const AttentionDims *dims, int64_t length) {
  const int64_t row = 2 * dims->head_dim / TERMS + 2 * padded_dim(dims) / TERMS + dims->head_dim + 2;
  return round_up(panel_count(length) * (PANEL * row + 1), LINE_BYTES / (int64_t)sizeof(Word));
}

static size_t attention_backward_bytes(const AttentionDims *dims, int64_t length) {
  return (size_t)(dims->heads * backward_head_words(dims, length)) * sizeof(Word);
}

static BackwardHead backward_head(const AttentionDims *dims, int64_t length, void *state, int64_t head) {
  Word *start = (Word *)state + head * backward_head_words(dims, length);
  const int64_t queries = panel_count(length) * PANEL;
  const int64_t panels = queries * dims->head_dim / TERMS;
  const int64_t rows = queries * padded_dim(dims) / TERMS;
  float *floats = (float *)(void *)(start + 2 * panels + 2 * rows);
  return (BackwardHead){.q = start,
                        .dout = start + panels,
                        .q_rows = start + 2 * panels,
                        .dout_rows = start + 2 * panels + rows,
                        .dq = floats,
                        .minus_lse = floats + queries * dims->head_dim,
                        .minus_delta = floats + queries * (dims->head_dim + 1),
                        .begun = floats + queries * (dims->head_dim + 2)};
}

/* ---------------------------------------------------------------- scores */

static inline void load_starts(const float *from, Vector start[PANEL_VECTORS]) {
  for (int v = 0; v < PANEL_VECTORS; v++) start[v] = lanes_load(from + (ptrdiff_t)v * VECTOR_FLOATS);
}

/* powers = 2^tile, with words of pairs tile as well; 0 where the query does not see the key, for the keys
 * from `key` on. */
static inline __attribute__((always_inline)) void powers_of(Tile *tile, const Sight *sight, int64_t key,
                                                            float *powers) {
  const bool whole = sight_whole(sight, key / TILE);
#pragma GCC unroll 8
  for (int r = 0; r < ROWS; r++) {
#pragma GCC unroll 3
    for (int v = 0; v < PANEL_VECTORS; v++) {
      Vector power = lanes_exp2(tile->row[r][v], TERMS > 1);
      if (!whole) power = lanes_choose(sight_mask(sight, v, key + r), power, vector_set(0.0F));
      lanes_store(powers + r * PANEL + v * VECTOR_FLOATS, power);
      if (TERMS > 1) tile->row[r][v] = power;
    }
  }
}

/* tile *= powers. */
static inline __attribute__((always_inline)) void multiply_powers(const float *powers, Tile *tile) {
#pragma GCC unroll 8
  for (int r = 0; r < ROWS; r++) {
#pragma GCC unroll 3
    for (int v = 0; v < PANEL_VECTORS; v++) {
      tile->row[r][v] = tile->row[r][v] * lanes_load(powers + r * PANEL + v * VECTOR_FLOATS);
    }
  }
}

/* P^T and dS^T of all tiles in sight of one panel, in place i of the scores. */
static __attribute__((noinline)) void panel_scores(const BackwardHead *head, int64_t panel,
                                                   const BackwardBlock *block, int64_t i, Scores *scores,
                                                   Next *next) {
  const int64_t d = block->head_dim;
  const Sight *sight = &scores->sight[i];
  const Word *q = head->q + panel * PANEL * d / TERMS;
  const Word *dout = head->dout + panel * PANEL * d / TERMS;
  for (int64_t key = sight->begin * TILE; key < sight->end * TILE; key += ROWS) {
    const int64_t keys = key / TILE * TILE * d / TERMS + key % TILE;
    const int64_t at = key * PANEL / TERMS;
    Vector start[PANEL_VECTORS];
    Tile tile;
    load_starts(head->minus_lse + panel * PANEL, start);
    score_tile(d, block->factor, block->k + keys, q, start, &next->q, &tile);
#if defined(ATTENTION_PAIRS)
    _Alignas(64) float powers[ROWS * PANEL];
#else
    float *powers = scores->p[i] + at;
#endif
    powers_of(&tile, sight, key, powers);
#if defined(ATTENTION_PAIRS)
    tile_store_by_columns(&tile, scores->p[i] + at);
#endif
    load_starts(head->minus_delta + panel * PANEL, start);
    product_tile(d, block->v + keys, dout, start, &next->dout, &tile);
    multiply_powers(powers, &tile);
    tile_store_by_columns(&tile, scores->ds[i] + at);
#if defined(ATTENTION_PAIRS)
    tile_store_by_rows(&tile, scores->ds_by_keys[i] + at);
#endif
  }
}

/* ---------------------------------------------------------------- the sums */

/* out (ROWS, Dp) columns [d, d + vectors) += scores^T (ROWS, queries) rows (queries, Dp), over the panels
 * that see the keys from `key` on. */
static inline __attribute__((always_inline)) void
add_key_tile(int vectors, const Sight *sight, int64_t key, const Word (*scores)[KEY_BLOCK * PANEL / TERMS],
             const Word *rows, int64_t row, Ahead *ahead, float *out) {
  const int64_t t = key / TILE;
  Tile tile;
  tile_zero(&tile);
  for (int64_t i = 0; i < STEP_PANELS; i++) {
    if (t < sight[i].begin || t >= sight[i].end) continue;
    for (int64_t q = 0; q < PANEL / TERMS; q += STEP_WORDS) {
      tile_multiply(&tile, vectors, scores[i] + key * PANEL / TERMS + q, PANEL / TERMS, 1,
                    rows + (i * PANEL / TERMS + q) * row, row, ahead);
    }
  }
  tile_add_to(&tile, vectors, out, row);
}

/* dv += P^T dO or dk += dS^T Q: out (keys, Dp) += scores^T rows, rows (STEP_PANELS PANEL / TERMS, Dp). */
static __attribute__((noinline)) void add_keys(const BackwardBlock *block, const Sight *sight,
                                               const Word (*scores)[KEY_BLOCK * PANEL / TERMS],
                                               const Word *rows, Ahead *ahead, float *out) {
  int64_t begin = KEY_BLOCK;
  int64_t end = 0;
  for (int64_t i = 0; i < STEP_PANELS; i++) {
    if (sight[i].begin == sight[i].end) continue;
    begin = min_of(begin, sight[i].begin * TILE);
    end = max_of(end, sight[i].end * TILE);
  }
  const int64_t row = block->row;
  for (int64_t d = 0; d < row; d += PANEL) {
    const int64_t left = (row - d) / VECTOR_FLOATS;
    for (int64_t key = begin; key < end; key += ROWS) {
      float *to = out + key * row + d;
      if (left >= PANEL_VECTORS) {
        add_key_tile(PANEL_VECTORS, sight, key, scores, rows + d, row, ahead, to);
      } else if (PANEL_VECTORS > 2 && left == 2) {
        add_key_tile(PANEL_VECTORS - 1, sight, key, scores, rows + d, row, ahead, to);
      } else {
        add_key_tile(1, sight, key, scores, rows + d, row, ahead, to);
      }
    }
  }
}

/* dq [d][PANEL] += K^T dS^T over the tiles in sight, or = K^T dS^T; ds has its terms over keys. */
static __attribute__((noinline)) void add_queries(const BackwardBlock *block, const Sight *sight,
                                                  const Word *ds, bool first, Ahead *ahead, float *dq) {
  for (int64_t d = 0; d < block->head_dim; d += ROWS) {
    Tile tile;
    tile_zero(&tile);
    for (int64_t t = sight->begin; t < sight->end; t++) {
      tile_multiply(&tile, PANEL_VECTORS, block->k_by_keys + (t * block->head_dim + d) * STEP_WORDS,
                    STEP_WORDS, 1, ds + t * STEP_WORDS * PANEL, PANEL, ahead);
    }
    if (first) {
      tile_store(&tile, dq + d * PANEL, PANEL);
    } else {
      tile_add_to(&tile, PANEL_VECTORS, dq + d * PANEL, PANEL);
    }
  }
}

#endif
