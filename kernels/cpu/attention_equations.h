/* The attention blocks in plain C, one query at a time, as the equations say: the bodies for any elements.
 * Threads share out heads only, so the order of every sum is fixed.
 *
 * Layouts, per head one behind the other, L the length of the run; q, dout, k and v are elements, the rest
 * floats: kv        k (L, D), v (L, D)                                   for each of the KV key heads dkv dk
 * (L, D), dv (L, D)                                 for each of the KV key heads forward   q (L, D), weighted
 * values (L, D), maximum (L), sum (L)        for each of the H heads backward  q (L, D), dout (L, D), dq (L,
 * D), lse (L), delta (L)          for each of the H heads
 *
 * The file that includes this says by ATTENTION_TABLE what its table is named. */
#ifndef RINGGPT_CPU_ATTENTION_EQUATIONS_H
#define RINGGPT_CPU_ATTENTION_EQUATIONS_H

#include <math.h>
#include <string.h>

#include "kernels/cpu/attention_reference.h"
#include "kernels/cpu/element.h"
#include "kernels/cpu/poll.h"
#include "kernels/device.h"

/* Keys whose scores are taken at a time: the running sum is rescaled once for each such chunk. */
#define KEY_CHUNK 64

/* The keys of a block that one query sees: indices [begin, end) from the block's first key. */
typedef struct KeyRange {
  int64_t begin;
  int64_t end;
} KeyRange;

static int64_t clamp(int64_t value, int64_t low, int64_t high) {
  return value < low ? low : value > high ? high : value;
}

static KeyRange visible_keys(int64_t position, int64_t first_key, int64_t key_start, int64_t key_length) {
  const int64_t key_end = key_start + key_length;
  return (KeyRange){.begin = clamp(first_key, key_start, key_end) - key_start,
                    .end = clamp(position + 1, key_start, key_end) - key_start};
}

/* Eight partial sums: a compiler may use vectors for them, and the rounding error is smaller. */
static float dot(int64_t d, const Element *a, const Element *b) {
  float partial[8] = {0};
  for (int64_t j = 0; j < d; j += 8) {
    for (int64_t i = 0; i < 8; i++) partial[i] += to_float(a[j + i]) * to_float(b[j + i]);
  }
  return ((partial[0] + partial[1]) + (partial[2] + partial[3])) +
         ((partial[4] + partial[5]) + (partial[6] + partial[7]));
}

/* y (d) += factor x (d). */
static void add_scaled(int64_t d, float factor, const Element *x, float *y) {
  for (int64_t j = 0; j < d; j++) y[j] += factor * to_float(x[j]);
}

/* to (length, d) = from, whose rows are `stride` apart. */
static void pack_rows(const Device *device, int64_t length, int64_t d, const Element *from, int64_t stride,
                      Element *to) {
  for (int64_t i = 0; i < length; i++) {
    poll_within(device, i, d);
    memcpy(to + i * d, from + i * stride, (size_t)d * sizeof *to);
  }
}

/* to, whose rows are `stride` apart, = factor from (length, d), rounded. */
static void round_rows(const Device *device, int64_t length, int64_t d, float factor, const float *from,
                       Element *to, int64_t stride) {
  for (int64_t i = 0; i < length; i++) {
    poll_within(device, i, d);
    for (int64_t j = 0; j < d; j++) to[i * stride + j] = from_float(factor * from[i * d + j]);
  }
}

/* ---------------------------------------------------------------- sizes */

static size_t forward_head_bytes(const AttentionDims *dims, int64_t length) {
  const int64_t d = dims->head_dim;
  return (size_t)(length * d) * sizeof(Element) + (size_t)(length * (d + 2)) * sizeof(float);
}

static size_t backward_head_bytes(const AttentionDims *dims, int64_t length) {
  const int64_t d = dims->head_dim;
  return (size_t)(2 * length * d) * sizeof(Element) + (size_t)(length * (d + 2)) * sizeof(float);
}

static size_t kv_bytes(const AttentionDims *dims, int64_t length) {
  return (size_t)(dims->kv_heads * 2 * length * dims->head_dim) * sizeof(Element);
}

static size_t dkv_bytes(const AttentionDims *dims, int64_t length) {
  return (size_t)(dims->kv_heads * 2 * length * dims->head_dim) * sizeof(float);
}

static size_t forward_bytes(const AttentionDims *dims, int64_t length) {
  return (size_t)dims->heads * forward_head_bytes(dims, length);
}

static size_t backward_bytes(const AttentionDims *dims, int64_t length) {
  return (size_t)dims->heads * backward_head_bytes(dims, length);
}

/* What a head's state holds behind its first `elements` elements. */
static const float *head_floats(const void *state, int64_t head, size_t head_bytes, int64_t elements) {
  const char *start = (const char *)state + (size_t)head * head_bytes;
  return (const float *)(const void *)(start + (size_t)elements * sizeof(Element));
}

/* ---------------------------------------------------------------- keys and values */

static void pack_kv(Device *device, const AttentionDims *dims, int64_t length, const elem *k, const elem *v,
                    int64_t stride, void *kv) {
  const int64_t d = dims->head_dim;
  for (int64_t head = 0; head < dims->kv_heads; head++) {
    Element *packed = (Element *)kv + head * 2 * length * d;
    pack_rows(device, length, d, (const Element *)k + head * d, stride, packed);
    pack_rows(device, length, d, (const Element *)v + head * d, stride, packed + length * d);
  }
}

static void unpack_dkv(Device *device, const AttentionDims *dims, int64_t length, const void *dkv, elem *dk,
                       elem *dv, int64_t stride) {
  const int64_t d = dims->head_dim;
  for (int64_t head = 0; head < dims->kv_heads; head++) {
    const float *packed = (const float *)dkv + head * 2 * length * d;
    round_rows(device, length, d, 1.0F, packed, (Element *)dk + head * d, stride);
    round_rows(device, length, d, 1.0F, packed + length * d, (Element *)dv + head * d, stride);
  }
}

/* ---------------------------------------------------------------- forward */

/* The running state of one head. */
typedef struct ForwardHead {
  Element *q;     /* (L, D) */
  float *values;  /* (L, D): sum of exp(score - maximum) v */
  float *maximum; /* (L): largest score so far, -inf before the first */
  float *sum;     /* (L): sum of exp(score - maximum) */
} ForwardHead;

static ForwardHead forward_head(const AttentionDims *dims, int64_t length, void *state, int64_t head) {
  char *start = (char *)state + (size_t)head * forward_head_bytes(dims, length);
  const int64_t count = length * dims->head_dim;
  float *values = (float *)(void *)(start + (size_t)count * sizeof(Element));
  return (ForwardHead){.q = (Element *)(void *)start,
                       .values = values,
                       .maximum = values + count,
                       .sum = values + count + length};
}

static void forward_begin(Device *device, const AttentionDims *dims, int64_t length, const elem *q,
                          int64_t stride, void *state) {
  const int64_t d = dims->head_dim;
  for (int64_t head = 0; head < dims->heads; head++) {
    const ForwardHead to = forward_head(dims, length, state, head);
    pack_rows(device, length, d, (const Element *)q + head * d, stride, to.q);
    for (int64_t i = 0; i < length * d; i++) to.values[i] = 0.0F;
    for (int64_t i = 0; i < length; i++) {
      to.maximum[i] = -INFINITY;
      to.sum[i] = 0.0F;
    }
  }
}

/* Folds `count` (1 to KEY_CHUNK) visible keys into the state of query i. */
static void fold_keys(const AttentionDims *dims, const ForwardHead *state, int64_t i, int64_t count,
                      const Element *k, const Element *v) {
  const int64_t d = dims->head_dim;
  float scores[KEY_CHUNK];
  float maximum = state->maximum[i];
  for (int64_t j = 0; j < count; j++) {
    scores[j] = dims->scale * dot(d, state->q + i * d, k + j * d);
    if (scores[j] > maximum) maximum = scores[j];
  }
  /* At the first key the old maximum is -inf, exp gives 0 and there is nothing to rescale. */
  const float rescale = maximum > state->maximum[i] ? expf(state->maximum[i] - maximum) : 1.0F;
  float *values = state->values + i * d;
  for (int64_t j = 0; j < d; j++) values[j] *= rescale;
  float sum = 0.0F;
  for (int64_t j = 0; j < count; j++) {
    const float p = expf(scores[j] - maximum);
    sum += p;
    add_scaled(d, p, v + j * d, values);
  }
  state->sum[i] = state->sum[i] * rescale + sum;
  state->maximum[i] = maximum;
}

static void forward_block(Device *device, const AttentionDims *dims, int64_t query_length,
                          int64_t query_start, const int64_t *first_key, void *state, int64_t key_length,
                          int64_t key_start, const void *kv) {
  const int64_t d = dims->head_dim;
  const int64_t group = dims->heads / dims->kv_heads;
#pragma omp parallel for num_threads(device->threads) if (device->threads > 1) schedule(dynamic)
  for (int64_t head = 0; head < dims->heads; head++) {
    const ForwardHead to = forward_head(dims, query_length, state, head);
    const Element *k = (const Element *)kv + head / group * 2 * key_length * d;
    const Element *v = k + key_length * d;
    for (int64_t i = 0; i < query_length; i++) {
      const KeyRange keys = visible_keys(query_start + i, first_key[i], key_start, key_length);
      if (device_failed(device)) continue;
      if (keys.begin < keys.end) device_count_pairs(device, keys.end - keys.begin);
      for (int64_t j = keys.begin; j < keys.end; j += KEY_CHUNK) {
        device_poll(device);
        const int64_t count = keys.end - j < KEY_CHUNK ? keys.end - j : KEY_CHUNK;
        fold_keys(dims, &to, i, count, k + j * d, v + j * d);
      }
    }
  }
}

static void forward_end(Device *device, const AttentionDims *dims, int64_t length, const void *state,
                        elem *out, int64_t stride, float *lse) {
  const int64_t d = dims->head_dim;
  for (int64_t head = 0; head < dims->heads; head++) {
    const float *values = head_floats(state, head, forward_head_bytes(dims, length), length * d);
    const float *maximum = values + length * d;
    const float *sum = maximum + length;
    for (int64_t i = 0; i < length; i++) {
      poll_within(device, i, d);
      Element *row = (Element *)out + i * stride + head * d;
      const bool blind = sum[i] == 0.0F; /* a seen key leaves at least exp(0) */
      const float factor = blind ? 0.0F : 1.0F / sum[i];
      for (int64_t j = 0; j < d; j++) row[j] = from_float(factor * values[i * d + j]);
      lse[head * length + i] = blind ? -INFINITY : maximum[i] + logf(sum[i]);
    }
  }
}

/* ---------------------------------------------------------------- backward */

/* The running state of one head. */
typedef struct BackwardHead {
  Element *q;    /* (L, D) */
  Element *dout; /* (L, D) */
  float *dq;     /* (L, D): sum over keys of dscore k, without the scale */
  float *lse;    /* (L) */
  float *delta;  /* (L): rowsum(dout * out), which is also the sum of p dp over all keys */
} BackwardHead;

static BackwardHead backward_head(const AttentionDims *dims, int64_t length, void *state, int64_t head) {
  char *start = (char *)state + (size_t)head * backward_head_bytes(dims, length);
  const int64_t count = length * dims->head_dim;
  float *dq = (float *)(void *)(start + (size_t)(2 * count) * sizeof(Element));
  Element *q = (Element *)(void *)start;
  return (BackwardHead){.q = q, .dout = q + count, .dq = dq, .lse = dq + count, .delta = dq + count + length};
}

static void backward_begin(Device *device, const AttentionDims *dims, int64_t length, const elem *q,
                           int64_t stride, const elem *out, const elem *dout, int64_t out_stride,
                           const float *lse, void *state) {
  const int64_t d = dims->head_dim;
  for (int64_t head = 0; head < dims->heads; head++) {
    const BackwardHead to = backward_head(dims, length, state, head);
    pack_rows(device, length, d, (const Element *)q + head * d, stride, to.q);
    pack_rows(device, length, d, (const Element *)dout + head * d, out_stride, to.dout);
    memcpy(to.lse, lse + head * length, (size_t)length * sizeof(float));
    for (int64_t i = 0; i < length * d; i++) to.dq[i] = 0.0F;
    for (int64_t i = 0; i < length; i++) {
      poll_within(device, i, d);
      to.delta[i] = dot(d, to.dout + i * d, (const Element *)out + i * out_stride + head * d);
    }
  }
}

/* Passes over the elements of a head for one pair. */
#define PAIR_PASSES 5

/* Adds the gradients of all (query, key) pairs of one query head with its key head. */
static void backward_pairs(const Device *device, const AttentionDims *dims, const BackwardHead *state,
                           int64_t i, KeyRange keys, const Element *k, const Element *v, float *dk,
                           float *dv) {
  const int64_t d = dims->head_dim;
  const Element *q = state->q + i * d;
  const Element *dout = state->dout + i * d;
  for (int64_t j = keys.begin; j < keys.end; j++) {
    poll_within(device, j, PAIR_PASSES * d);
    const float p = expf(dims->scale * dot(d, q, k + j * d) - state->lse[i]);
    const float dscore = p * (dot(d, dout, v + j * d) - state->delta[i]);
    add_scaled(d, p, dout, dv + j * d);
    add_scaled(d, dims->scale * dscore, q, dk + j * d);
    add_scaled(d, dscore, k + j * d, state->dq + i * d);
  }
}

static void backward_block(Device *device, const AttentionDims *dims, int64_t query_length,
                           int64_t query_start, const int64_t *first_key, void *state, int64_t key_length,
                           int64_t key_start, const void *kv, void *dkv) {
  const int64_t count = key_length * dims->head_dim;
  const int64_t group = dims->heads / dims->kv_heads;
#pragma omp parallel for num_threads(device->threads) if (device->threads > 1) schedule(dynamic)
  for (int64_t kv_head = 0; kv_head < dims->kv_heads; kv_head++) {
    const Element *k = (const Element *)kv + kv_head * 2 * count;
    float *dk = (float *)dkv + kv_head * 2 * count;
    for (int64_t head = kv_head * group; head < (kv_head + 1) * group; head++) {
      const BackwardHead from = backward_head(dims, query_length, state, head);
      for (int64_t i = 0; i < query_length; i++) {
        const KeyRange keys = visible_keys(query_start + i, first_key[i], key_start, key_length);
        backward_pairs(device, dims, &from, i, keys, k, k + count, dk, dk + count);
      }
    }
  }
}

static void backward_end(Device *device, const AttentionDims *dims, int64_t length, const void *state,
                         elem *dq, int64_t stride) {
  const int64_t d = dims->head_dim;
  for (int64_t head = 0; head < dims->heads; head++) {
    const float *sum = head_floats(state, head, backward_head_bytes(dims, length), 2 * length * d);
    round_rows(device, length, d, dims->scale, sum, (Element *)dq + head * d, stride);
  }
}

static int64_t heads_at_once(const AttentionDims *dims, int64_t length) {
  (void)length;
  return dims->kv_heads;
}

const AttentionOps ATTENTION_TABLE = {
    .name = "reference",
    .kv_bytes = kv_bytes,
    .dkv_bytes = dkv_bytes,
    .heads_at_once = heads_at_once,
    .forward_bytes = forward_bytes,
    .backward_bytes = backward_bytes,
    .pack_kv = pack_kv,
    .unpack_dkv = unpack_dkv,
    .forward_begin = forward_begin,
    .forward_block = forward_block,
    .forward_end = forward_end,
    .backward_begin = backward_begin,
    .backward_block = backward_block,
    .backward_end = backward_end,
};

#endif
