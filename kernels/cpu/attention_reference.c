/* The attention blocks in plain C, one query at a time, as the equations say. Threads share out heads only,
 * so the order of every sum is fixed.
 *
 * Layouts, per head one behind the other, L the length of the run:
 *   kv        k (L, D), v (L, D)                                   for each of the KV key heads
 *   dkv       dk (L, D), dv (L, D)                                 for each of the KV key heads
 *   forward   q (L, D), weighted values (L, D), maximum (L), sum (L)        for each of the H heads
 *   backward  q (L, D), dout (L, D), dq (L, D), lse (L), delta (L)          for each of the H heads
 */
#include "kernels/cpu/attention_reference.h"
#include "kernels/cpu/poll.h"

#include <math.h>
#include <string.h>

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
static float dot(int64_t d, const float *a, const float *b) {
  float partial[8] = {0};
  for (int64_t j = 0; j < d; j += 8) {
    for (int64_t i = 0; i < 8; i++) partial[i] += a[j + i] * b[j + i];
  }
  return ((partial[0] + partial[1]) + (partial[2] + partial[3])) +
         ((partial[4] + partial[5]) + (partial[6] + partial[7]));
}

/* y (d) += factor x (d). */
static void add_scaled(int64_t d, float factor, const float *x, float *y) {
  for (int64_t j = 0; j < d; j++) y[j] += factor * x[j];
}

/* Copies (length, d) between row strides. */
static void copy_rows(const Device *device, int64_t length, int64_t d, const float *from, int64_t from_stride,
                      float *to, int64_t to_stride) {
  for (int64_t i = 0; i < length; i++) {
    poll_within(device, i, d);
    memcpy(to + i * to_stride, from + i * from_stride, (size_t)d * sizeof(float));
  }
}

/* ---------------------------------------------------------------- sizes */

static int64_t forward_head_floats(const AttentionDims *dims, int64_t length) {
  return length * (2 * dims->head_dim + 2);
}

static int64_t backward_head_floats(const AttentionDims *dims, int64_t length) {
  return length * (3 * dims->head_dim + 2);
}

static size_t kv_bytes(const AttentionDims *dims, int64_t length) {
  return (size_t)(dims->kv_heads * 2 * length * dims->head_dim) * sizeof(float);
}

static size_t forward_bytes(const AttentionDims *dims, int64_t length) {
  return (size_t)(dims->heads * forward_head_floats(dims, length)) * sizeof(float);
}

static size_t backward_bytes(const AttentionDims *dims, int64_t length) {
  return (size_t)(dims->heads * backward_head_floats(dims, length)) * sizeof(float);
}

/* ---------------------------------------------------------------- keys and values */

static void pack_kv(Device *device, const AttentionDims *dims, int64_t length, const elem *k, const elem *v,
                    int64_t stride, void *kv) {
  const int64_t d = dims->head_dim;
  for (int64_t head = 0; head < dims->kv_heads; head++) {
    float *packed = (float *)kv + head * 2 * length * d;
    copy_rows(device, length, d, (const float *)k + head * d, stride, packed, d);
    copy_rows(device, length, d, (const float *)v + head * d, stride, packed + length * d, d);
  }
}

static void unpack_dkv(Device *device, const AttentionDims *dims, int64_t length, const void *dkv, elem *dk,
                       elem *dv, int64_t stride) {
  const int64_t d = dims->head_dim;
  for (int64_t head = 0; head < dims->kv_heads; head++) {
    const float *packed = (const float *)dkv + head * 2 * length * d;
    copy_rows(device, length, d, packed, d, (float *)dk + head * d, stride);
    copy_rows(device, length, d, packed + length * d, d, (float *)dv + head * d, stride);
  }
}

/* ---------------------------------------------------------------- forward */

/* The running state of one head. */
typedef struct ForwardHead {
  float *q;       /* (L, D) */
  float *values;  /* (L, D): sum of exp(score - maximum) v */
  float *maximum; /* (L): largest score so far, -inf before the first */
  float *sum;     /* (L): sum of exp(score - maximum) */
} ForwardHead;

static ForwardHead forward_head(const AttentionDims *dims, int64_t length, float *state, int64_t head) {
  float *start = state + head * forward_head_floats(dims, length);
  const int64_t count = length * dims->head_dim;
  return (ForwardHead){
      .q = start, .values = start + count, .maximum = start + 2 * count, .sum = start + 2 * count + length};
}

static void forward_begin(Device *device, const AttentionDims *dims, int64_t length, const elem *q,
                          int64_t stride, void *state) {
  const int64_t d = dims->head_dim;
  for (int64_t head = 0; head < dims->heads; head++) {
    const ForwardHead to = forward_head(dims, length, state, head);
    copy_rows(device, length, d, (const float *)q + head * d, stride, to.q, d);
    for (int64_t i = 0; i < length * d; i++) to.values[i] = 0.0F;
    for (int64_t i = 0; i < length; i++) {
      to.maximum[i] = -INFINITY;
      to.sum[i] = 0.0F;
    }
  }
}

/* Folds `count` (1 to KEY_CHUNK) visible keys into the state of query i. */
static void fold_keys(const AttentionDims *dims, const ForwardHead *state, int64_t i, int64_t count,
                      const float *k, const float *v) {
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
    const float *k = (const float *)kv + head / group * 2 * key_length * d;
    const float *v = k + key_length * d;
    for (int64_t i = 0; i < query_length; i++) {
      const KeyRange keys = visible_keys(query_start + i, first_key[i], key_start, key_length);
      for (int64_t j = keys.begin; j < keys.end; j += KEY_CHUNK) {
        device_poll(device);
        const int64_t count = keys.end - j < KEY_CHUNK ? keys.end - j : KEY_CHUNK;
        fold_keys(dims, &to, i, count, k + j * d, v + j * d);
      }
    }
  }
}

static void forward_end(Device *device, const AttentionDims *dims, int64_t length, const void *state,
                        elem *out, float *lse) {
  const int64_t d = dims->head_dim;
  for (int64_t head = 0; head < dims->heads; head++) {
    const float *values = (const float *)state + head * forward_head_floats(dims, length) + length * d;
    const float *maximum = values + length * d;
    const float *sum = maximum + length;
    for (int64_t i = 0; i < length; i++) {
      poll_within(device, i, d);
      float *row = (float *)out + (i * dims->heads + head) * d;
      const bool blind = sum[i] == 0.0F; /* a seen key leaves at least exp(0) */
      const float factor = blind ? 0.0F : 1.0F / sum[i];
      for (int64_t j = 0; j < d; j++) row[j] = factor * values[i * d + j];
      lse[head * length + i] = blind ? -INFINITY : maximum[i] + logf(sum[i]);
    }
  }
}

/* ---------------------------------------------------------------- backward */

/* The running state of one head. */
typedef struct BackwardHead {
  float *q;     /* (L, D) */
  float *dout;  /* (L, D) */
  float *dq;    /* (L, D): sum over keys of dscore k, without the scale */
  float *lse;   /* (L) */
  float *delta; /* (L): rowsum(dout * out), which is also the sum of p dp over all keys */
} BackwardHead;

static BackwardHead backward_head(const AttentionDims *dims, int64_t length, float *state, int64_t head) {
  float *start = state + head * backward_head_floats(dims, length);
  const int64_t count = length * dims->head_dim;
  return (BackwardHead){.q = start,
                        .dout = start + count,
                        .dq = start + 2 * count,
                        .lse = start + 3 * count,
                        .delta = start + 3 * count + length};
}

static void backward_begin(Device *device, const AttentionDims *dims, int64_t length, const elem *q,
                           int64_t stride, const elem *out, const elem *dout, const float *lse, void *state) {
  const int64_t d = dims->head_dim;
  const int64_t row = dims->heads * d;
  for (int64_t head = 0; head < dims->heads; head++) {
    const BackwardHead to = backward_head(dims, length, state, head);
    copy_rows(device, length, d, (const float *)q + head * d, stride, to.q, d);
    copy_rows(device, length, d, (const float *)dout + head * d, row, to.dout, d);
    memcpy(to.lse, lse + head * length, (size_t)length * sizeof(float));
    for (int64_t i = 0; i < length * d; i++) to.dq[i] = 0.0F;
    for (int64_t i = 0; i < length; i++) {
      poll_within(device, i, d);
      to.delta[i] = dot(d, to.dout + i * d, (const float *)out + i * row + head * d);
    }
  }
}

/* Passes over the elements of a head for one pair. */
#define PAIR_PASSES 5

/* Adds the gradients of all (query, key) pairs of one query head with its key head. */
static void backward_pairs(const Device *device, const AttentionDims *dims, const BackwardHead *state,
                           int64_t i, KeyRange keys, const float *k, const float *v, float *dk, float *dv) {
  const int64_t d = dims->head_dim;
  const float *q = state->q + i * d;
  const float *dout = state->dout + i * d;
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
    const float *k = (const float *)kv + kv_head * 2 * count;
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
    const float *sum = (const float *)state + head * backward_head_floats(dims, length) + 2 * length * d;
    for (int64_t i = 0; i < length; i++) {
      poll_within(device, i, d);
      float *row = (float *)dq + i * stride + head * d;
      for (int64_t j = 0; j < d; j++) row[j] = dims->scale * sum[i * d + j];
    }
  }
}

const AttentionOps attention_reference = {
    .name = "reference",
    .kv_bytes = kv_bytes,
    .dkv_bytes = kv_bytes,
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
