/* Which keys a query may see: those before it, of its document and in its sliding window. Masks are position
 * arithmetic on where the documents of a batch begin, which every rank of a ring knows: nothing of size T x T
 * exists. A `window` of 0 is none, `documents` NULL is no document mask. */
#ifndef RINGGPT_MODEL_MASK_H
#define RINGGPT_MODEL_MASK_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/comm/documents.h"
#include "kernels/comm/layout.h"

/* Fills first_key (length of the run) with the first position that each query of a run of sequence b may see:
 * the start of its document or of its window, whichever is later. Queries in the padding at or beyond
 * sequence_length see nothing. */
void mask_fill_run(const Documents *documents, int64_t b, Run run, int64_t sequence_length, int64_t window,
                   int64_t *first_key);

/* Pairs of a query of the run and a key that it sees. */
int64_t mask_pairs(const Documents *documents, int64_t b, Run run, int64_t sequence_length, int64_t window);

/* True when some query of `queries` may see some key of `keys`. */
bool mask_visible(const Documents *documents, int64_t b, Run queries, Run keys, int64_t sequence_length,
                  int64_t window);

#endif
