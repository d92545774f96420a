/* The table's products in bf16 by oneDNN. */
#if RINGGPT_DNNL

#define ELEMENTS_ARE_BF16
#include "kernels/cpu/products_dnnl.h"
#include "kernels/cpu/products_entries.h"

void products_dnnl_bf16_override(Ops *ops) {
  products_entries_override(ops);
}

#endif
