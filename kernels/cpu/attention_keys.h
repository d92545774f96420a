/* Keys and values: packing them, and unpacking their gradient. */
#ifndef RINGGPT_CPU_ATTENTION_KEYS_H
#define RINGGPT_CPU_ATTENTION_KEYS_H

#include "kernels/cpu/attention_pack.h"
#include "kernels/cpu/poll.h"
#include "kernels/device.h"

static size_t attention_kv_bytes(const AttentionDims *dims, int64_t length) {
  return (size_t)(dims->kv_heads * 2 * kv_words(dims, length)) * sizeof(Word);
}

static size_t attention_dkv_bytes(const AttentionDims *dims, int64_t length) {
  return (size_t)(dims->kv_heads * 2 * dkv_floats(dims, length)) * sizeof(float);
}

/* The keys and values of one key head from key `i` on, as many as a tile has; of `length`, row stride
 * `stride`. */
static void pack_tile(const AttentionDims *dims, int64_t length, const Element *k, const Element *v,
                      int64_t stride, int64_t head, int64_t i, Word *kv) {
  const int64_t d = dims->head_dim;
  const int64_t size = kv_words(dims, length);
  const int64_t from = i * stride + head * d;
  Word *packed = kv + head * 2 * size + i * d / TERMS;
  pack_rows(length - i, d, 1.0F, k + from, stride, packed, TILE);
  pack_rows(length - i, d, 1.0F, v + from, stride, packed + size, TILE);
  turn_to_keys(d, packed + size, packed + size);
}

static void attention_pack_kv(Device *device, const AttentionDims *dims, int64_t length, const elem *k,
                              const elem *v, int64_t stride, void *kv) {
  const int team = team_size(device, dims->kv_heads * length * dims->head_dim / 8);
#pragma omp parallel for num_threads(team) if (team > 1) collapse(2)
  for (int64_t i = 0; i < length; i += TILE) {
    for (int64_t head = 0; head < dims->kv_heads; head++) {
      poll_within(device, i / TILE * dims->kv_heads + head, 2 * TILE * dims->head_dim);
      pack_tile(dims, length, k, v, stride, head, i, kv);
    }
  }
}

/* A row of `d` floats, times `factor`, as elements. */
static inline void round_row(int64_t d, float factor, const float *from, Element *to) {
  for (int64_t j = 0; j < d; j += 8) {
    eight_store(to + j, _mm256_mul_ps(_mm256_set1_ps(factor), _mm256_loadu_ps(from + j)));
  }
}

/* The gradients of one key of one key head. */
static inline void unpack_key(const AttentionDims *dims, int64_t length, const float *dkv, int64_t head,
                              int64_t i, Element *dk, Element *dv, int64_t stride) {
  const int64_t d = dims->head_dim;
  const int64_t size = dkv_floats(dims, length);
  const float *from = dkv + head * 2 * size + i * padded_dim(dims);
  round_row(d, dims->scale, from, dk + i * stride + head * d);
  round_row(d, 1.0F, from + size, dv + i * stride + head * d);
}

static void attention_unpack_dkv(Device *device, const AttentionDims *dims, int64_t length, const void *dkv,
                                 elem *dk, elem *dv, int64_t stride) {
  const int team = team_size(device, dims->kv_heads * length * dims->head_dim / 8);
#pragma omp parallel for num_threads(team) if (team > 1)
  for (int64_t i = 0; i < length; i++) {
    poll_within(device, i, 2 * dims->kv_heads * dims->head_dim);
    for (int64_t head = 0; head < dims->kv_heads; head++) {
      unpack_key(dims, length, dkv, head, i, dk, dv, stride);
    }
  }
}

#endif
