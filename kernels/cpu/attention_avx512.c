/* The table of the AVX-512 attention blocks, and the packing of keys and values. */
#if defined(__AVX512F__)

#include "kernels/cpu/attention_avx512.h"

#include <string.h>

#include "kernels/cpu/attention_layout_avx512.h"
#include "kernels/cpu/attention_pack_avx512.h"
#include "kernels/cpu/poll.h"
#include "kernels/device.h"

static size_t kv_bytes(const AttentionDims *dims, int64_t length) {
  return (size_t)(dims->kv_heads * 2 * kv_floats(dims, length)) * sizeof(float);
}

static size_t dkv_bytes(const AttentionDims *dims, int64_t length) {
  return (size_t)(dims->kv_heads * 2 * dkv_floats(dims, length)) * sizeof(float);
}

static size_t forward_bytes(const AttentionDims *dims, int64_t length) {
  return (size_t)(dims->heads * forward_head_floats(dims, length)) * sizeof(float);
}

static size_t backward_bytes(const AttentionDims *dims, int64_t length) {
  return (size_t)(dims->heads * backward_head_floats(dims, length)) * sizeof(float);
}

static void pack_kv(Device *device, const AttentionDims *dims, int64_t length, const elem *k, const elem *v,
                    int64_t stride, void *kv) {
  const int64_t d = dims->head_dim;
  const int64_t size = kv_floats(dims, length);
  const int team = team_size(device, dims->kv_heads * length * d / 8);
#pragma omp parallel for num_threads(team) if (team > 1) collapse(2)
  for (int64_t head = 0; head < dims->kv_heads; head++) {
    for (int64_t i = 0; i < length; i += TILE) {
      poll_within(device, i / TILE, 2 * TILE * d);
      float *packed = (float *)kv + head * 2 * size + i * d;
      const int64_t from = i * stride + head * d;
      pack_rows(length - i, d, 1.0F, (const float *)k + from, stride, packed, TILE);
      pack_rows(length - i, d, 1.0F, (const float *)v + from, stride, packed + size, TILE);
    }
  }
}

static void unpack_dkv(Device *device, const AttentionDims *dims, int64_t length, const void *dkv, elem *dk,
                       elem *dv, int64_t stride) {
  const int64_t d = dims->head_dim;
  const int64_t row = padded_dim(dims);
  const int64_t size = dkv_floats(dims, length);
  const int team = team_size(device, dims->kv_heads * length * d / 8);
#pragma omp parallel for num_threads(team) if (team > 1)
  for (int64_t i = 0; i < length; i++) {
    poll_within(device, i, 2 * dims->kv_heads * d);
    for (int64_t head = 0; head < dims->kv_heads; head++) {
      const float *from = (const float *)dkv + head * 2 * size + i * row;
      memcpy((float *)dk + i * stride + head * d, from, (size_t)d * sizeof(float));
      memcpy((float *)dv + i * stride + head * d, from + size, (size_t)d * sizeof(float));
    }
  }
}

const AttentionOps attention_avx512 = {
    .name = "avx512",
    .kv_bytes = kv_bytes,
    .dkv_bytes = dkv_bytes,
    .forward_bytes = forward_bytes,
    .backward_bytes = backward_bytes,
    .pack_kv = pack_kv,
    .unpack_dkv = unpack_dkv,
    .forward_begin = attention_forward_begin_avx512,
    .forward_block = attention_forward_block_avx512,
    .forward_end = attention_forward_end_avx512,
    .backward_begin = attention_backward_begin_avx512,
    .backward_block = attention_backward_block_avx512,
    .backward_end = attention_backward_end_avx512,
};

#endif
