/* The median of samples. */
#include "kernels/base/median.h"

#include <stdlib.h>

static int ascending(const void *a, const void *b) {
  const double x = *(const double *)a;
  const double y = *(const double *)b;
  return (x > y) - (x < y);
}

double median(double *values, size_t count) {
  qsort(values, count, sizeof values[0], ascending);
  return 0.5 * (values[(count - 1) / 2] + values[count / 2]);
}
