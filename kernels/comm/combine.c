/* Adding, or taking the larger, element by element: the one step of which every reduction is made. */
#include "kernels/comm/combine.h"

#define DEFINE_COMBINE(name, type)                                                                           \
  static void name(CommReduction reduction, type *into, const type *x, size_t count) {                       \
    if (reduction == COMM_SUM) {                                                                             \
      for (size_t i = 0; i < count; i++) into[i] += x[i];                                                    \
    } else {                                                                                                 \
      for (size_t i = 0; i < count; i++) into[i] = x[i] > into[i] ? x[i] : into[i];                          \
    }                                                                                                        \
  }
DEFINE_COMBINE(combine_f32, float)
DEFINE_COMBINE(combine_f64, double)
DEFINE_COMBINE(combine_i64, int64_t)

size_t comm_width(CommType type) {
  return type == COMM_F32 ? sizeof(float) : sizeof(double);
}

void comm_combine(CommType type, CommReduction reduction, void *into, const void *x, size_t count) {
  switch (type) {
  case COMM_F32:
    combine_f32(reduction, into, x, count);
    break;
  case COMM_F64:
    combine_f64(reduction, into, x, count);
    break;
  case COMM_I64:
    combine_i64(reduction, into, x, count);
    break;
  }
}
