/* The median of samples. */
#ifndef RINGGPT_BASE_MEDIAN_H
#define RINGGPT_BASE_MEDIAN_H

#include <stddef.h>

/* Sorts values (count >= 1), smallest first, and returns the middle one. */
double median(double *values, size_t count);

#endif
