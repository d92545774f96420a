/* The table of attention on vector registers, for the files that compile it for an instruction set and a type
 * of elements: they define ELEMENTS_ARE_BF16 for elements of bf16, then include this, and make the table of
 * ATTENTION_TABLE. */
#ifndef RINGGPT_CPU_ATTENTION_TABLE_H
#define RINGGPT_CPU_ATTENTION_TABLE_H

#include "kernels/cpu/attention_backward.h"
#include "kernels/cpu/attention_forward.h"

static size_t attention_kv_bytes(const AttentionDims *dims, int64_t length) {
  return (size_t)(dims->kv_heads * 2 * kv_words(dims, length)) * sizeof(Word);
}

static size_t attention_dkv_bytes(const AttentionDims *dims, int64_t length) {
  return (size_t)(dims->kv_heads * 2 * dkv_floats(dims, length)) * sizeof(float);
}

static void attention_pack_kv(Device *device, const AttentionDims *dims, int64_t length, const elem *k,
                              const elem *v, int64_t stride, void *kv) {
  const int64_t d = dims->head_dim;
  const int64_t size = kv_words(dims, length);
  const int team = team_size(device, dims->kv_heads * length * d / 8);
#pragma omp parallel for num_threads(team) if (team > 1) collapse(2)
  for (int64_t i = 0; i < length; i += TILE) {
    for (int64_t head = 0; head < dims->kv_heads; head++) {
      poll_within(device, i / TILE * dims->kv_heads + head, 2 * TILE * d);
      Word *packed = (Word *)kv + head * 2 * size + i * d / TERMS;
      const int64_t from = i * stride + head * d;
      pack_rows(length - i, d, 1.0F, (const Element *)k + from, stride, packed, TILE);
      pack_rows(length - i, d, 1.0F, (const Element *)v + from, stride, packed + size, TILE);
      turn_to_keys(d, packed + size, packed + size);
    }
  }
}

/* A row of `d` floats, times `factor`, as elements. */
static inline void round_row(int64_t d, float factor, const float *from, Element *to) {
  for (int64_t j = 0; j < d; j += 8) {
    eight_store(to + j, _mm256_mul_ps(_mm256_set1_ps(factor), _mm256_loadu_ps(from + j)));
  }
}

static void attention_unpack_dkv(Device *device, const AttentionDims *dims, int64_t length, const void *dkv,
                                 elem *dk, elem *dv, int64_t stride) {
  const int64_t d = dims->head_dim;
  const int64_t row = padded_dim(dims);
  const int64_t size = dkv_floats(dims, length);
  const int team = team_size(device, dims->kv_heads * length * d / 8);
#pragma omp parallel for num_threads(team) if (team > 1)
  for (int64_t i = 0; i < length; i++) {
    poll_within(device, i, 2 * dims->kv_heads * d);
    for (int64_t head = 0; head < dims->kv_heads; head++) {
      const float *from = (const float *)dkv + head * 2 * size + i * row;
      round_row(d, dims->scale, from, (Element *)dk + i * stride + head * d);
      round_row(d, 1.0F, from + size, (Element *)dv + i * stride + head * d);
    }
  }
}

/* From so many positions on a head's keys are many for a cache, and two heads enough for all threads. */
#define LONG_POSITIONS 4096

/* The fewest heads of two and more that divide them evenly; all of a short sequence, where each call of an
 * operation counts. */
static int64_t attention_heads_at_once(const AttentionDims *dims, int64_t length) {
  int64_t heads = 2;
  if (length < LONG_POSITIONS) return dims->kv_heads;
  while (heads < dims->kv_heads && dims->kv_heads % heads != 0) heads++;
  return min_of(heads, dims->kv_heads);
}

#define ATTENTION_TABLE(kind)                                                                                \
  {                                                                                                          \
    .name = (kind), .kv_bytes = attention_kv_bytes, .dkv_bytes = attention_dkv_bytes,                        \
    .heads_at_once = attention_heads_at_once, .forward_bytes = attention_forward_bytes,                      \
    .backward_bytes = attention_backward_bytes, .pack_kv = attention_pack_kv,                                \
    .unpack_dkv = attention_unpack_dkv, .forward_begin = attention_forward_begin,                            \
    .forward_block = attention_forward_block, .forward_end = attention_forward_end,                          \
    .forward_alone = attention_forward_alone, .backward_begin = attention_backward_begin,                    \
    .backward_block = attention_backward_block, .backward_end = attention_backward_end,                      \
  }

#endif
