/* The table of reference operations. */
#include "kernels/cpu/reference.h"

#include "kernels/cpu/attention_reference.h"

void reference_fill(Ops *ops) {
  *ops = (Ops){
      .name = "reference",
      .elem_size = sizeof(float),
      .attention = attention_reference,
      .linear_forward = reference_linear_forward,
      .linear_backward_input = reference_linear_backward_input,
      .linear_backward_weight = reference_linear_backward_weight,
      .embedding_forward = reference_embedding_forward,
      .embedding_backward = reference_embedding_backward,
      .layernorm_forward = reference_layernorm_forward,
      .layernorm_backward = reference_layernorm_backward,
      .rmsnorm_forward = reference_rmsnorm_forward,
      .rmsnorm_backward = reference_rmsnorm_backward,
      .rope_table = reference_rope_table,
      .rope_apply = reference_rope_apply,
      .gelu_forward = reference_gelu_forward,
      .gelu_backward = reference_gelu_backward,
      .swiglu_forward = reference_swiglu_forward,
      .swiglu_backward = reference_swiglu_backward,
      .dropout = reference_dropout,
      .from_floats = reference_from_floats,
      .add = reference_add,
      .add_f32 = reference_add_f32,
      .cross_entropy = reference_cross_entropy,
      .sum = reference_sum,
      .sum_of_squares = reference_sum_of_squares,
      .adamw = reference_adamw,
  };
}
