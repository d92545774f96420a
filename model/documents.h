/* Where the documents of a batch begin, known to every rank of a ring, and from it the first key that each
 * query may see. Masks are position arithmetic: nothing of size T x T exists. */
#ifndef RINGGPT_MODEL_DOCUMENTS_H
#define RINGGPT_MODEL_DOCUMENTS_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/base/status.h"
#include "kernels/comm/comm.h"
#include "kernels/comm/layout.h"

/* Starts of documents in `sequences` sequences; position 0 always starts one and is not listed. */
typedef struct Documents {
  int64_t sequences;
  int64_t *offsets; /* (sequences + 1): sequence b has starts[offsets[b]] ... starts[offsets[b + 1] - 1] */
  int64_t *starts;  /* ascending within a sequence */
} Documents;

/* Gathers what each rank of the ring knows of its own runs: own_starts with own_offsets (sequences + 1).
 * Released with documents_free. Collective over the ring. */
Status documents_gather(Comm *ring, int64_t sequences, const int64_t *own_starts, const int64_t *own_offsets,
                        Documents *documents, Error *error);

/* Releases the arrays; the struct may be zero. */
void documents_free(Documents *documents);

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
