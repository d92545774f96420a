/* The table of reference operations with elements that are floats. */
#include "kernels/cpu/reference.h"

#include "kernels/cpu/attention_reference.h"
#include "kernels/cpu/reference_table.h"

/* What the addition of elements is where these are floats. */
static void add_f32(Device *device, int64_t count, const float *x, float *y) {
  reference_add(device, count, x, y);
}

void reference_fill(Ops *ops) {
  *ops = (Ops){
      .name = "reference",
      .attention = attention_reference,
      .rope_table = reference_rope_table,
      .add_f32 = add_f32,
      .sum = reference_sum,
      .sum_of_squares = reference_sum_of_squares,
      .adamw = reference_adamw,
  };
  reference_table_fill(ops);
}
