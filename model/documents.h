/* The first key that each query may see, from where the documents of a batch begin, which every rank of a
 * ring knows. Masks are position arithmetic: nothing of size T x T exists. */
#ifndef RINGGPT_MODEL_DOCUMENTS_H
#define RINGGPT_MODEL_DOCUMENTS_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/comm/layout.h"

/* The first position that a query at `position` of sequence b may see: the start of its document, or where
 * its sliding window of `window` keys begins (0: no window), whichever is later. `documents` NULL: no mask.
 */
int64_t documents_first_key(const Documents *documents, int64_t b, int64_t position, int64_t window);

/* Fills first_key (length of the run) for the queries of one run of sequence b. Queries in the padding at or
 * beyond sequence_length see nothing. */
void documents_fill_run(const Documents *documents, int64_t b, Run run, int64_t sequence_length,
                        int64_t window, int64_t *first_key);

/* True when some query of `queries` may see some key of `keys`. */
bool documents_visible(const Documents *documents, int64_t b, Run queries, Run keys, int64_t sequence_length,
                       int64_t window);

#endif
