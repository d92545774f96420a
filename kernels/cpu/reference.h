/* The reference operations: every entry of the table in plain C for float elements. They are the meaning of
 * the table, the path of machines without a faster version, and what faster versions are compared with. The
 * contract of each is that of the entry of the same name in kernels/ops.h. */
#ifndef RINGGPT_CPU_REFERENCE_H
#define RINGGPT_CPU_REFERENCE_H

#include "kernels/ops.h"

/* Pieces of the sum of squares: fixed, so that the result does not depend on the number of threads. */
#define SUM_PIECES 256

/* Fills the whole table with the reference operations, attention included. */
void reference_fill(Ops *ops);

void reference_linear_forward(Device *device, int64_t n, int64_t inputs, int64_t outputs, const elem *x,
                              const elem *w, const elem *bias, elem *y);
void reference_linear_backward_input(Device *device, int64_t n, int64_t inputs, int64_t outputs,
                                     const elem *dy, const elem *w, elem *dx);
void reference_linear_backward_weight(Device *device, int64_t n, int64_t inputs, int64_t outputs,
                                      const elem *dy, const elem *x, float *dw, float *dbias);

void reference_embedding_forward(Device *device, int64_t n, int64_t c, const int32_t *tokens,
                                 const int64_t *positions, const elem *wte, const elem *wpe, elem *y);
void reference_embedding_backward(Device *device, int64_t n, int64_t c, const int32_t *tokens,
                                  const int64_t *positions, const elem *dy, float *dwte, float *dwpe);

void reference_layernorm_forward(Device *device, int64_t n, int64_t c, float eps, const elem *x,
                                 const elem *weight, const elem *bias, elem *y, float *mean, float *rstd);
void reference_layernorm_backward(Device *device, int64_t n, int64_t c, const elem *dy, const elem *x,
                                  const elem *weight, const float *mean, const float *rstd, elem *dx,
                                  float *dweight, float *dbias);
void reference_rmsnorm_forward(Device *device, int64_t n, int64_t c, float eps, const elem *x,
                               const elem *weight, elem *y, float *rstd);
void reference_rmsnorm_backward(Device *device, int64_t n, int64_t c, const elem *dy, const elem *x,
                                const elem *weight, const float *rstd, elem *dx, float *dweight);

void reference_rope_table(Device *device, int64_t n, int64_t d, const int64_t *positions,
                          const double *inverse_frequency, float *table);
void reference_rope_apply(Device *device, int64_t n, int64_t heads, int64_t d, int64_t stride,
                          const float *table, bool inverse, elem *x);

void reference_gelu_forward(Device *device, int64_t count, const elem *x, elem *y);
void reference_gelu_backward(Device *device, int64_t count, const elem *x, const elem *dy, elem *dx);
void reference_swiglu_forward(Device *device, int64_t n, int64_t f, const elem *gate_up, elem *y);
void reference_swiglu_backward(Device *device, int64_t n, int64_t f, const elem *gate_up, const elem *dy,
                               elem *dgate_up);
void reference_dropout(Device *device, int64_t n, int64_t c, const DropoutKey *key, const int64_t *rows,
                       const elem *x, elem *y);
void reference_from_floats(Device *device, int64_t count, const float *x, elem *y);
void reference_add(Device *device, int64_t count, const elem *x, elem *y);
void reference_add_f32(Device *device, int64_t count, const float *x, float *y);

void reference_cross_entropy(Device *device, int64_t n, int64_t vocab, elem *logits, const int32_t *targets,
                             bool gradient, float *nll);

void reference_sum(Device *device, int64_t count, const float *x, double *sum);
void reference_sum_of_squares(Device *device, int64_t count, const float *x, double *sum);
void reference_adamw(Device *device, const AdamwStep *step, int64_t count, const float *gradient,
                     float *weights, float *m, float *v);

#endif
