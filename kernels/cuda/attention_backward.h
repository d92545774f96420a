/* Starts the two backward kernels of attention for a block of queries and keys. */
#ifndef RINGGPT_CUDA_ATTENTION_BACKWARD_H
#define RINGGPT_CUDA_ATTENTION_BACKWARD_H

#include "kernels/cuda/attention_backward_keys.h"
#include "kernels/cuda/attention_backward_queries.h"

template <typename T, int WIDTH> void attention_backward_at(Device *device, const BackwardWork<T> *work) {
  typedef KeyTiles<T, WIDTH> Keys;
  typedef QueryTiles<T, WIDTH> Queries;
  const AttentionBlock *b = &work->block;
  if (!attention_allow_shared(device, attention_backward_keys_kernel<T, WIDTH>, Keys::BYTES)) return;
  if (!attention_allow_shared(device, attention_backward_queries_kernel<T, WIDTH>, Queries::BYTES)) return;
  const dim3 key_grid(attention_tiles(b->key_length, Keys::KEYS), (unsigned)b->kv_heads,
                      attention_tiles(b->head_dim, Keys::SLICE));
  LAUNCH((attention_backward_keys_kernel<T, WIDTH>), key_grid, dim3(Keys::THREADS), Keys::BYTES,
         cuda_stream(device), *work);
  if (!cuda_launched(device, "attention backward, keys")) return;
  const dim3 query_grid(attention_tiles(b->query_length, Queries::QUERIES),
                        (unsigned)(b->kv_heads * b->group));
  LAUNCH((attention_backward_queries_kernel<T, WIDTH>), query_grid, dim3(Queries::THREADS), Queries::BYTES,
         cuda_stream(device), *work);
  cuda_launched(device, "attention backward, queries");
}

template <typename T> void attention_backward_launch(Device *device, const BackwardWork<T> *work) {
  static void (*const at_width[HEAD_WIDTHS])(Device *, const BackwardWork<T> *) = {
      attention_backward_at<T, 32>, attention_backward_at<T, 64>, attention_backward_at<T, 96>,
      attention_backward_at<T, 128>, attention_backward_at<T, 256>};
  const int index = attention_width_index(device, work->block.head_dim);
  if (index >= 0) at_width[index](device, work);
}

#endif
