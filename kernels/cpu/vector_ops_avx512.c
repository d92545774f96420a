/* The vectorised operations for AVX-512, with elements that are floats. */
#include "kernels/cpu/vector_ops.h"

#if defined(__x86_64__)

#include "kernels/cpu/vector_floats.h"
#include "kernels/cpu/vector_table.h"

void vector_ops_avx512_override(Ops *ops) {
  vector_floats_override(ops);
  vector_table_override(ops);
}

#endif
