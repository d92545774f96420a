/* The table's products by oneDNN: the bodies for any elements. */
#ifndef RINGGPT_CPU_PRODUCTS_ENTRIES_H
#define RINGGPT_CPU_PRODUCTS_ENTRIES_H

#include "kernels/cpu/columns.h"
#include "kernels/cpu/products_blocks.h"

static void dnnl_linear_forward(Device *device, int64_t n, int64_t inputs, int64_t outputs, const elem *x,
                                const elem *w, const elem *bias, elem *y) {
  products_multiply(
      device,
      &(Product){
          .m = n, .n = outputs, .k = inputs, .a = x, .b = w, .b_transposed = true, .bias = bias, .c = y});
}

static void dnnl_linear_backward_input(Device *device, int64_t n, int64_t inputs, int64_t outputs,
                                       const elem *dy, const elem *w, elem *dx) {
  products_multiply(device, &(Product){.m = n, .n = inputs, .k = outputs, .a = dy, .b = w, .c = dx});
}

static void dnnl_linear_backward_weight(Device *device, int64_t n, int64_t inputs, int64_t outputs,
                                        const elem *dy, const elem *x, float *dw, float *dbias) {
  products_multiply(
      device,
      &(Product){
          .m = outputs, .n = inputs, .k = n, .a = dy, .a_transposed = true, .b = x, .add = true, .c = dw});
  if (dbias != NULL) columns_add(device, n, outputs, dy, dbias);
}

static inline void products_entries_override(Ops *ops) {
  ops->linear_forward = dnnl_linear_forward;
  ops->linear_backward_input = dnnl_linear_backward_input;
  ops->linear_backward_weight = dnnl_linear_backward_weight;
}

#endif
