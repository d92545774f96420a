/* The attention blocks for AVX-512 (F, DQ, BW and VL): the fast version on x86-64. */
#ifndef RINGGPT_CPU_ATTENTION_AVX512_H
#define RINGGPT_CPU_ATTENTION_AVX512_H

#include "kernels/ops.h"

/* Elements are floats. Head sizes are multiples of 8 up to 256. Only on x86-64, and only for a CPU that has
 * AVX-512. */
extern const AttentionOps attention_avx512;

#endif
