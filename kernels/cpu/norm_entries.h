/* The table's norms, from two functions that every set of bodies has for its elements: those of
 * kernels/cpu/reference_norm.h and of kernels/cpu/vector_norm.h. RMSNorm is LayerNorm without mean and bias.
 */
#ifndef RINGGPT_CPU_NORM_ENTRIES_H
#define RINGGPT_CPU_NORM_ENTRIES_H

#include <stddef.h>

#include "kernels/cpu/element.h"
#include "kernels/device.h"

/* Arguments as in kernels/ops.h; a NULL mean leaves the mean out, a NULL bias the bias, a NULL dbias its
 * gradient. */
static void norm_forward(const Device *device, int64_t n, int64_t c, float eps, const Element *residual,
                         Element *x, const Element *weight, const Element *bias, Element *y, float *mean,
                         float *rstd);
static void norm_backward(Device *device, int64_t n, int64_t c, const Element *dy, const Element *x,
                          const Element *weight, const float *mean, const float *rstd, Element *dx,
                          float *dweight, float *dbias);

static void layernorm_forward(Device *device, int64_t n, int64_t c, float eps, const elem *residual, elem *x,
                              const elem *weight, const elem *bias, elem *y, float *mean, float *rstd) {
  norm_forward(device, n, c, eps, residual, x, weight, bias, y, mean, rstd);
}

static void layernorm_backward(Device *device, int64_t n, int64_t c, const elem *dy, const elem *x,
                               const elem *weight, const float *mean, const float *rstd, elem *dx,
                               float *dweight, float *dbias) {
  norm_backward(device, n, c, dy, x, weight, mean, rstd, dx, dweight, dbias);
}

static void rmsnorm_forward(Device *device, int64_t n, int64_t c, float eps, const elem *residual, elem *x,
                            const elem *weight, elem *y, float *rstd) {
  norm_forward(device, n, c, eps, residual, x, weight, NULL, y, NULL, rstd);
}

static void rmsnorm_backward(Device *device, int64_t n, int64_t c, const elem *dy, const elem *x,
                             const elem *weight, const float *rstd, elem *dx, float *dweight) {
  norm_backward(device, n, c, dy, x, weight, NULL, rstd, dx, dweight, NULL);
}

static inline void norm_entries_override(Ops *ops) {
  ops->layernorm_forward = layernorm_forward;
  ops->layernorm_backward = layernorm_backward;
  ops->rmsnorm_forward = rmsnorm_forward;
  ops->rmsnorm_backward = rmsnorm_backward;
}

#endif
