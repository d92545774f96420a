/* Attention in blocks at work, over runs of queries and keys. */
#include "tests/support/attention_runs.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/memory.h"
#include "kernels/base/philox.h"
#include "kernels/device.h"
#include "tests/support/elements.h"
#include "tests/support/unit.h"

/* ---------------------------------------------------------------- inputs */

void *attention_memory(size_t bytes) {
  void *memory = aligned_alloc(MEMORY_ALIGNMENT, (bytes / MEMORY_ALIGNMENT + 1) * MEMORY_ALIGNMENT);
  if (memory == NULL) abort();
  return memset(memory, 0, bytes);
}

static float *normal_numbers(ElementType elements, uint32_t stream, double factor, int64_t count) {
  float *x = attention_memory((size_t)count * sizeof *x);
  for (int64_t i = 0; i < count; i++) {
    uint32_t words[4];
    double pair[2];
    philox_draw(7, PHILOX_WEIGHTS, stream, (uint64_t)i, words);
    philox_normal_pair(words[0], words[1], pair);
    x[i] = element_round(elements, (float)(factor * pair[0]));
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

AttentionInputs attention_inputs(const AttentionCase *c, ElementType elements) {
  AttentionInputs in = {
      .dims = {.heads = c->heads, .kv_heads = c->kv_heads, .head_dim = c->head_dim},
      .q_stride = c->heads * c->head_dim + c->holes,
      .k_stride = c->kv_heads * c->head_dim + c->holes,
      .elements = elements,
  };
  in.dims.scale = (float)(1 / sqrt((double)c->head_dim));
  in.first_key = attention_memory((size_t)c->length * sizeof *in.first_key);
  make_first_keys(c, in.first_key);
  in.q = normal_numbers(elements, 1, c->q_factor > 0 ? c->q_factor : 1, c->length * in.q_stride);
  in.k = normal_numbers(elements, 2, 1, c->length * in.k_stride);
  in.v = normal_numbers(elements, 3, 1, c->length * in.k_stride);
  in.dout = normal_numbers(elements, 4, 1, c->length * in.q_stride);
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

/* ---------------------------------------------------------------- device memory */

/* Room for `bytes`, at least one. */
static void *allocate(Device *device, size_t bytes) {
  Error error = {0};
  void *memory = NULL;
  if (device_alloc(device, bytes > 0 ? bytes : 1, "test array", &memory, &error) != STATUS_OK) {
    fail_msg("%s", error.text);
  }
  return memory;
}

void *attention_to_device(Device *device, size_t bytes, const void *host) {
  void *memory = allocate(device, bytes);
  if (bytes > 0) device_write(device, memory, host, bytes);
  return memory;
}

/* Full of NaN: what is read before it is written shows. */
void *attention_dirty(Device *device, size_t bytes) {
  void *ones = attention_memory(bytes);
  void *memory = attention_to_device(device, bytes, memset(ones, 0xFF, bytes));
  free(ones);
  return memory;
}

elem *attention_elements(Device *device, int64_t count, const float *x) {
  const ElementType elements = elements_of(&device->ops);
  const size_t bytes = elements_bytes(elements, count);
  void *packed = attention_memory(bytes);
  elements_pack(elements, count, x, packed);
  elem *memory = attention_to_device(device, bytes, packed);
  free(packed);
  return memory;
}

static elem *dirty_elements(Device *device, int64_t count) {
  return attention_dirty(device, elements_bytes(elements_of(&device->ops), count));
}

/* Host memory with `count` elements of the device, as floats, which is left without them. */
static float *take_elements(Device *device, int64_t count, elem *x) {
  const ElementType elements = elements_of(&device->ops);
  void *packed = attention_memory(elements_bytes(elements, count));
  float *out = attention_memory((size_t)count * sizeof *out);
  device_read(device, packed, x, elements_bytes(elements, count));
  elements_unpack(elements, count, packed, out);
  device_free(device, x);
  free(packed);
  return out;
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

/* All pointers but those of the host's structures are device memory. */
typedef struct Work {
  Device *device;
  const AttentionOps *ops;
  const AttentionCase *c;
  const AttentionInputs *in;
  int64_t *first_key;     /* (T), global */
  elem *q, *k, *v, *dout; /* with holes */
  void **kv;              /* (runs) */
  void **dkv;             /* (runs) */
} Work;

/* Element `index` of an array of the device. */
static elem *at(const Work *w, elem *array, int64_t index) {
  return (char *)array + index * (int64_t)w->device->ops.elem_size;
}

static void begin_work(Work *w) {
  const AttentionCase *c = w->c;
  const AttentionInputs *in = w->in;
  int64_t *first_key = attention_memory((size_t)c->length * sizeof *first_key);
  for (int64_t i = 0; i < c->length; i++) first_key[i] = c->origin + in->first_key[i];
  w->first_key = attention_to_device(w->device, (size_t)c->length * sizeof *first_key, first_key);
  free(first_key);
  w->q = attention_elements(w->device, c->length * in->q_stride, in->q);
  w->k = attention_elements(w->device, c->length * in->k_stride, in->k);
  w->v = attention_elements(w->device, c->length * in->k_stride, in->v);
  w->dout = attention_elements(w->device, c->length * in->q_stride, in->dout);
  w->kv = attention_memory((size_t)run_count(c, key_run_size(c)) * sizeof *w->kv);
  w->dkv = attention_memory((size_t)run_count(c, key_run_size(c)) * sizeof *w->dkv);
}

static void end_work(Work *w) {
  device_free(w->device, w->first_key);
  device_free(w->device, w->q);
  device_free(w->device, w->k);
  device_free(w->device, w->v);
  device_free(w->device, w->dout);
  free(w->kv);
  free(w->dkv);
}

static void pack_keys(Work *w) {
  const AttentionDims *dims = &w->in->dims;
  for (int64_t run = 0; run < run_count(w->c, key_run_size(w->c)); run++) {
    const Range keys = run_of(w->c, key_run_size(w->c), run);
    const int64_t row = keys.start * w->in->k_stride;
    const size_t dkv_bytes = w->ops->dkv_bytes(dims, keys.length);
    w->kv[run] = attention_dirty(w->device, w->ops->kv_bytes(dims, keys.length));
    w->dkv[run] = attention_dirty(w->device, dkv_bytes);
    device_zero(w->device, w->dkv[run], dkv_bytes);
    w->ops->pack_kv(w->device, dims, keys.length, at(w, w->k, row), at(w, w->v, row), w->in->k_stride,
                    w->kv[run]);
  }
}

/* Whether a case is a whole sequence in one run, and the device computes such at once. */
static bool is_alone(const Work *w) {
  return w->ops->forward_alone != NULL && w->c->origin == 0 && query_run_size(w->c) == w->c->length &&
         key_run_size(w->c) == w->c->length;
}

/* The same bytes in two arrays of the device, the second of which is released. */
static void check_same(const Work *w, const char *what, size_t bytes, const void *expected, void *got) {
  void *host[2] = {attention_memory(bytes), attention_memory(bytes)};
  device_read(w->device, host[0], expected, bytes);
  device_read(w->device, host[1], got, bytes);
  if (memcmp(host[0], host[1], bytes) != 0) fail_msg("%s: another %s alone", w->c->name, what);
  free(host[0]);
  free(host[1]);
  device_free(w->device, got);
}

static AttentionSequence whole_sequence(const Work *w) {
  return (AttentionSequence){.length = w->c->length,
                             .first_key = w->first_key,
                             .q = w->q,
                             .k = w->k,
                             .v = w->v,
                             .q_stride = w->in->q_stride,
                             .kv_stride = w->in->k_stride,
                             .out_stride = w->in->q_stride,
                             .kv = attention_dirty(w->device, w->ops->kv_bytes(&w->in->dims, w->c->length))};
}

/* forward_alone gives the bytes of out and lse, and leaves the holes alone. */
static void check_forward_alone(const Work *w, const elem *out, const float *lse) {
  const AttentionDims *dims = &w->in->dims;
  const AttentionSequence sequence = whole_sequence(w);
  const size_t out_bytes = (size_t)(w->c->length * w->in->q_stride) * w->device->ops.elem_size;
  const size_t lse_bytes = (size_t)(w->c->length * dims->heads) * sizeof *lse;
  elem *alone = attention_dirty(w->device, out_bytes);
  float *alone_lse = attention_dirty(w->device, lse_bytes);
  w->ops->forward_alone(w->device, dims, &sequence, alone, alone_lse);
  check_same(w, "out", out_bytes, out, alone);
  check_same(w, "lse", lse_bytes, lse, alone_lse);
  device_free(w->device, sequence.kv);
}

/* backward_alone gives the bytes of dq and of what dkv of the one run holds. */
static void check_backward_alone(const Work *w, const elem *out, const float *lse, const elem *dq) {
  const AttentionDims *dims = &w->in->dims;
  const AttentionSequence sequence = whole_sequence(w);
  const size_t q_bytes = (size_t)(w->c->length * w->in->q_stride) * w->device->ops.elem_size;
  const size_t k_bytes = (size_t)(w->c->length * w->in->k_stride) * w->device->ops.elem_size;
  elem *expected[2] = {attention_dirty(w->device, k_bytes), attention_dirty(w->device, k_bytes)};
  const AttentionGradients alone = {
      .out = out,
      .lse = lse,
      .dout = w->dout,
      .state = attention_dirty(w->device, w->ops->backward_bytes(dims, w->c->length)),
      .dkv = attention_dirty(w->device, w->ops->dkv_bytes(dims, w->c->length)),
      .dq = attention_dirty(w->device, q_bytes),
      .dk = attention_dirty(w->device, k_bytes),
      .dv = attention_dirty(w->device, k_bytes)};
  w->ops->backward_alone(w->device, dims, &sequence, &alone);
  w->ops->unpack_dkv(w->device, dims, w->c->length, w->dkv[0], expected[0], expected[1], w->in->k_stride);
  check_same(w, "dq", q_bytes, dq, alone.dq);
  check_same(w, "dk", k_bytes, expected[0], alone.dk);
  check_same(w, "dv", k_bytes, expected[1], alone.dv);
  device_free(w->device, expected[0]);
  device_free(w->device, expected[1]);
  device_free(w->device, alone.state);
  device_free(w->device, alone.dkv);
  device_free(w->device, sequence.kv);
}

/* out (length, H, D) with holes, lse (H, length) of one run of queries. */
static void run_forward(Work *w, int64_t query, elem *out, float *lse) {
  const AttentionDims *dims = &w->in->dims;
  const Range run = run_of(w->c, query_run_size(w->c), query);
  void *state = attention_dirty(w->device, w->ops->forward_bytes(dims, run.length));
  w->ops->forward_begin(w->device, dims, run.length, at(w, w->q, run.start * w->in->q_stride),
                        w->in->q_stride, state);
  for (int64_t turn = 0; turn < run_count(w->c, key_run_size(w->c)); turn++) {
    const int64_t key = next_keys(w->c, query, turn);
    const Range keys = run_of(w->c, key_run_size(w->c), key);
    w->ops->forward_block(w->device, dims, run.length, w->c->origin + run.start, w->first_key + run.start,
                          state, keys.length, w->c->origin + keys.start, w->kv[key]);
  }
  w->ops->forward_end(w->device, dims, run.length, state, out, w->in->q_stride, lse);
  device_free(w->device, state);
  if (is_alone(w)) check_forward_alone(w, out, lse);
}

/* dq (length, H, D) with holes of one run of queries; adds to the runs' dkv. */
static void run_backward(Work *w, int64_t query, const elem *out, const float *lse, elem *dq) {
  const AttentionDims *dims = &w->in->dims;
  const Range run = run_of(w->c, query_run_size(w->c), query);
  void *state = attention_dirty(w->device, w->ops->backward_bytes(dims, run.length));
  w->ops->backward_begin(w->device, dims, run.length, at(w, w->q, run.start * w->in->q_stride),
                         w->in->q_stride, out, at(w, w->dout, run.start * w->in->q_stride), w->in->q_stride,
                         lse, state);
  for (int64_t turn = 0; turn < run_count(w->c, key_run_size(w->c)); turn++) {
    const int64_t key = next_keys(w->c, query, turn);
    const Range keys = run_of(w->c, key_run_size(w->c), key);
    w->ops->backward_block(w->device, dims, run.length, w->c->origin + run.start, w->first_key + run.start,
                           state, keys.length, w->c->origin + keys.start, w->kv[key], w->dkv[key]);
  }
  w->ops->backward_end(w->device, dims, run.length, state, dq, w->in->q_stride);
  device_free(w->device, state);
  if (is_alone(w)) check_backward_alone(w, out, lse, dq);
}

/* Takes (length, row) out of rows of `stride` on the device; what lies between the rows must be as it was
 * (NaN). */
static void take_rows(Work *w, int64_t length, int64_t row, int64_t stride, elem *from, float *to) {
  float *rows = take_elements(w->device, length * stride, from);
  for (int64_t i = 0; i < length; i++) {
    memcpy(to + i * row, rows + i * stride, (size_t)row * sizeof *to);
    for (int64_t j = row; j < stride; j++) {
      if (!isnan(rows[i * stride + j])) fail_msg("%s: written behind row %lld", w->c->name, (long long)i);
    }
  }
  free(rows);
}

static void run_queries(Work *w, int64_t query, AttentionOutputs *o) {
  const AttentionDims *dims = &w->in->dims;
  const Range run = run_of(w->c, query_run_size(w->c), query);
  const int64_t row = dims->heads * dims->head_dim;
  const size_t lse_bytes = (size_t)run.length * sizeof(float); /* of a head */
  elem *out = dirty_elements(w->device, run.length * w->in->q_stride);
  float *lse = attention_dirty(w->device, lse_bytes * (size_t)dims->heads);
  elem *dq = dirty_elements(w->device, run.length * w->in->q_stride);
  run_forward(w, query, out, lse);
  run_backward(w, query, out, lse, dq);
  for (int64_t head = 0; head < dims->heads; head++) {
    device_read(w->device, o->lse + head * w->c->length + run.start, lse + head * run.length, lse_bytes);
  }
  device_free(w->device, lse);
  take_rows(w, run.length, row, w->in->q_stride, out, o->out + run.start * row);
  take_rows(w, run.length, row, w->in->q_stride, dq, o->dq + run.start * row);
}

static void unpack_gradients(Work *w, AttentionOutputs *o) {
  const AttentionDims *dims = &w->in->dims;
  const int64_t row = dims->kv_heads * dims->head_dim;
  const int64_t stride = w->in->k_stride;
  for (int64_t run = 0; run < run_count(w->c, key_run_size(w->c)); run++) {
    const Range keys = run_of(w->c, key_run_size(w->c), run);
    elem *dk = dirty_elements(w->device, keys.length * stride);
    elem *dv = dirty_elements(w->device, keys.length * stride);
    w->ops->unpack_dkv(w->device, dims, keys.length, w->dkv[run], dk, dv, stride);
    take_rows(w, keys.length, row, stride, dk, o->dk + keys.start * row);
    take_rows(w, keys.length, row, stride, dv, o->dv + keys.start * row);
    device_free(w->device, w->kv[run]);
    device_free(w->device, w->dkv[run]);
  }
}

AttentionOutputs attention_attend(Device *device, const AttentionCase *c, const AttentionInputs *in) {
  const size_t q_bytes = (size_t)(c->length * c->heads * c->head_dim) * sizeof(float);
  const size_t k_bytes = (size_t)(c->length * c->kv_heads * c->head_dim) * sizeof(float);
  AttentionOutputs o = {.out = attention_memory(q_bytes),
                        .lse = attention_memory((size_t)(c->length * c->heads) * sizeof(float)),
                        .dq = attention_memory(q_bytes),
                        .dk = attention_memory(k_bytes),
                        .dv = attention_memory(k_bytes)};
  Work w = {.device = device, .ops = &device->ops.attention, .c = c, .in = in};
  assert_int_equal(in->elements, elements_of(&device->ops));
  begin_work(&w);
  pack_keys(&w);
  for (int64_t query = 0; query < run_count(c, query_run_size(c)); query++) run_queries(&w, query, &o);
  unpack_gradients(&w, &o);
  end_work(&w);
  Error error = {0};
  if (device_check(device, &error) != STATUS_OK) fail_msg("%s: %s", c->name, error.text);
  return o;
}
