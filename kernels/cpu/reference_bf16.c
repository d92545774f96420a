/* The table of reference operations with elements in bf16. */
#define ELEMENTS_ARE_BF16
#include "kernels/cpu/reference.h"

#include "kernels/cpu/attention_reference.h"
#include "kernels/cpu/reference_table.h"

void reference_bf16_fill(Ops *ops) {
  reference_fill(ops);
  reference_table_fill(ops);
  ops->attention = attention_reference_bf16;
}
