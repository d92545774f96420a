/* Attention backward on vector registers: which panels of queries meet which blocks of keys, in which order
 * and on which thread, and what stands before and behind it. */
#ifndef RINGGPT_CPU_ATTENTION_BACKWARD_H
#define RINGGPT_CPU_ATTENTION_BACKWARD_H

#include <math.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/memory.h"
#include "kernels/cpu/attention_backward_products.h"
#include "kernels/cpu/attention_pack.h"
#include "kernels/cpu/poll.h"
#include "kernels/device.h"

/* Queries and keys are cut into chunks for threads to share out: as many as give this many tasks at a time,
 * but none shorter than CHUNK_BLOCKS key blocks, because a task starts with nothing of its own in the cache.
 * The number of threads plays no part, so that it does not change the order of sums. */
#define WANTED_TASKS 64
#define CHUNK_BLOCKS 5

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

/* Queries and keys are cut into the same number of chunks. At turn t, query chunk (c + t) mod chunks meets
 * key chunk c: no two tasks of a turn add to the same dq, dk or dv. The turns have a fixed order, which every
 * chunk keeps: so has every sum. */
typedef struct Turns {
  const Call *call;
  int64_t chunks;
  int64_t kv_heads;
  int64_t tasks;                           /* chunks x chunks x kv_heads, in the order of turns */
  int64_t first;                           /* no task before it is left */
  bool taken[WANTED_TASKS * WANTED_TASKS]; /* by task, for more than one chunk */
  _Atomic int64_t done[WANTED_TASKS];      /* by key chunk and key head: its turns so far, likewise */
} Turns;

/* The turn at a place in the order. Under a causal mask the first `t` key chunks have nothing to do in turn
 * chunks - t, and the others in turn t: these two follow each other. The diagonal, whose tasks are the
 * smallest, comes last. */
static int64_t turn_at(int64_t place, int64_t chunks) {
  if (place == chunks - 1) return 0;
  return place % 2 == 0 ? 1 + place / 2 : chunks - 1 - place / 2;
}

/* What a task does, and when. */
typedef struct Task {
  int64_t kv_head, key_chunk, query_chunk, place;
} Task;

static Task task_at(const Turns *turns, int64_t number) {
  const int64_t key_chunk = number / turns->kv_heads % turns->chunks;
  const int64_t place = number / turns->kv_heads / turns->chunks;
  return (Task){.kv_head = number % turns->kv_heads,
                .key_chunk = key_chunk,
                .query_chunk = (key_chunk + turn_at(place, turns->chunks)) % turns->chunks,
                .place = place};
}

/* Whether the task before it of its key chunk has been done, and that of its query chunk. */
static bool is_ready(const Turns *turns, int64_t number) {
  const Task task = task_at(turns, number);
  const int64_t chunks = turns->chunks;
  if (task.place == 0) return true;
  const int64_t before = (task.query_chunk - turn_at(task.place - 1, chunks) + chunks) % chunks;
  return turns->done[task.key_chunk * turns->kv_heads + task.kv_head] >= task.place &&
         turns->done[before * turns->kv_heads + task.kv_head] >= task.place;
}

/* Takes the first task in the order that is left and ready, of those of two turns from the first one left
 * on; false where these are all waiting for some that are being done. The first one left never waits for
 * another that is left. One thread at a time. */
static bool take_task(Turns *turns, int64_t *number) {
  if (turns->chunks == 1) {
    *number = turns->first++;
    return true;
  }
  while (turns->first < turns->tasks && turns->taken[turns->first]) turns->first++;
  const int64_t end = min_of(turns->first + 2 * turns->chunks * turns->kv_heads, turns->tasks);
  for (*number = turns->first; *number < end; (*number)++) {
    if (turns->taken[*number] || !is_ready(turns, *number)) continue;
    turns->taken[*number] = true;
    return true;
  }
  return turns->first == turns->tasks;
}

static void run_task(Turns *turns, int64_t number) {
  const Call *call = turns->call;
  const Task task = task_at(turns, number);
  backward_part(call, task.kv_head, part_of(panel_count(call->run.length), task.query_chunk, turns->chunks),
                part_of(key_blocks(call->key_length), task.key_chunk, turns->chunks));
  if (turns->chunks > 1) turns->done[task.key_chunk * turns->kv_heads + task.kv_head] = task.place + 1;
}

/* One thread's share. */
static void run_tasks(Turns *turns) {
  int64_t number = 0;
  while (number < turns->tasks) {
    bool taken = false;
#pragma omp critical(attention_backward_tasks)
    taken = take_task(turns, &number);
    if (!taken) {
      number = 0;
      device_poll(turns->call->device);
      (void)sched_yield();
    } else if (number < turns->tasks) {
      run_task(turns, number);
    }
  }
}

static void backward_turns(int team, const Call *call) {
  const int64_t kv_heads = call->dims->kv_heads;
  const int64_t most = min_of(WANTED_TASKS / kv_heads, key_blocks(call->key_length) / CHUNK_BLOCKS);
  const int64_t chunks = max_of(1, most / 2 * 2); /* an even number of tasks at a time */
  Turns turns = {.call = call, .chunks = chunks, .kv_heads = kv_heads, .tasks = chunks * chunks * kv_heads};
#pragma omp parallel num_threads(team) if (team > 1)
  run_tasks(&turns);
}

static void attention_backward_block(Device *device, const AttentionDims *dims, int64_t query_length,
                                     int64_t query_start, const int64_t *first_key, void *state,
                                     int64_t key_length, int64_t key_start, const void *kv, void *dkv) {
  Call call = {.device = device,
               .dims = dims,
               .run = {.length = query_length, .start = query_start, .first_key = first_key},
               .state = state,
               .key_length = key_length,
               .key_start = key_start,
               .kv = kv,
               .dkv = dkv};
  const int team = team_size(device, dims->heads * query_length * key_length * dims->head_dim / 4);
  const int64_t turned = team * turned_words(dims);
  if (turned > 0) {
    Error error = {0};
    void *memory = NULL;
    if (memory_alloc((size_t)turned, sizeof(Word), "attention backward", &memory, &error) != STATUS_OK) {
      device_fail(device, error.status, "%s", error.text);
      return;
    }
    call.turned = memory;
  }
  backward_turns(team, &call);
  free(call.turned);
}

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

static void attention_backward_begin(Device *device, const AttentionDims *dims, int64_t length, const elem *q,
                                     int64_t stride, const elem *out, const elem *dout, int64_t out_stride,
                                     const float *lse, void *state) {
  const int64_t d = dims->head_dim;
  const int64_t panels = panel_count(length);
  const int team = team_size(device, dims->heads * length * d / 8);
#pragma omp parallel for num_threads(team) if (team > 1) collapse(2)
  for (int64_t i = 0; i < panels; i++) {
    for (int64_t h = 0; h < dims->heads; h++) {
      poll_within(device, i * dims->heads + h, 4 * PANEL * d);
      const BackwardHead to = backward_head(dims, length, state, h);
      const int64_t at = i * PANEL;
      const int64_t count = length - at;
      const Element *from_q = (const Element *)q + at * stride + h * d;
      const Element *from_dout = (const Element *)dout + at * out_stride + h * d;
      const Element *from_out = (const Element *)out + at * out_stride + h * d;
      pack_panel(count, d, query_factor(dims), from_q, stride, to.q + at * d / TERMS);
      pack_panel(count, d, 1.0F, from_dout, out_stride, to.dout + at * d / TERMS);
      pack_panel_by_rows(count, d, from_q, stride, to.q_rows + at / TERMS * padded_dim(dims));
      pack_panel_by_rows(count, d, from_dout, out_stride, to.dout_rows + at / TERMS * padded_dim(dims));
      to.begun[i] = 0.0F;
      panel_statistics(count, d, from_out, from_dout, out_stride, lse + h * length + at, to.minus_lse + at,
                       to.minus_delta + at);
    }
  }
}

static void attention_backward_end(Device *device, const AttentionDims *dims, int64_t length,
                                   const void *state, elem *dq, int64_t stride) {
  const int64_t d = dims->head_dim;
  const int64_t panels = panel_count(length);
  const int64_t queries = panels * PANEL;
  float factors[PANEL];
  for (int64_t i = 0; i < PANEL; i++) factors[i] = dims->scale;
  const int team = team_size(device, dims->heads * length * d / 8);
#pragma omp parallel for num_threads(team) if (team > 1) collapse(2)
  for (int64_t h = 0; h < dims->heads; h++) {
    for (int64_t i = 0; i < panels; i++) {
      poll_within(device, i, 4 * PANEL * d);
      const float *head = (const float *)state + h * backward_head_words(dims, length);
      const float *from = head + queries * 2 * (d + padded_dim(dims)) / TERMS;
      const bool begun = from[queries * (d + 2) + i] != 0.0F;
      Element *to = (Element *)dq + i * PANEL * stride + h * d;
      if (begun) {
        unpack_panel(panel_queries(length, i), d, factors, from + i * PANEL * d, to, stride);
      } else {
        zero_rows(panel_queries(length, i), d, to, stride);
      }
    }
  }
}

#endif
