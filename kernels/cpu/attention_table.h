/* The table of attention on vector registers, for the files that compile it for an instruction set and a type
 * of elements: they define ELEMENTS_ARE_BF16 for elements of bf16, then include this, and make the table of
 * ATTENTION_TABLE. */
#ifndef RINGGPT_CPU_ATTENTION_TABLE_H
#define RINGGPT_CPU_ATTENTION_TABLE_H

#include "kernels/cpu/attention_backward.h"
#include "kernels/cpu/attention_forward.h"
#include "kernels/cpu/attention_keys.h"

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
    .backward_begin = attention_backward_begin, .backward_block = attention_backward_block,                  \
    .backward_end = attention_backward_end, .forward_alone = attention_forward_alone,                        \
    .backward_alone = attention_backward_alone,                                                              \
  }

#endif
