/* Attention backward on vector registers: which part of the queries meets which part of the keys, in which
 * order and on which thread; and a sequence alone. */
#ifndef RINGGPT_CPU_ATTENTION_BACKWARD_H
#define RINGGPT_CPU_ATTENTION_BACKWARD_H

#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/memory.h"
#include "kernels/cpu/attention_backward_panels.h"

/* Queries and keys are cut into chunks for threads to share out: as many as give this many tasks at a time,
 * but none shorter than CHUNK_BLOCKS key blocks, because a task starts with nothing of its own in the cache.
 * The number of threads plays no part, so that it does not change the order of sums. */
#define WANTED_TASKS 64
#define CHUNK_BLOCKS 5

/* ---------------------------------------------------------------- begin and end */

static void attention_backward_begin(Device *device, const AttentionDims *dims, int64_t length, const elem *q,
                                     int64_t stride, const elem *out, const elem *dout, int64_t out_stride,
                                     const float *lse, void *state) {
  const AttentionSequence sequence = {.length = length, .q = q, .q_stride = stride, .out_stride = out_stride};
  const AttentionGradients gradients = {.out = out, .lse = lse, .dout = dout, .state = state};
  const int64_t panels = panel_count(length);
  const int team = team_size(device, dims->heads * length * dims->head_dim / 8);
#pragma omp parallel for num_threads(team) if (team > 1) collapse(2)
  for (int64_t i = 0; i < panels; i++) {
    for (int64_t h = 0; h < dims->heads; h++) {
      poll_within(device, i * dims->heads + h, 4 * PANEL * dims->head_dim);
      begin_gradient(dims, &sequence, &gradients, h, i);
    }
  }
}

static void attention_backward_end(Device *device, const AttentionDims *dims, int64_t length,
                                   const void *state, elem *dq, int64_t stride) {
  const int64_t panels = panel_count(length);
  const int team = team_size(device, dims->heads * length * dims->head_dim / 8);
#pragma omp parallel for num_threads(team) if (team > 1) collapse(2)
  for (int64_t h = 0; h < dims->heads; h++) {
    for (int64_t i = 0; i < panels; i++) {
      poll_within(device, i, 4 * PANEL * dims->head_dim);
      end_gradient(dims, length, state, h, i, dq, stride);
    }
  }
}

/* ---------------------------------------------------------------- turns */

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
  /* By chunk and key head, likewise: whether backward_alone has begun it. The tasks of one chunk follow each
     other. */
  bool queries_begun[WANTED_TASKS];
  bool keys_begun[WANTED_TASKS];
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

/* What a task of backward_alone works on. */
typedef struct TaskParts {
  int64_t kv_head;
  Part queries; /* panels */
  Part keys;    /* blocks */
  bool *queries_begun;
  bool *keys_begun;
} TaskParts;

/* The query heads of a task's key head. */
static Part heads_of(const Call *call, const TaskParts *parts) {
  const int64_t group = call->dims->heads / call->dims->kv_heads;
  return (Part){.begin = parts->kv_head * group, .end = (parts->kv_head + 1) * group};
}

/* The positions of a task's keys. */
static Part keys_of(const Call *call, const TaskParts *parts) {
  return (Part){.begin = parts->keys.begin * KEY_BLOCK,
                .end = min_of(parts->keys.end * KEY_BLOCK, call->key_length)};
}

static void begin_queries(const Call *call, const TaskParts *parts) {
  const Part heads = heads_of(call, parts);
  for (int64_t i = parts->queries.begin; i < parts->queries.end; i++) {
    device_poll(call->device);
    for (int64_t h = heads.begin; h < heads.end; h++) {
      begin_gradient(call->dims, call->sequence, call->gradients, h, i);
    }
  }
}

/* Packs keys and sets their gradient to zero. */
static void begin_keys(const Call *call, const TaskParts *parts) {
  const AttentionSequence *from = call->sequence;
  const Part keys = keys_of(call, parts);
  const int64_t size = dkv_floats(call->dims, call->key_length);
  const int64_t row = padded_dim(call->dims);
  for (int64_t i = keys.begin; i < keys.end; i += TILE) {
    float *dk = call->dkv + parts->kv_head * 2 * size + i * row;
    poll_within(call->device, i / TILE, 4 * TILE * call->dims->head_dim);
    pack_tile(call->dims, call->key_length, from->k, from->v, from->kv_stride, parts->kv_head, i, from->kv);
    memset(dk, 0, (size_t)(TILE * row) * sizeof *dk);
    memset(dk + size, 0, (size_t)(TILE * row) * sizeof *dk);
  }
}

/* Makes what a task reads of its chunks, where it is the first that has work for them. */
static void begin_parts(const Call *call, const TaskParts *parts) {
  if (!*parts->queries_begun) begin_queries(call, parts);
  if (!*parts->keys_begun) begin_keys(call, parts);
  *parts->queries_begun = true;
  *parts->keys_begun = true;
}

/* dq of a chunk whose last turn is over. */
static void end_queries(const Call *call, const TaskParts *parts) {
  const int64_t length = call->run.length;
  const int64_t stride = call->sequence->q_stride;
  const int64_t d = call->dims->head_dim;
  const Part heads = heads_of(call, parts);
  elem *dq = call->gradients->dq;
  for (int64_t i = parts->queries.begin; i < parts->queries.end; i++) {
    device_poll(call->device);
    for (int64_t h = heads.begin; h < heads.end; h++) {
      if (*parts->queries_begun) {
        end_gradient(call->dims, length, call->state, h, i, dq, stride);
      } else {
        zero_rows(panel_queries(length, i), d, (Element *)dq + i * PANEL * stride + h * d, stride);
      }
    }
  }
}

/* dk and dv of a chunk whose last turn is over. */
static void end_keys(const Call *call, const TaskParts *parts) {
  const AttentionGradients *to = call->gradients;
  const int64_t stride = call->sequence->kv_stride;
  const int64_t d = call->dims->head_dim;
  const Part keys = keys_of(call, parts);
  const int64_t at = keys.begin * stride + parts->kv_head * d;
  if (!*parts->keys_begun) {
    zero_rows(keys.end - keys.begin, d, (Element *)to->dk + at, stride);
    zero_rows(keys.end - keys.begin, d, (Element *)to->dv + at, stride);
    return;
  }
  for (int64_t i = keys.begin; i < keys.end; i++) {
    poll_within(call->device, i, 2 * d);
    unpack_key(call->dims, call->key_length, call->dkv, parts->kv_head, i, to->dk, to->dv, stride);
  }
}

/* The task in backward_alone: the turns of a chunk of queries and of the chunk of keys with its number are
 * over with the same one. */
static void run_alone(Turns *turns, const Task *task, Part queries, Part keys) {
  const int64_t query_place = task->query_chunk * turns->kv_heads + task->kv_head;
  const int64_t key_place = task->key_chunk * turns->kv_heads + task->kv_head;
  const bool only = turns->chunks == 1;
  bool begun[2] = {false, false};
  const TaskParts parts = {.kv_head = task->kv_head,
                           .queries = queries,
                           .keys = keys,
                           .queries_begun = only ? &begun[0] : &turns->queries_begun[query_place],
                           .keys_begun = only ? &begun[1] : &turns->keys_begun[key_place]};
  if (parts_meet(turns->call, queries, keys)) {
    begin_parts(turns->call, &parts);
    backward_part(turns->call, task->kv_head, queries, keys);
  }
  if (task->place < turns->chunks - 1) return;
  end_queries(turns->call, &parts);
  end_keys(turns->call, &parts);
}

static void run_task(Turns *turns, int64_t number) {
  const Call *call = turns->call;
  const Task task = task_at(turns, number);
  const Part queries = part_of(panel_count(call->run.length), task.query_chunk, turns->chunks);
  const Part keys = part_of(key_blocks(call->key_length), task.key_chunk, turns->chunks);
  if (call->sequence != NULL) {
    run_alone(turns, &task, queries, keys);
  } else {
    backward_part(call, task.kv_head, queries, keys);
  }
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

/* Chunks of each key head: an even number of tasks at a time. */
static int64_t chunks_of(const AttentionDims *dims, int64_t key_length) {
  const int64_t most = min_of(WANTED_TASKS / dims->kv_heads, key_blocks(key_length) / CHUNK_BLOCKS);
  return max_of(1, most / 2 * 2);
}

static void take_turns(int team, const Call *call) {
  const int64_t kv_heads = call->dims->kv_heads;
  const int64_t chunks = chunks_of(call->dims, call->key_length);
  Turns turns = {.call = call, .chunks = chunks, .kv_heads = kv_heads, .tasks = chunks * chunks * kv_heads};
#pragma omp parallel num_threads(team) if (team > 1)
  run_tasks(&turns);
}

/* Runs a call with memory for its team. */
static void backward_turns(int team, Call *call) {
  const int64_t turned = team * turned_words(call->dims);
  if (turned > 0) {
    Error error = {0};
    void *memory = NULL;
    if (memory_scratch((size_t)turned, sizeof(Word), "attention backward", &memory, &error) != STATUS_OK) {
      device_fail(call->device, error.status, "%s", error.text);
      return;
    }
    call->turned = memory;
  }
  take_turns(team, call);
  free(call->turned);
}

static int backward_team(Device *device, const AttentionDims *dims, int64_t query_length,
                         int64_t key_length) {
  return team_size(device, dims->heads * query_length * key_length * dims->head_dim / 4);
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
  backward_turns(backward_team(device, dims, query_length, key_length), &call);
}

/* ---------------------------------------------------------------- a sequence alone */

/* One operation after the other, each shared out over all threads. */
static void backward_by_operations(Device *device, const AttentionDims *dims, const AttentionSequence *s,
                                   const AttentionGradients *g) {
  attention_pack_kv(device, dims, s->length, s->k, s->v, s->kv_stride, s->kv);
  memset(g->dkv, 0, attention_dkv_bytes(dims, s->length));
  attention_backward_begin(device, dims, s->length, s->q, s->q_stride, g->out, g->dout, s->out_stride, g->lse,
                           g->state);
  attention_backward_block(device, dims, s->length, 0, s->first_key, g->state, s->length, 0, s->kv, g->dkv);
  attention_backward_end(device, dims, s->length, g->state, g->dq, s->q_stride);
  attention_unpack_dkv(device, dims, s->length, g->dkv, g->dk, g->dv, s->kv_stride);
}

static void attention_backward_alone(Device *device, const AttentionDims *dims,
                                     const AttentionSequence *sequence, const AttentionGradients *gradients) {
  const int64_t length = sequence->length;
  const int team = backward_team(device, dims, length, length);
  Call call = {.device = device,
               .dims = dims,
               .run = {.length = length, .start = 0, .first_key = sequence->first_key},
               .state = gradients->state,
               .key_length = length,
               .key_start = 0,
               .kv = sequence->kv,
               .dkv = gradients->dkv,
               .sequence = sequence,
               .gradients = gradients};
  /* Where there are tasks for all threads these begin and end what they have in their caches. */
  if (chunks_of(dims, length) * dims->kv_heads < team) {
    backward_by_operations(device, dims, sequence, gradients);
  } else {
    backward_turns(team, &call);
  }
}

#endif
