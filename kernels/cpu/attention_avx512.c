/* Attention of floats for AVX-512. */
#if defined(__AVX512F__)

#include "kernels/cpu/attention_table.h"
#include "kernels/cpu/attention_vector.h"

const AttentionOps attention_avx512 = ATTENTION_TABLE("avx512");

#endif
