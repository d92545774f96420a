/* Attention of floats for AVX2. */
#if defined(__AVX2__)

#include "kernels/cpu/attention_table.h"
#include "kernels/cpu/attention_vector.h"

const AttentionOps attention_avx2 = ATTENTION_TABLE("avx2");

#endif
