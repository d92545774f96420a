/* The reference operations: every entry of the table in plain C. They are the meaning of the table, the path
 * of machines without a faster version, and what faster versions are compared with. The contract of each is
 * that of the entry of the same name in kernels/ops.h. Those on elements are written once (reference_*.h) and
 * compiled by one file per type of elements; those on floats alone are the same in every table. */
#ifndef RINGGPT_CPU_REFERENCE_H
#define RINGGPT_CPU_REFERENCE_H

#include "kernels/ops.h"

/* Pieces of the sum of squares: fixed, so that the result does not depend on the number of threads. */
#define SUM_PIECES 256

/* Fill the whole table with the reference operations, attention included: elements are floats, or bf16. */
void reference_fill(Ops *ops);
void reference_bf16_fill(Ops *ops);

void reference_rope_table(Device *device, int64_t n, int64_t d, const int64_t *positions,
                          const double *inverse_frequency, float *table);

void reference_add_f32(Device *device, int64_t count, const float *x, float *y);
void reference_sum(Device *device, int64_t count, const float *x, double *sum);
void reference_sum_of_squares(Device *device, int64_t count, const float *x, double *sum);
void reference_adamw(Device *device, const AdamwStep *step, int64_t count, const float *gradient,
                     float *weights, float *m, float *v);

#endif
