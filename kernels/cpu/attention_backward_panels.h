/* Attention backward on vector registers, panels of queries against blocks of keys: what is made of a panel
 * before its first block, what a part of the queries and a part of the keys add to each other's gradients,
 * and what becomes of a panel behind its last block. */
#ifndef RINGGPT_CPU_ATTENTION_BACKWARD_PANELS_H
#define RINGGPT_CPU_ATTENTION_BACKWARD_PANELS_H

#include <math.h>

#include "kernels/cpu/attention_backward_products.h"
#include "kernels/cpu/attention_keys.h"

/* ---------------------------------------------------------------- begin and end */

/* -lse in units of log 2 and -delta of a panel, the first of `count` queries. */
static void panel_statistics(int64_t count, int64_t d, const Element *out, const Element *dout,
                             int64_t stride, const float *lse, float *minus_lse, float *minus_delta) {
  for (int64_t i = 0; i < PANEL; i++) {
    const bool seeing = i < count && lse[i] != -INFINITY;
    minus_lse[i] = seeing ? -LOG2_E * lse[i] : -INFINITY;
    __m256 sum = _mm256_setzero_ps();
    for (int64_t j = 0; j < d && i < count; j += 8) {
      sum = _mm256_fmadd_ps(eight_load(out + i * stride + j), eight_load(dout + i * stride + j), sum);
    }
    minus_delta[i] = -sum_of_eight(sum);
  }
}

/* Panel `i` of one query head: what products read of it, and nothing added to it. */
static void begin_gradient(const AttentionDims *dims, const AttentionSequence *sequence,
                           const AttentionGradients *gradients, int64_t h, int64_t i) {
  const int64_t d = dims->head_dim;
  const BackwardHead to = backward_head(dims, sequence->length, gradients->state, h);
  const int64_t at = i * PANEL;
  const int64_t count = sequence->length - at;
  const int64_t stride = sequence->q_stride;
  const int64_t out_stride = sequence->out_stride;
  const Element *q = (const Element *)sequence->q + at * stride + h * d;
  const Element *dout = (const Element *)gradients->dout + at * out_stride + h * d;
  const Element *out = (const Element *)gradients->out + at * out_stride + h * d;
  pack_panel(count, d, query_factor(dims), q, stride, to.q + at * d / TERMS);
  pack_panel(count, d, 1.0F, dout, out_stride, to.dout + at * d / TERMS);
  pack_panel_by_rows(count, d, q, stride, to.q_rows + at / TERMS * padded_dim(dims));
  pack_panel_by_rows(count, d, dout, out_stride, to.dout_rows + at / TERMS * padded_dim(dims));
  to.begun[i] = 0.0F;
  panel_statistics(count, d, out, dout, out_stride, gradients->lse + h * sequence->length + at,
                   to.minus_lse + at, to.minus_delta + at);
}

/* dq of panel `i` of one query head: zeros where nothing was added. */
static void end_gradient(const AttentionDims *dims, int64_t length, const void *state, int64_t h, int64_t i,
                         elem *dq, int64_t stride) {
  const int64_t d = dims->head_dim;
  const int64_t queries = panel_count(length) * PANEL;
  const int64_t count = panel_queries(length, i);
  const float *head = (const float *)state + h * backward_head_words(dims, length);
  const float *from = head + queries * 2 * (d + padded_dim(dims)) / TERMS;
  Element *to = (Element *)dq + i * PANEL * stride + h * d;
  float factors[PANEL];
  if (from[queries * (d + 2) + i] == 0.0F) {
    zero_rows(count, d, to, stride);
    return;
  }
  for (int64_t lane = 0; lane < PANEL; lane++) factors[lane] = dims->scale;
  unpack_panel(count, d, factors, from + i * PANEL * d, to, stride);
}

/* ---------------------------------------------------------------- blocks */

/* Panels [begin, end), at most STEP_PANELS, of one head against a block. */
static void backward_step(const BackwardHead *head, const QueryRun *run, int64_t begin, int64_t end,
                          const BackwardBlock *block, Scores *scores, Next *next) {
  bool seen = false;
  for (int64_t i = 0; i < STEP_PANELS; i++) {
    scores->sight[i] =
        begin + i < end ? sight_of(run, begin + i, block->start, block->count) : (Sight){.begin = 0};
    seen = seen || scores->sight[i].begin < scores->sight[i].end;
  }
  if (!seen) return;
  for (int64_t i = 0; begin + i < end; i++) panel_scores(head, begin + i, block, i, scores, next);
  const int64_t rows = begin * PANEL / TERMS * block->row;
  add_keys(block, scores->sight, scores->p, head->dout_rows + rows, &next->dout_rows, block->dv);
  add_keys(block, scores->sight, scores->ds, head->q_rows + rows, &next->q_rows, block->dk);
#if defined(ATTENTION_PAIRS)
  const Word(*ds)[KEY_BLOCK * PANEL / TERMS] = scores->ds_by_keys;
#else
  const Word(*ds)[KEY_BLOCK * PANEL / TERMS] = scores->ds;
#endif
  for (int64_t i = 0; begin + i < end; i++) {
    if (scores->sight[i].begin == scores->sight[i].end) continue;
    float *begun = head->begun + begin + i;
    add_queries(block, &scores->sight[i], ds[i], *begun == 0.0F, &next->dq,
                head->dq + (begin + i) * PANEL * block->head_dim);
    *begun = 1.0F;
  }
}

/* One call of backward_block. */
typedef struct Call {
  Device *device;
  const AttentionDims *dims;
  QueryRun run;
  void *state;
  int64_t key_length;
  int64_t key_start;
  const Word *kv;
  float *dkv;
  Word *turned; /* per thread, a block of keys and of values with their terms exchanged */
  const AttentionSequence *sequence; /* of backward_alone, else NULL: tasks begin and end what they work on */
  const AttentionGradients *gradients; /* likewise */
} Call;

#if defined(ATTENTION_PAIRS)

/* Words in which one thread turns a block. */
static int64_t turned_words(const AttentionDims *dims) {
  return 2 * KEY_BLOCK * dims->head_dim / TERMS;
}

/* The keys with terms over keys, the values with terms over D. */
static void turn_block(const Call *call, const Word *v, BackwardBlock *block) {
  const int64_t d = block->head_dim;
  const int64_t tile = TILE * d / TERMS;
  const int64_t tiles = (block->count + TILE - 1) / TILE;
  Word *k_by_keys = call->turned + team_member() * turned_words(call->dims);
  Word *v_by_d = k_by_keys + KEY_BLOCK * d / TERMS;
  for (int64_t t = 0; t < tiles; t++) {
    turn_to_keys(d, block->k + t * tile, k_by_keys + t * tile);
    turn_to_d(d, v + t * tile, v_by_d + t * tile);
  }
  block->k_by_keys = k_by_keys;
  block->v = v_by_d;
}

#else

static int64_t turned_words(const AttentionDims *dims) {
  (void)dims;
  return 0;
}

/* Words of one term lie the same way for both. */
static void turn_block(const Call *call, const Word *v, BackwardBlock *block) {
  (void)call;
  block->k_by_keys = block->k;
  block->v = v;
}

#endif

/* Block b of the keys of key head kv_head. */
static BackwardBlock block_of(const Call *call, int64_t kv_head, int64_t b) {
  const int64_t key = b * KEY_BLOCK;
  const AttentionDims *dims = call->dims;
  const int64_t kv_size = kv_words(dims, call->key_length);
  const int64_t dkv_size = dkv_floats(dims, call->key_length);
  const Word *k = call->kv + kv_head * 2 * kv_size + key * dims->head_dim / TERMS;
  float *dk = call->dkv + kv_head * 2 * dkv_size + key * padded_dim(dims);
  BackwardBlock block = {.k = k,
                         .dk = dk,
                         .dv = dk + dkv_size,
                         .start = call->key_start + key,
                         .count = min_of(KEY_BLOCK, call->key_length - key),
                         .head_dim = dims->head_dim,
                         .row = padded_dim(dims),
                         .factor = score_factor(dims)};
  turn_block(call, k + kv_size, &block);
  return block;
}

static int64_t key_blocks(int64_t key_length) {
  return (key_length + KEY_BLOCK - 1) / KEY_BLOCK;
}

/* Units [begin, end) of part `part` of `parts`. */
typedef struct Part {
  int64_t begin;
  int64_t end;
} Part;

static Part part_of(int64_t units, int64_t part, int64_t parts) {
  return (Part){.begin = units * part / parts, .end = units * (part + 1) / parts};
}

/* The panels [begin, end) of one head, maybe none. */
static Next next_step(const AttentionDims *dims, const BackwardHead *head, int64_t begin, int64_t end) {
  const int64_t panel = PANEL * dims->head_dim;
  const int64_t rows = PANEL * padded_dim(dims) / TERMS;
  const int64_t at = begin < end ? begin : 0;
  const int64_t bytes = (end - begin) * (int64_t)sizeof(Word);
  return (Next){.q = ahead_of(head->q + at * panel / TERMS, panel / TERMS * bytes),
                .dout = ahead_of(head->dout + at * panel / TERMS, panel / TERMS * bytes),
                .dq = ahead_of(head->dq + at * panel, panel * bytes),
                .q_rows = ahead_of(head->q_rows + at * rows, rows * bytes),
                .dout_rows = ahead_of(head->dout_rows + at * rows, rows * bytes)};
}

/* The panels of `queries` that may see a block: those that do not end before it and do not begin after it in
 * their first key. */
static Part panels_in_reach(const Call *call, int64_t block, Part queries) {
  const int64_t start = call->key_start + block * KEY_BLOCK;
  const int64_t end = start + min_of(KEY_BLOCK, call->key_length - block * KEY_BLOCK);
  const int64_t behind = (start - call->run.start) / PANEL;
  Part reach = {.begin = clamp(behind, queries.begin, queries.end), .end = queries.end};
  const int64_t *first_key = call->run.first_key;
  while (reach.end > reach.begin && first_key[(reach.end - 1) * PANEL] >= end) reach.end--;
  return reach;
}

/* Whether any panel of `queries` may see a block of `keys`. */
static bool parts_meet(const Call *call, Part queries, Part keys) {
  for (int64_t b = keys.begin; b < keys.end; b++) {
    const Part reach = panels_in_reach(call, b, queries);
    if (reach.begin < reach.end) return true;
  }
  return false;
}

/* All query heads of key head kv_head: panels of `queries` against key blocks of `keys`. */
static void backward_part(const Call *call, int64_t kv_head, Part queries, Part keys) {
  const int64_t group = call->dims->heads / call->dims->kv_heads;
  _Alignas(64) Scores scores;
  for (int64_t b = keys.begin; b < keys.end; b++) {
    const Part reach = panels_in_reach(call, b, queries);
    if (reach.begin == reach.end) continue;
    const BackwardBlock block = block_of(call, kv_head, b);
    for (int64_t h = kv_head * group; h < (kv_head + 1) * group; h++) {
      const BackwardHead head = backward_head(call->dims, call->run.length, call->state, h);
      for (int64_t i = reach.begin; i < reach.end; i += STEP_PANELS) {
        device_poll(call->device); /* every some tens of microseconds */
        const int64_t end = min_of(i + STEP_PANELS, reach.end);
        Next next = next_step(call->dims, &head, end, min_of(end + STEP_PANELS, reach.end));
        backward_step(&head, &call->run, i, end, &block, &scores, &next);
      }
    }
  }
}

#endif
