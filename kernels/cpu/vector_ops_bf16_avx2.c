/* The vectorised operations for AVX2 with FMA, with elements in bf16. */
#define ELEMENTS_ARE_BF16
#include "kernels/cpu/vector_ops.h"

#if defined(__x86_64__)

#include "kernels/cpu/vector_table.h"

void vector_ops_bf16_avx2_override(Ops *ops) {
  vector_ops_avx2_override(ops); /* those on floats */
  vector_table_override(ops);
}

#endif
