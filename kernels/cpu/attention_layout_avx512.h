/* How the AVX-512 attention blocks lay out their buffers, and the functions that share these layouts.
 *
 * Vector lanes are queries: scores are held transposed, S^T[key][query], so that the maximum, the sum and
 * every other statistic of a query stay in its lane. A panel is PANEL queries, a tile is 8 keys; runs are
 * padded with zeros to whole panels (Lp queries) and tiles (Tp keys).
 *
 *   kv        keys, then values, each in tiles [Tp/8][D][8]                        per key head
 *   dkv       dk (Tp, Dp), dv (Tp, Dp), Dp = D padded to a multiple of 16          per key head
 *   forward   q, then weighted values, in panels [Lp/PANEL][D][PANEL];
 *             reference (Lp), sum (Lp)                                             per query head
 *   backward  q, dout, dq in panels; q (Lp, Dp), dout (Lp, Dp) by rows;
 *             -lse (Lp), -delta (Lp)                                               per query head
 *
 * Scores are in units of log 2 (q is packed with the factor scale log2(e)). */
#ifndef RINGGPT_CPU_ATTENTION_LAYOUT_AVX512_H
#define RINGGPT_CPU_ATTENTION_LAYOUT_AVX512_H

#include <stdint.h>

#include "kernels/device.h"
#include "kernels/ops.h"

enum {
  PANEL = 32,     /* queries of a panel: two vectors */
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

/* Floats of the keys, or of the values, of one key head. */
static inline int64_t kv_floats(const AttentionDims *dims, int64_t length) {
  return round_up(length, TILE) * dims->head_dim;
}

/* Floats from row to row where D is the fast index. */
static inline int64_t padded_dim(const AttentionDims *dims) {
  return round_up(dims->head_dim, 16);
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

static inline int64_t forward_head_floats(const AttentionDims *dims, int64_t length) {
  return panel_count(length) * PANEL * (2 * dims->head_dim + 2);
}

static inline int64_t backward_head_floats(const AttentionDims *dims, int64_t length) {
  return panel_count(length) * PANEL * (3 * dims->head_dim + 2 * padded_dim(dims) + 2);
}

/* Threads for a loop of about `steps` vector operations: one where starting more would take as long. */
static inline int team_size(const Device *device, int64_t steps) {
  return steps < 50000 ? 1 : device->threads;
}

/* The entries of the table that kernels/ops.h describes. */
void attention_forward_begin_avx512(Device *device, const AttentionDims *dims, int64_t length, const elem *q,
                                    int64_t stride, void *state);
void attention_forward_block_avx512(Device *device, const AttentionDims *dims, int64_t query_length,
                                    int64_t query_start, const int64_t *first_key, void *state,
                                    int64_t key_length, int64_t key_start, const void *kv);
void attention_forward_end_avx512(Device *device, const AttentionDims *dims, int64_t length,
                                  const void *state, elem *out, float *lse);
void attention_backward_begin_avx512(Device *device, const AttentionDims *dims, int64_t length, const elem *q,
                                     int64_t stride, const elem *out, const elem *dout, const float *lse,
                                     void *state);
void attention_backward_block_avx512(Device *device, const AttentionDims *dims, int64_t query_length,
                                     int64_t query_start, const int64_t *first_key, void *state,
                                     int64_t key_length, int64_t key_start, const void *kv, void *dkv);
void attention_backward_end_avx512(Device *device, const AttentionDims *dims, int64_t length,
                                   const void *state, elem *dq, int64_t stride);

#endif
