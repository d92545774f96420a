/* The elements of a table as tests see them: host arrays are float, whose numbers are rounded to the table's
 * type where they stand for elements; device arrays hold the type itself. */
#ifndef RINGGPT_SUPPORT_ELEMENTS_H
#define RINGGPT_SUPPORT_ELEMENTS_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/ops.h"

/* The type of a table's elements. */
ElementType elements_of(const Ops *ops);

/* Bytes of `count` elements. */
size_t elements_bytes(ElementType type, int64_t count);

/* The element nearest to x, of two the one whose last bit is 0. */
float element_round(ElementType type, float x);

/* out (count elements) = x (count), rounded; and back. */
void elements_pack(ElementType type, int64_t count, const float *x, void *out);
void elements_unpack(ElementType type, int64_t count, const void *x, float *out);

/* Of the numbers that round to the element `got`, the one nearest to `expected`: what is left of the error
 * when one rounding is taken out of it. For floats, whose bounds count that rounding, it is `got` itself. */
double element_nearest(ElementType type, float got, double expected);

#endif
