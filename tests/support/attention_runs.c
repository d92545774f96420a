/* Attention in blocks at work, over runs of queries and keys. */
#include "tests/support/attention_runs.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/memory.h"
#include "kernels/base/philox.h"
#include "kernels/device.h"

/* ---------------------------------------------------------------- inputs */

void *attention_memory(size_t bytes) {
  void *memory = aligned_alloc(MEMORY_ALIGNMENT, (bytes / MEMORY_ALIGNMENT + 1) * MEMORY_ALIGNMENT);
  if (memory == NULL) abort();
  return memset(memory, 0, bytes);
}

/* Memory full of NaN: what is read before it is written shows. */
static void *allocate_dirty(size_t bytes) {
  return memset(attention_memory(bytes), 0xFF, bytes);
}

static float *normal_numbers(uint32_t stream, double factor, int64_t count) {
  float *x = attention_memory((size_t)count * sizeof *x);
  for (int64_t i = 0; i < count; i++) {
    uint32_t words[4];
    double pair[2];
    philox_draw(7, PHILOX_WEIGHTS, stream, (uint64_t)i, words);
    philox_normal_pair(words[0], words[1], pair);
    x[i] = (float)(factor * pair[0]);
  }
  return x;
}

/* Documents have between half and one and a half times the wanted length. */
static void make_first_keys(const AttentionCase *c, int64_t *first_key) {
  int64_t document_start = 0;
  int64_t document_end = c->document > 0 ? c->document / 2 + 1 : c->length;
  for (int64_t i = 0; i < c->length; i++) {
    if (i == document_end) {
      uint32_t words[4];
      philox_draw(8, PHILOX_WEIGHTS, 0, (uint64_t)i, words);
      document_start = document_end;
      document_end += c->document / 2 + 1 + (int64_t)words[0] % c->document;
    }
    first_key[i] = document_start;
    if (c->window > 0 && i - c->window + 1 > first_key[i]) first_key[i] = i - c->window + 1;
    if (i >= c->blind_start && i < c->blind_end) first_key[i] = c->blind_end;
    if (i > 0 && first_key[i] < first_key[i - 1]) first_key[i] = first_key[i - 1];
  }
}

AttentionInputs attention_inputs(const AttentionCase *c) {
  AttentionInputs in = {
      .dims = {.heads = c->heads, .kv_heads = c->kv_heads, .head_dim = c->head_dim},
      .q_stride = c->heads * c->head_dim + c->holes,
      .k_stride = c->kv_heads * c->head_dim + c->holes,
  };
  in.dims.scale = (float)(1 / sqrt((double)c->head_dim));
  in.first_key = attention_memory((size_t)c->length * sizeof *in.first_key);
  make_first_keys(c, in.first_key);
  in.q = normal_numbers(1, c->q_factor > 0 ? c->q_factor : 1, c->length * in.q_stride);
  in.k = normal_numbers(2, 1, c->length * in.k_stride);
  in.v = normal_numbers(3, 1, c->length * in.k_stride);
  in.dout = normal_numbers(4, 1, c->length * c->heads * c->head_dim);
  return in;
}

void attention_inputs_free(AttentionInputs *in) {
  free(in->first_key);
  free(in->q);
  free(in->k);
  free(in->v);
  free(in->dout);
}

void attention_outputs_free(AttentionOutputs *o) {
  free(o->out);
  free(o->lse);
  free(o->dq);
  free(o->dk);
  free(o->dv);
}

/* ---------------------------------------------------------------- an implementation at work */

/* A run of tokens. */
typedef struct Range {
  int64_t start;
  int64_t length;
} Range;

static int64_t query_run_size(const AttentionCase *c) {
  return c->run > 0 ? c->run : c->length;
}

static int64_t key_run_size(const AttentionCase *c) {
  return c->key_run > 0 ? c->key_run : query_run_size(c);
}

static int64_t run_count(const AttentionCase *c, int64_t size) {
  return (c->length + size - 1) / size;
}

/* Run `run` of a sequence that is cut into runs of `size` tokens. */
static Range run_of(const AttentionCase *c, int64_t size, int64_t run) {
  const int64_t left = c->length - run * size;
  return (Range){.start = run * size, .length = left < size ? left : size};
}

/* Ranks pass on their two runs: at every second turn those of the rank before. */
static int64_t zigzag_run(int64_t runs, int64_t query, int64_t turn) {
  const int64_t ring = runs / 2;
  const int64_t rank = query < ring ? query : runs - 1 - query;
  const int64_t source = (rank - turn / 2 + ring) % ring;
  return turn % 2 == 0 ? source : runs - 1 - source;
}

/* The key run that comes to query run `query` at turn `turn`. */
static int64_t next_keys(const AttentionCase *c, int64_t query, int64_t turn) {
  const int64_t runs = run_count(c, key_run_size(c));
  switch (c->order) {
  case ORDER_DESCENDING:
    return runs - 1 - turn;
  case ORDER_RING:
    return (query - turn + runs) % runs;
  case ORDER_ZIGZAG:
    return zigzag_run(runs, query, turn);
  case ORDER_ASCENDING:
  default:
    return turn;
  }
}

typedef struct Work {
  const AttentionOps *ops;
  Device device;
  const AttentionCase *c;
  const AttentionInputs *in;
  int64_t *first_key; /* (T), global */
  void **kv;          /* (runs) */
  void **dkv;         /* (runs) */
} Work;

static void pack_keys(Work *w) {
  for (int64_t run = 0; run < run_count(w->c, key_run_size(w->c)); run++) {
    const Range keys = run_of(w->c, key_run_size(w->c), run);
    const int64_t row = keys.start * w->in->k_stride;
    w->kv[run] = allocate_dirty(w->ops->kv_bytes(&w->in->dims, keys.length));
    w->dkv[run] = attention_memory(w->ops->dkv_bytes(&w->in->dims, keys.length));
    w->ops->pack_kv(&w->device, &w->in->dims, keys.length, w->in->k + row, w->in->v + row, w->in->k_stride,
                    w->kv[run]);
  }
}

/* out (length, H, D), lse (H, length) of one run of queries. */
static void run_forward(Work *w, int64_t query, float *out, float *lse) {
  const AttentionDims *dims = &w->in->dims;
  const Range run = run_of(w->c, query_run_size(w->c), query);
  void *state = allocate_dirty(w->ops->forward_bytes(dims, run.length));
  w->ops->forward_begin(&w->device, dims, run.length, w->in->q + run.start * w->in->q_stride, w->in->q_stride,
                        state);
  for (int64_t turn = 0; turn < run_count(w->c, key_run_size(w->c)); turn++) {
    const int64_t key = next_keys(w->c, query, turn);
    const Range keys = run_of(w->c, key_run_size(w->c), key);
    w->ops->forward_block(&w->device, dims, run.length, w->c->origin + run.start, w->first_key + run.start,
                          state, keys.length, w->c->origin + keys.start, w->kv[key]);
  }
  w->ops->forward_end(&w->device, dims, run.length, state, out, lse);
  free(state);
}

/* dq (length, H, D) with holes of one run of queries; adds to the runs' dkv. */
static void run_backward(Work *w, int64_t query, const float *out, const float *lse, float *dq) {
  const AttentionDims *dims = &w->in->dims;
  const Range run = run_of(w->c, query_run_size(w->c), query);
  void *state = allocate_dirty(w->ops->backward_bytes(dims, run.length));
  w->ops->backward_begin(&w->device, dims, run.length, w->in->q + run.start * w->in->q_stride,
                         w->in->q_stride, out, w->in->dout + run.start * dims->heads * dims->head_dim, lse,
                         state);
  for (int64_t turn = 0; turn < run_count(w->c, key_run_size(w->c)); turn++) {
    const int64_t key = next_keys(w->c, query, turn);
    const Range keys = run_of(w->c, key_run_size(w->c), key);
    w->ops->backward_block(&w->device, dims, run.length, w->c->origin + run.start, w->first_key + run.start,
                           state, keys.length, w->c->origin + keys.start, w->kv[key], w->dkv[key]);
  }
  w->ops->backward_end(&w->device, dims, run.length, state, dq, w->in->q_stride);
  free(state);
}

/* Copies (length, row) out of rows of `stride`; what lies between the rows must be as it was (NaN). */
static void close_holes(int64_t length, int64_t row, int64_t stride, const float *from, float *to) {
  for (int64_t i = 0; i < length; i++) {
    memcpy(to + i * row, from + i * stride, (size_t)row * sizeof *to);
    for (int64_t j = row; j < stride; j++) {
      if (!isnan(from[i * stride + j])) abort();
    }
  }
}

static void run_queries(Work *w, int64_t query, AttentionOutputs *o) {
  const AttentionDims *dims = &w->in->dims;
  const Range run = run_of(w->c, query_run_size(w->c), query);
  const int64_t row = dims->heads * dims->head_dim;
  float *out = o->out + run.start * row;
  float *lse = allocate_dirty((size_t)(run.length * dims->heads) * sizeof *lse);
  float *dq = allocate_dirty((size_t)(run.length * w->in->q_stride) * sizeof *dq);
  run_forward(w, query, out, lse);
  run_backward(w, query, out, lse, dq);
  for (int64_t head = 0; head < dims->heads; head++) {
    memcpy(o->lse + head * w->c->length + run.start, lse + head * run.length,
           (size_t)run.length * sizeof *lse);
  }
  close_holes(run.length, row, w->in->q_stride, dq, o->dq + run.start * row);
  free(lse);
  free(dq);
}

static void unpack_gradients(Work *w, AttentionOutputs *o) {
  const AttentionDims *dims = &w->in->dims;
  const int64_t row = dims->kv_heads * dims->head_dim;
  for (int64_t run = 0; run < run_count(w->c, key_run_size(w->c)); run++) {
    const Range keys = run_of(w->c, key_run_size(w->c), run);
    const size_t bytes = (size_t)(keys.length * w->in->k_stride) * sizeof(float);
    float *dk = allocate_dirty(bytes);
    float *dv = allocate_dirty(bytes);
    w->ops->unpack_dkv(&w->device, dims, keys.length, w->dkv[run], dk, dv, w->in->k_stride);
    close_holes(keys.length, row, w->in->k_stride, dk, o->dk + keys.start * row);
    close_holes(keys.length, row, w->in->k_stride, dv, o->dv + keys.start * row);
    free(dk);
    free(dv);
    free(w->kv[run]);
    free(w->dkv[run]);
  }
}

AttentionOutputs attention_attend(const AttentionOps *ops, int threads, const AttentionCase *c,
                                  const AttentionInputs *in) {
  const size_t q_bytes = (size_t)(c->length * c->heads * c->head_dim) * sizeof(float);
  const size_t k_bytes = (size_t)(c->length * c->kv_heads * c->head_dim) * sizeof(float);
  AttentionOutputs o = {.out = allocate_dirty(q_bytes),
                        .lse = allocate_dirty((size_t)(c->length * c->heads) * sizeof(float)),
                        .dq = allocate_dirty(q_bytes),
                        .dk = allocate_dirty(k_bytes),
                        .dv = allocate_dirty(k_bytes)};
  Work w = {.ops = ops, .device = {.threads = threads}, .c = c, .in = in};
  w.kv = attention_memory((size_t)run_count(c, key_run_size(c)) * sizeof *w.kv);
  w.dkv = attention_memory((size_t)run_count(c, key_run_size(c)) * sizeof *w.dkv);
  w.first_key = attention_memory((size_t)c->length * sizeof *w.first_key);
  for (int64_t i = 0; i < c->length; i++) w.first_key[i] = c->origin + in->first_key[i];
  pack_keys(&w);
  for (int64_t query = 0; query < run_count(c, query_run_size(c)); query++) run_queries(&w, query, &o);
  unpack_gradients(&w, &o);
  free(w.kv);
  free(w.dkv);
  free(w.first_key);
  return o;
}
