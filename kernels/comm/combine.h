/* Adding, or taking the larger, element by element: the one step of which every reduction is made. */
#ifndef RINGGPT_COMM_COMBINE_H
#define RINGGPT_COMM_COMBINE_H

#include <stddef.h>

#include "kernels/comm/comm.h"

/* Bytes of an element. */
size_t comm_width(CommType type);

/* into[i] becomes into[i] + x[i], or the larger of the two, for `count` elements. Both are aligned to the
 * element and do not overlap. */
void comm_combine(CommType type, CommReduction reduction, void *into, const void *x, size_t count);

#endif
