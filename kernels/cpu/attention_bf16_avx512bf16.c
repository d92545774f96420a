/* Attention of bf16 for CPUs with vdpbf16ps. */
#if defined(__AVX512BF16__)

#define ELEMENTS_ARE_BF16

#include "kernels/cpu/attention_table.h"
#include "kernels/cpu/attention_vector.h"

const AttentionOps attention_bf16_avx512bf16 = ATTENTION_TABLE("avx512_bf16");

#endif
