/* The arithmetic of attention forward on vector registers: one panel of queries folds one block of keys.
 *
 * The exponents are taken relative to a reference score per query rather than to the running maximum: a tile
 * that it sees, whole if possible, gives a query its reference, and only when a block's scores pass it by
 * more than 2^60 is the reference raised and the block computed again. The result is the same, and the common
 * block needs neither a maximum nor a rescaling; its exponentials come straight from the registers of the
 * product. */
#ifndef RINGGPT_CPU_ATTENTION_FORWARD_PRODUCTS_H
#define RINGGPT_CPU_ATTENTION_FORWARD_PRODUCTS_H

#include <math.h>

#include "kernels/cpu/attention_scores.h"
#include "kernels/cpu/attention_sight.h"

/* A block's sum of 2^(score - reference) from which on the reference is raised. */
#define SUM_LIMIT 0x1p60F

/* The state of one head. */
typedef struct ForwardHead {
  Word *q;          /* panels */
  float *values;    /* panels: sum of 2^(score - reference) v; nothing yet in a panel without a reference */
  float *reference; /* (Lp): -inf before the first visible key */
  float *sum;       /* (Lp): sum of 2^(score - reference) */
} ForwardHead;

/* One panel, a part of a head. */
typedef ForwardHead Panel;

/* A block of keys and values of one key head. */
typedef struct ForwardBlock {
  const Word *k; /* tiles */
  const Word *v; /* tiles */
  int64_t head_dim;
  float factor; /* of a product, to a score in units of log 2 */
  Ahead next_k; /* the same of the next block */
  Ahead next_v;
} ForwardBlock;

/* Words of the state of one head. */
static int64_t forward_head_words(const AttentionDims *dims, int64_t length) {
  return panel_count(length) * PANEL * (dims->head_dim / TERMS + dims->head_dim + 2);
}

static size_t attention_forward_bytes(const AttentionDims *dims, int64_t length) {
  return (size_t)(dims->heads * forward_head_words(dims, length)) * sizeof(Word);
}

/* A head of `length` queries whose state begins at `start`. */
static ForwardHead forward_head_at(const AttentionDims *dims, int64_t length, Word *start) {
  const int64_t queries = panel_count(length) * PANEL;
  float *floats = (float *)(void *)(start + queries * dims->head_dim / TERMS);
  return (ForwardHead){.q = start,
                       .values = floats,
                       .reference = floats + queries * dims->head_dim,
                       .sum = floats + queries * (dims->head_dim + 1)};
}

static ForwardHead forward_head(const AttentionDims *dims, int64_t length, void *state, int64_t head) {
  return forward_head_at(dims, length, (Word *)state + head * forward_head_words(dims, length));
}

static Panel panel_of(const AttentionDims *dims, const ForwardHead *head, int64_t panel) {
  return (Panel){.q = head->q + panel * PANEL * dims->head_dim / TERMS,
                 .values = head->values + panel * PANEL * dims->head_dim,
                 .reference = head->reference + panel * PANEL,
                 .sum = head->sum + panel * PANEL};
}

/* ---------------------------------------------------------------- scores */

/* The first of the ROWS keys from `row` on of one tile: start + score; unseen scores become -inf. */
static inline __attribute__((always_inline)) void forward_scores(const Panel *panel, ForwardBlock *block,
                                                                 const Sight *sight, int64_t t, int row,
                                                                 const Vector start[PANEL_VECTORS],
                                                                 Tile *tile) {
  const Word *k = block->k + t * TILE * block->head_dim / TERMS + row;
  score_tile(block->head_dim, block->factor, k, panel->q, start, &block->next_k, tile);
  if (sight_whole(sight, t)) return;
  const Vector unseen = vector_set(-INFINITY);
#pragma GCC unroll 8
  for (int r = 0; r < ROWS; r++) {
#pragma GCC unroll 3
    for (int v = 0; v < PANEL_VECTORS; v++) {
      const Mask seen = sight_mask(sight, v, t * TILE + row + r);
      tile->row[r][v] = lanes_choose(seen, tile->row[r][v], unseen);
    }
  }
}

/* maximum (PANEL) = the largest score that each query sees in tiles [begin, end), or -inf. */
static void largest_scores(const Panel *panel, ForwardBlock *block, const Sight *sight, int64_t begin,
                           int64_t end, Vector maximum[PANEL_VECTORS]) {
  Vector zero[PANEL_VECTORS];
  for (int v = 0; v < PANEL_VECTORS; v++) {
    zero[v] = vector_set(0.0F);
    maximum[v] = vector_set(-INFINITY);
  }
  for (int64_t i = begin * TILE; i < end * TILE; i += ROWS) {
    Tile tile;
    forward_scores(panel, block, sight, i / TILE, (int)(i % TILE), zero, &tile);
    for (int r = 0; r < ROWS; r++) {
      for (int v = 0; v < PANEL_VECTORS; v++) maximum[v] = vector_max(tile.row[r][v], maximum[v]);
    }
  }
}

/* The queries of vector v that see a key of the block and have no reference yet. */
static Mask missing_reference(const Panel *panel, const Sight *sight, int v) {
  const Vector reference = lanes_load(panel->reference + (ptrdiff_t)v * VECTOR_FLOATS);
  return mask_and(lanes_equal(reference, vector_set(-INFINITY)), sight->seeing[v]);
}

/* Gives a reference to the queries that see their first keys in this block: all at once where a tile is seen
 * whole. */
static void find_references(const Panel *panel, ForwardBlock *block, const Sight *sight) {
  const bool any_whole = sight->whole_begin < min_of(sight->whole_end, sight->end);
  for (int64_t t = any_whole ? sight->whole_begin : sight->begin; t < sight->end; t++) {
    Mask missing[PANEL_VECTORS];
    bool any = false;
    for (int v = 0; v < PANEL_VECTORS; v++) {
      missing[v] = missing_reference(panel, sight, v);
      any = any || mask_any(missing[v]);
    }
    if (!any) return;
    Vector maximum[PANEL_VECTORS];
    largest_scores(panel, block, sight, t, t + 1, maximum);
    for (int v = 0; v < PANEL_VECTORS; v++) {
      float *reference = panel->reference + (ptrdiff_t)v * VECTOR_FLOATS;
      lanes_store(reference, lanes_choose(missing[v], maximum[v], lanes_load(reference)));
    }
  }
}

/* Raises the references of some queries of vector v to the block's maximum, and rescales what they hold; the
 * others keep their bits. */
static void raise_reference(const Panel *panel, int64_t head_dim, int v, Mask raised, Vector maximum) {
  const ptrdiff_t lane = (ptrdiff_t)v * VECTOR_FLOATS;
  const Vector old = lanes_load(panel->reference + lane);
  const Vector next = lanes_choose(raised, vector_max(old, maximum), old);
  const Vector change = lanes_choose(raised, old - next, vector_set(0.0F));
  const Vector factor = lanes_choose(raised, lanes_exp2(change, false), vector_set(1.0F));
  lanes_store(panel->reference + lane, next);
  lanes_store(panel->sum + lane, lanes_load(panel->sum + lane) * factor);
  for (int64_t d = 0; d < head_dim; d++) {
    float *values = panel->values + d * PANEL + lane;
    lanes_store(values, lanes_load(values) * factor);
  }
}

/* p, words of [key][PANEL] with terms over keys = 2^(score - reference) of all tiles in sight; sum (PANEL) =
 * their sum per query. */
static void exponentials(const Panel *panel, ForwardBlock *block, const Sight *sight, Word *p,
                         Vector sum[PANEL_VECTORS]) {
  Vector start[PANEL_VECTORS];
  for (int v = 0; v < PANEL_VECTORS; v++) {
    /* A query that still has none sees nothing here: its start of +inf is masked out of every tile. */
    start[v] = vector_set(0.0F) - lanes_load(panel->reference + (ptrdiff_t)v * VECTOR_FLOATS);
    sum[v] = vector_set(0.0F);
  }
  for (int64_t t = sight->begin; t < sight->end; t++) {
    for (int row = 0; row < TILE; row += ROWS) {
      Tile tile;
      forward_scores(panel, block, sight, t, row, start, &tile);
#pragma GCC unroll 8
      for (int r = 0; r < ROWS; r++) {
#pragma GCC unroll 3
        for (int v = 0; v < PANEL_VECTORS; v++) {
          tile.row[r][v] = lanes_exp2(tile.row[r][v], TERMS > 1);
          sum[v] += tile.row[r][v];
        }
      }
      tile_store_by_rows(&tile, p + (t * TILE + row) / TERMS * PANEL);
    }
  }
}

/* ---------------------------------------------------------------- folding */

/* values [d][PANEL] += v p over the tiles in sight, or = v p. */
static void add_values(const Panel *panel, ForwardBlock *block, const Sight *sight, const Word *p,
                       bool first) {
  for (int64_t d = 0; d < block->head_dim; d += ROWS) {
    Tile tile;
    tile_zero(&tile);
    for (int64_t t = sight->begin; t < sight->end; t++) {
      tile_multiply(&tile, PANEL_VECTORS, block->v + (t * block->head_dim + d) * STEP_WORDS, STEP_WORDS, 1,
                    p + t * STEP_WORDS * PANEL, PANEL, &block->next_v);
    }
    if (first) {
      tile_store(&tile, panel->values + d * PANEL, PANEL);
    } else {
      tile_add_to(&tile, PANEL_VECTORS, panel->values + d * PANEL, PANEL);
    }
  }
}

/* Whether no query of the panel has a reference: whether nothing has been folded into it. */
static bool is_empty(const Panel *panel) {
  bool empty = true;
  for (int v = 0; v < PANEL_VECTORS; v++) {
    const Vector reference = lanes_load(panel->reference + (ptrdiff_t)v * VECTOR_FLOATS);
    empty = empty && mask_every(lanes_equal(reference, vector_set(-INFINITY)));
  }
  return empty;
}

/* Computes a block again, relative to higher references, for the queries whose sum is too large. */
static void fold_again(const Panel *panel, ForwardBlock *block, const Sight *sight,
                       const Mask large[PANEL_VECTORS], Word *p, Vector sum[PANEL_VECTORS]) {
  Vector maximum[PANEL_VECTORS];
  largest_scores(panel, block, sight, sight->begin, sight->end, maximum);
  for (int v = 0; v < PANEL_VECTORS; v++) raise_reference(panel, block->head_dim, v, large[v], maximum[v]);
  exponentials(panel, block, sight, p, sum);
}

static void fold_block(const Panel *panel, ForwardBlock *block, const Sight *sight) {
  _Alignas(64) Word p[KEY_BLOCK / TERMS * PANEL];
  Vector sum[PANEL_VECTORS];
  Mask large[PANEL_VECTORS];
  bool any = false;
  const bool first = is_empty(panel);
  find_references(panel, block, sight);
  exponentials(panel, block, sight, p, sum);
  for (int v = 0; v < PANEL_VECTORS; v++) {
    large[v] = lanes_at_least(sum[v], vector_set(SUM_LIMIT));
    any = any || mask_any(large[v]);
  }
  if (any) fold_again(panel, block, sight, large, p, sum);
  for (int v = 0; v < PANEL_VECTORS; v++) {
    float *total = panel->sum + (ptrdiff_t)v * VECTOR_FLOATS;
    lanes_store(total, lanes_load(total) + sum[v]);
  }
  add_values(panel, block, sight, p, first);
}

#endif
