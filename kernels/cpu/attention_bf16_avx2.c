/* Attention of bf16 for AVX2, computed in floats. */
#if defined(__AVX2__)

#define ELEMENTS_ARE_BF16

#include "kernels/cpu/attention_table.h"
#include "kernels/cpu/attention_vector.h"

const AttentionOps attention_bf16_avx2 = ATTENTION_TABLE("avx2");

#endif
