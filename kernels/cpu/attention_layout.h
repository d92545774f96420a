/* How attention on vector registers lays out its buffers.
 *
 * Vector lanes are queries: scores are held transposed, S^T[key][query], so that the maximum, the sum and
 * every other statistic of a query stay in its lane. A panel is PANEL queries, a tile is 8 keys; runs are
 * padded with zeros to whole panels (Lp queries) and tiles (Tp keys). A word holds TERMS numbers that follow
 * each other in the sum that it is for: over D in the scores, over keys or queries in what is added up from
 * them.
 *
 *   kv        keys in tiles [Tp/8][D/TERMS][8], terms over D; then values in tiles [Tp/8][D][8/TERMS], terms
 *             over keys                                                               per key head
 *   dkv       dk, without the scale, (Tp, Dp), dv (Tp, Dp): floats, Dp = D padded to whole vectors  per key
 * head forward   q in panels [Lp/PANEL][D/TERMS][PANEL], terms over D; weighted values, floats, in panels
 *             [Lp/PANEL][D][PANEL]; reference (Lp), sum (Lp)                          per query head
 *   backward  q, dout in panels as above; q, dout by rows (Lp/TERMS, Dp), terms over queries;
 *             dq, floats, in panels as the weighted values; -lse (Lp), -delta (Lp); which panels of dq are
 *             begun (Lp/PANEL)                                                        per query head
 *
 * Scores are in units of log 2: where a word is a float, q is packed with the factor scale log2(e). */
#ifndef RINGGPT_CPU_ATTENTION_LAYOUT_H
#define RINGGPT_CPU_ATTENTION_LAYOUT_H

#include <stdint.h>

#include "kernels/cpu/attention_tile.h"
#include "kernels/device.h"
#include "kernels/ops.h"

#if defined(_OPENMP)
#include <omp.h>
#endif

enum {
  TILE = 8,       /* keys of a tile */
  KEY_BLOCK = 192 /* keys whose scores are held at a time */
};

#define LOG2_E 1.4426950408889634F
#define LN_2 0.6931471805599453F

static inline int64_t round_up(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

static inline int64_t min_of(int64_t a, int64_t b) {
  return a < b ? a : b;
}

static inline int64_t max_of(int64_t a, int64_t b) {
  return a > b ? a : b;
}

static inline int64_t clamp(int64_t value, int64_t low, int64_t high) {
  return max_of(low, min_of(value, high));
}

/* Words of the keys, or of the values, of one key head. */
static inline int64_t kv_words(const AttentionDims *dims, int64_t length) {
  return round_up(length, TILE) * dims->head_dim / TERMS;
}

/* Words from row to row where D is the fast index. */
static inline int64_t padded_dim(const AttentionDims *dims) {
  return round_up(dims->head_dim, VECTOR_FLOATS);
}

/* Floats of dk, or of dv, of one key head. */
static inline int64_t dkv_floats(const AttentionDims *dims, int64_t length) {
  return round_up(length, TILE) * padded_dim(dims);
}

static inline int64_t panel_count(int64_t length) {
  return (length + PANEL - 1) / PANEL;
}

/* Queries of a panel that are no padding. */
static inline int64_t panel_queries(int64_t length, int64_t panel) {
  return min_of(PANEL, length - panel * PANEL);
}

/* Threads for a loop of about `steps` vector operations: one where starting more would take as long. */
static inline int team_size(const Device *device, int64_t steps) {
  return steps < 50000 ? 1 : device->threads;
}

/* The number of this thread in its team. */
static inline int team_member(void) {
#if defined(_OPENMP)
  return omp_get_thread_num();
#else
  return 0;
#endif
}

#endif
