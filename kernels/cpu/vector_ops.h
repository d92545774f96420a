/* The vectorised operations of each instruction set. They are written once (vector_*.h, on the words of
 * kernels/cpu/vector.h) and compiled by one file per instruction set, with its flags, and type of elements.
 */
#ifndef RINGGPT_CPU_VECTOR_OPS_H
#define RINGGPT_CPU_VECTOR_OPS_H

#include "kernels/ops.h"

/* Override the entries of the table that gain from vectors, products and attention's blocks excepted;
 * elements are floats, or bf16. Only on x86-64, and only for a CPU with AVX2 and FMA, or AVX-512 F, DQ, BW
 * and VL, the last one with BF16 besides. */
void vector_ops_avx2_override(Ops *ops);
void vector_ops_avx512_override(Ops *ops);
void vector_ops_bf16_avx2_override(Ops *ops);
void vector_ops_bf16_avx512_override(Ops *ops);
void vector_ops_bf16_avx512bf16_override(Ops *ops);

#endif
