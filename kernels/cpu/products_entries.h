/* The table's products by oneDNN: the bodies for any elements. */
#ifndef RINGGPT_CPU_PRODUCTS_ENTRIES_H
#define RINGGPT_CPU_PRODUCTS_ENTRIES_H

#include "kernels/cpu/columns.h"
#include "kernels/cpu/products_blocks.h"

static void dnnl_linear_forward(Device *device, int64_t n, int64_t inputs, int64_t outputs, int64_t y_stride,
                                const elem *x, const elem *w, const elem *bias, elem *y) {
  products_multiply(device, &(Product){.m = n,
                                       .n = outputs,
                                       .k = inputs,
                                       .a = x,
                                       .a_stride = inputs,
                                       .b = w,
                                       .b_transposed = true,
                                       .bias = bias,
                                       .c = y,
                                       .c_stride = y_stride});
}

static void dnnl_linear_backward_input(Device *device, int64_t n, int64_t inputs, int64_t outputs,
                                       int64_t y_stride, const elem *dy, const elem *w, elem *dx) {
  products_multiply(device, &(Product){.m = n,
                                       .n = inputs,
                                       .k = outputs,
                                       .a = dy,
                                       .a_stride = y_stride,
                                       .b = w,
                                       .c = dx,
                                       .c_stride = inputs});
}

static void dnnl_linear_backward_weight(Device *device, int64_t n, int64_t inputs, int64_t outputs,
                                        int64_t y_stride, const elem *dy, const elem *x, float *dw,
                                        float *dbias) {
  products_multiply(device, &(Product){.m = outputs,
                                       .n = inputs,
                                       .k = n,
                                       .a = dy,
                                       .a_stride = y_stride,
                                       .a_transposed = true,
                                       .b = x,
                                       .add = true,
                                       .c = dw,
                                       .c_stride = inputs});
  if (dbias != NULL) columns_add(device, n, outputs, y_stride, dy, dbias);
}

static inline void products_entries_override(Ops *ops) {
  ops->linear_forward = dnnl_linear_forward;
  ops->linear_backward_input = dnnl_linear_backward_input;
  ops->linear_backward_weight = dnnl_linear_backward_weight;
}

#endif
