/* Attention of bf16 for AVX-512, computed in floats. */
#if defined(__AVX512F__)

#define ELEMENTS_ARE_BF16

#include "kernels/cpu/attention_table.h"
#include "kernels/cpu/attention_vector.h"

const AttentionOps attention_bf16_avx512 = ATTENTION_TABLE("avx512");

#endif
