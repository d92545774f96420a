/* Attention on vector registers, compiled for several instruction sets; only for CPUs that have them. */
#ifndef RINGGPT_CPU_ATTENTION_VECTOR_H
#define RINGGPT_CPU_ATTENTION_VECTOR_H

#include "kernels/ops.h"

extern const AttentionOps attention_avx2;
extern const AttentionOps attention_avx512;

/* Elements of bf16, which become floats where they are computed with, or are multiplied as they are
 * (AVX512-BF16). */
extern const AttentionOps attention_bf16_avx2;
extern const AttentionOps attention_bf16_avx512;
extern const AttentionOps attention_bf16_avx512bf16;

#endif
