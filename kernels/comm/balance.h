/* Gives the chunks of packed documents to the ranks of a ring, so that each has the same attention to
 * compute.
 *
 * Work is counted in pairs of a query and a key that it sees. Each rank gets as many chunks of every sequence
 * as the others, for memory's sake. The layout is zigzag where that is even enough: its long runs are the
 * fastest. Otherwise the chunks are dealt back and forth in ever smaller groups, and pairs of chunks are
 * exchanged between the rank that has most and the others, until both the ranks and the hops of the ring are
 * even. All of it is whole numbers: every rank that knows the starts of the documents comes to the same
 * layout by itself. */
#ifndef RINGGPT_COMM_BALANCE_H
#define RINGGPT_COMM_BALANCE_H

#include "kernels/base/status.h"
#include "kernels/comm/documents.h"
#include "kernels/comm/layout.h"

/* How even the work of a batch is; all in pairs of query and key. */
typedef struct Balance {
  int64_t pairs;   /* of all ranks */
  int64_t largest; /* of the rank that has most */
  int64_t hops; /* sum, over the hops of the ring, of the largest of any rank: what ranks that wait for each
                   other at every hop would compute */
} Balance;

/* Start with `Balancer balancer = {0};`, end with balancer_free. */
typedef struct Balancer {
  Layout layout; /* without chunks */
  int64_t sequences;
  int64_t window;
  int64_t *queries; /* (sequences, chunks) pairs of the queries of a chunk */
  int64_t *load;    /* (R) pairs of a rank */
  int64_t *hop;     /* (R, R) pairs of a hop on a rank */
  int32_t *owner;   /* (sequences, chunks) rank that has a chunk */
  int32_t *best;    /* (sequences, chunks) the most even owners so far */
} Balancer;

/* Gets ready for batches of `sequences` sequences of a layout (layout_packed, or layout_zigzag to measure
 * it), with a sliding window of `window` keys (0: none). STATUS_SYSTEM. */
Status balancer_create(const Layout *layout, int64_t sequences, int64_t window, Balancer *out, Error *error);

/* The work of the zigzag layout; documents NULL: no document mask. */
void balancer_measure_zigzag(Balancer *balancer, const Documents *documents, Balance *balance);

/* Chooses the owners of the chunks of a batch: chunks (sequences, R, chunks of a rank) as Layout.chunks, and
 * the work that follows. */
void balancer_choose(Balancer *balancer, const Documents *documents, int32_t *chunks, Balance *balance);

/* Releases the arrays; the struct may be zero. */
void balancer_free(Balancer *balancer);

#endif
