/* The reference operations on elements in one place, for the files that compile them for a type of elements.
 */
#ifndef RINGGPT_CPU_REFERENCE_TABLE_H
#define RINGGPT_CPU_REFERENCE_TABLE_H

#include "kernels/cpu/norm_entries.h"
#include "kernels/cpu/reference_activation.h"
#include "kernels/cpu/reference_dropout.h"
#include "kernels/cpu/reference_embedding.h"
#include "kernels/cpu/reference_linear.h"
#include "kernels/cpu/reference_loss.h"
#include "kernels/cpu/reference_norm.h"
#include "kernels/cpu/reference_rope.h"

static inline void reference_table_fill(Ops *ops) {
  ops->elem_size = sizeof(Element);
  ops->linear_forward = reference_linear_forward;
  ops->linear_backward_input = reference_linear_backward_input;
  ops->linear_backward_weight = reference_linear_backward_weight;
  ops->embedding_forward = reference_embedding_forward;
  ops->embedding_backward = reference_embedding_backward;
  norm_entries_override(ops);
  ops->rope_apply = reference_rope_apply;
  ops->gelu_forward = reference_gelu_forward;
  ops->gelu_backward = reference_gelu_backward;
  ops->swiglu_forward = reference_swiglu_forward;
  ops->swiglu_backward = reference_swiglu_backward;
  ops->dropout = reference_dropout;
  ops->from_floats = reference_from_floats;
  ops->cross_entropy = reference_cross_entropy;
}

#endif
