/* The table of reference operations with elements that are floats. */
#include "kernels/cpu/reference.h"

#include "kernels/cpu/attention_reference.h"
#include "kernels/cpu/reference_table.h"

void reference_fill(Ops *ops) {
  *ops = (Ops){
      .name = "reference",
      .attention = attention_reference,
      .rope_table = reference_rope_table,
      .add_f32 = reference_add_f32,
      .sum = reference_sum,
      .sum_of_squares = reference_sum_of_squares,
      .adamw = reference_adamw,
  };
  reference_table_fill(ops);
}
