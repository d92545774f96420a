/* The vectorised operations on floats, which are the same in every table, for the files that compile them for
 * an instruction set. Elements must be floats here. */
#ifndef RINGGPT_CPU_VECTOR_FLOATS_H
#define RINGGPT_CPU_VECTOR_FLOATS_H

#include "kernels/cpu/vector_optimizer.h"

static inline void vector_floats_override(Ops *ops) {
  ops->add_f32 = vector_add_f32;
  ops->sum_of_squares = vector_sum_of_squares;
  ops->adamw = vector_adamw;
}

#endif
