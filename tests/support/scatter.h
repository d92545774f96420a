/* Layouts whose chunks lie on any rank, and where a row of a share lies in the sequence. */
#ifndef RINGGPT_SUPPORT_SCATTER_H
#define RINGGPT_SUPPORT_SCATTER_H

#include "kernels/comm/layout.h"

/* Gives the chunks of each of `sequences` sequences to the ranks by chance, the same for the same seed:
 * chunks (sequences, R, chunks of a rank) for Layout.chunks. */
void scatter_chunks(const Layout *layout, int64_t sequences, uint64_t seed, int32_t *chunks);

/* The position of row `row` of a rank, over all its sequences; at or beyond the sequence's length in the
 * padding.
 */
int64_t scatter_position(const Layout *layout, int rank, int64_t row);

#endif
