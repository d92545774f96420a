/* The vectorised operations on elements in one place, for the files that compile them for an instruction set
 * and a type of elements. */
#ifndef RINGGPT_CPU_VECTOR_TABLE_H
#define RINGGPT_CPU_VECTOR_TABLE_H

#include "kernels/cpu/norm_entries.h"
#include "kernels/cpu/vector_activation.h"
#include "kernels/cpu/vector_dropout.h"
#include "kernels/cpu/vector_loss.h"
#include "kernels/cpu/vector_norm.h"
#include "kernels/cpu/vector_rope.h"

static inline void vector_table_override(Ops *ops) {
  norm_entries_override(ops);
  ops->rope_apply = vector_rope_apply;
  ops->gelu_forward = vector_gelu_forward;
  ops->gelu_backward = vector_gelu_backward;
  ops->swiglu_forward = vector_swiglu_forward;
  ops->swiglu_backward = vector_swiglu_backward;
  ops->dropout = vector_dropout;
  ops->from_floats = vector_from_floats;
  ops->cross_entropy = vector_cross_entropy;
}

#endif
