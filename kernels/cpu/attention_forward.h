/* Attention forward on vector registers: which panels of queries meet which blocks of keys, in which order
 * and on which thread, and what stands before and behind it. */
#ifndef RINGGPT_CPU_ATTENTION_FORWARD_H
#define RINGGPT_CPU_ATTENTION_FORWARD_H

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/memory.h"
#include "kernels/cpu/attention_forward_products.h"
#include "kernels/cpu/attention_keys.h"

/* Panels of one task: their q and values share the second-level cache with a block of keys and values. */
#define TASK_PANELS 8

/* ---------------------------------------------------------------- blocks */

/* Asks for what a fold reads and writes of a panel. */
static void fetch_panel(const AttentionDims *dims, const ForwardHead *head, int64_t panel) {
  const Panel next = panel_of(dims, head, panel);
  const int64_t bytes = PANEL * dims->head_dim * (int64_t)sizeof(float);
  fetch_lines(next.q, bytes / TERMS);
  fetch_lines(next.values, bytes);
}

/* Folds all keys into the panels [begin, end) of one head: block after block, so that a block is read from
 * the cache by all panels but the first. */
static void fold_keys(const Device *device, const AttentionDims *dims, const ForwardHead *head,
                      const QueryRun *run, int64_t begin, int64_t end, int64_t key_length, int64_t key_start,
                      const Word *kv) {
  const int64_t row = dims->head_dim / TERMS;
  const int64_t row_bytes = row * (int64_t)sizeof(Word);
  const int64_t first = sight_first_block(run, begin, key_start, key_length);
  const int64_t last = clamp(run->start + end * PANEL - key_start, 0, key_length);
  const Word *v = kv + kv_words(dims, key_length);
  for (int64_t key = first * KEY_BLOCK; key < last; key += KEY_BLOCK) {
    device_poll(device); /* every some tens of microseconds */
    if (device_failed(device)) return;
    const int64_t count = min_of(KEY_BLOCK, key_length - key);
    const int64_t left = min_of(KEY_BLOCK, key_length - key - count);
    const int64_t next = left > 0 ? key + KEY_BLOCK : key;
    ForwardBlock block = {.k = kv + key * row,
                          .v = v + key * row,
                          .head_dim = dims->head_dim,
                          .factor = score_factor(dims),
                          .next_k = ahead_of(kv + next * row, left * row_bytes),
                          .next_v = ahead_of(v + next * row, left * row_bytes)};
    for (int64_t i = begin; i < end; i++) {
      if (key == first * KEY_BLOCK && i + 1 < end) fetch_panel(dims, head, i + 1);
      const Sight sight = sight_of(run, i, key_start + key, count);
      if (sight.begin == sight.end) continue;
      const Panel panel = panel_of(dims, head, i);
      fold_block(&panel, &block, &sight);
    }
  }
}

static void attention_forward_block(Device *device, const AttentionDims *dims, int64_t query_length,
                                    int64_t query_start, const int64_t *first_key, void *state,
                                    int64_t key_length, int64_t key_start, const void *kv) {
  const QueryRun run = {.length = query_length, .start = query_start, .first_key = first_key};
  const int64_t panels = panel_count(query_length);
  const int64_t parts = (panels + TASK_PANELS - 1) / TASK_PANELS;
  const int64_t group = dims->heads / dims->kv_heads;
  const int team = team_size(device, dims->heads * query_length * key_length * dims->head_dim / 8);
  /* Under a causal mask the last queries have the most work: they come first. */
#pragma omp parallel for num_threads(team) if (team > 1) schedule(dynamic)
  for (int64_t task = 0; task < parts * dims->heads; task++) {
    const int64_t begin = (parts - 1 - task / dims->heads) * TASK_PANELS;
    const int64_t head = task % dims->heads;
    const ForwardHead to = forward_head(dims, query_length, state, head);
    const int64_t end = min_of(begin + TASK_PANELS, panels);
    fold_keys(device, dims, &to, &run, begin, end, key_length, key_start,
              (const Word *)kv + head / group * 2 * kv_words(dims, key_length));
    if (device->pairs != NULL) {
      device_count_pairs(device, sight_pairs(&run, begin, end, key_start, key_length));
    }
  }
}

/* ---------------------------------------------------------------- begin and end */

/* A panel of the first of `count` queries, to which nothing has been folded. */
static void begin_panel(int64_t count, const AttentionDims *dims, const Element *q, int64_t stride,
                        const Panel *to) {
  pack_panel(count, dims->head_dim, query_factor(dims), q, stride, to->q);
  memset(to->sum, 0, PANEL * sizeof(float));
  for (int64_t lane = 0; lane < PANEL; lane++) to->reference[lane] = -INFINITY;
}

static void attention_forward_begin(Device *device, const AttentionDims *dims, int64_t length, const elem *q,
                                    int64_t stride, void *state) {
  const int64_t d = dims->head_dim;
  const int64_t panels = panel_count(length);
  const int team = team_size(device, dims->heads * length * d / 8);
#pragma omp parallel for num_threads(team) if (team > 1) collapse(2)
  for (int64_t i = 0; i < panels; i++) {
    for (int64_t h = 0; h < dims->heads; h++) {
      poll_within(device, i * dims->heads + h, 2 * PANEL * d);
      const ForwardHead head = forward_head(dims, length, state, h);
      const Panel to = panel_of(dims, &head, i);
      begin_panel(length - i * PANEL, dims, (const Element *)q + i * PANEL * stride + h * d, stride, &to);
    }
  }
}

/* The result of one panel, `count` of its queries real: values over sum, and the logarithm of the sum. */
static void finish_panel(int64_t count, int64_t d, const float *values, const float *reference,
                         const float *sum, Element *out, int64_t row, float *lse) {
  float factors[PANEL] = {0};
  bool any = false;
  for (int64_t lane = 0; lane < count; lane++) {
    const bool seeing = sum[lane] != 0.0F;
    factors[lane] = seeing ? 1.0F / sum[lane] : 0.0F;
    lse[lane] = seeing ? LN_2 * reference[lane] + logf(sum[lane]) : -INFINITY;
    any = any || seeing;
  }
  if (any) {
    unpack_panel(count, d, factors, values, out, row);
    return;
  }
  zero_rows(count, d, out, row);
}

static void attention_forward_end(Device *device, const AttentionDims *dims, int64_t length,
                                  const void *state, elem *out, int64_t stride, float *lse) {
  const int64_t d = dims->head_dim;
  const int64_t panels = panel_count(length);
  const int64_t queries = panels * PANEL;
  const int team = team_size(device, dims->heads * length * d / 8);
#pragma omp parallel for num_threads(team) if (team > 1) collapse(2)
  for (int64_t h = 0; h < dims->heads; h++) {
    for (int64_t i = 0; i < panels; i++) {
      poll_within(device, i, 2 * PANEL * d);
      const float *values = (const float *)state + h * forward_head_words(dims, length) + queries * d / TERMS;
      const float *reference = values + queries * d;
      const int64_t at = i * PANEL;
      if (i + 1 < panels) fetch_lines(values + (at + PANEL) * d, PANEL * d * (int64_t)sizeof *values);
      finish_panel(panel_queries(length, i), d, values + at * d, reference + at, reference + queries + at,
                   (Element *)out + at * stride + h * d, stride, lse + h * length + at);
    }
  }
}

/* ---------------------------------------------------------------- a sequence alone */

/* One call of forward_alone. */
typedef struct Alone {
  Device *device;
  const AttentionDims *dims;
  const AttentionSequence *sequence;
  Element *out;
  float *lse;
} Alone;

/* Panels [begin, end) of one head from their queries to their output; `memory` is the state of so many. */
static void panels_alone(const Alone *call, int64_t head, int64_t begin, int64_t end, Word *memory) {
  const AttentionDims *dims = call->dims;
  const AttentionSequence *sequence = call->sequence;
  const int64_t row = begin * PANEL;
  const int64_t column = head * dims->head_dim;
  const int64_t key_head = head / (dims->heads / dims->kv_heads);
  const QueryRun run = {.length = min_of(end * PANEL, sequence->length) - row,
                        .start = row,
                        .first_key = sequence->first_key + row};
  const ForwardHead state = forward_head_at(dims, run.length, memory);
  for (int64_t i = 0; i < end - begin; i++) {
    const Panel to = panel_of(dims, &state, i);
    begin_panel(run.length - i * PANEL, dims,
                (const Element *)sequence->q + (row + i * PANEL) * sequence->q_stride + column,
                sequence->q_stride, &to);
  }
  fold_keys(call->device, dims, &state, &run, 0, end - begin, sequence->length, 0,
            (const Word *)sequence->kv + key_head * 2 * kv_words(dims, sequence->length));
  for (int64_t i = 0; i < end - begin; i++) {
    const Panel from = panel_of(dims, &state, i);
    const int64_t at = row + i * PANEL;
    finish_panel(panel_queries(run.length, i), dims->head_dim, from.values, from.reference, from.sum,
                 call->out + at * sequence->out_stride + column, sequence->out_stride,
                 call->lse + head * sequence->length + at);
  }
  if (call->device->pairs != NULL) {
    device_count_pairs(call->device, sight_pairs(&run, 0, end - begin, 0, sequence->length));
  }
}

/* Panels of one task of a team: as few as give every thread one. */
static int64_t panels_of_task(const AttentionDims *dims, int64_t panels, int team) {
  return clamp(dims->heads * panels / team, 1, min_of(TASK_PANELS, panels));
}

/* Every thread has memory for the panels of a task, which stay in its cache from begin to end. */
static void share_panels(const Alone *call, int team, int64_t size, Word *memory) {
  const AttentionDims *dims = call->dims;
  const int64_t panels = panel_count(call->sequence->length);
  const int64_t parts = (panels + size - 1) / size;
  const int64_t words = forward_head_words(dims, size * PANEL);
#pragma omp parallel for num_threads(team) if (team > 1) schedule(dynamic)
  for (int64_t task = 0; task < parts * dims->heads; task++) {
    const int64_t begin = (parts - 1 - task / dims->heads) * size;
    panels_alone(call, task % dims->heads, begin, min_of(begin + size, panels),
                 memory + team_member() * words);
  }
}

static void attention_forward_alone(Device *device, const AttentionDims *dims,
                                    const AttentionSequence *sequence, elem *out, float *lse) {
  const Alone call = {.device = device, .dims = dims, .sequence = sequence, .out = out, .lse = lse};
  const int64_t length = sequence->length;
  const int team = team_size(device, dims->heads * length * length * dims->head_dim / 8);
  if (length == 0) return;
  const int64_t size = panels_of_task(dims, panel_count(length), team);
  const size_t words = (size_t)(team * forward_head_words(dims, size * PANEL));
  Error error = {0};
  void *memory = NULL;
  if (memory_scratch(words, sizeof(Word), "attention forward", &memory, &error) != STATUS_OK) {
    device_fail(device, error.status, "%s", error.text);
    return;
  }
  attention_pack_kv(device, dims, length, sequence->k, sequence->v, sequence->kv_stride, sequence->kv);
  share_panels(&call, team, size, memory);
  free(memory);
}

#endif
