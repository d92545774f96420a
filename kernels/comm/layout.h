/* Which positions of a sequence live on which rank of a ring. Tokens, targets, positions and attention are
 * all cut by this one description, which every rank has for the whole ring.
 *
 * A sequence of T tokens is padded to whole chunks, the same number for each rank. In the zigzag layout, the
 * one without documents, there are 2R chunks and rank r of R holds chunks r and 2R-1-r, so that under a
 * causal mask every rank has the same work at every hop:
 *
 *     R = 4   chunk  0 1 2 3 4 5 6 7
 *             rank   0 1 2 3 3 2 1 0
 *
 * Packed documents see only themselves, and the ranks' work then depends on where they lie: sequences are cut
 * into finer chunks, which kernels/comm/balance.h gives to the ranks anew in every batch. Chunks next to each
 * other on one rank are one run of positions. A ring of one holds the whole sequence as a single chunk.
 */
#ifndef RINGGPT_COMM_LAYOUT_H
#define RINGGPT_COMM_LAYOUT_H

#include <stdbool.h>
#include <stdint.h>

/* A run of consecutive global positions [start, start + length). */
typedef struct Run {
  int64_t start;
  int64_t length;
  int64_t local; /* where it begins in its rank's share of the sequence */
} Run;

/* How the sequences of a batch are cut. Positions at or beyond `sequence_length` are padding. */
typedef struct Layout {
  int64_t sequence_length; /* T, without padding */
  int64_t local_length;    /* positions of a rank, padding included */
  int64_t chunk_length;    /* of all chunks; runs are whole chunks */
  int ring_size;
  const int32_t *chunks; /* (sequences, R, local_length / chunk_length) numbers of each rank's chunks,
                            ascending; NULL: zigzag for all sequences */
} Layout;

/* Sequences of `sequence_length` (>= 1) tokens on a ring of `ring_size` (>= 1), in `rank_chunks` chunks on
 * each rank: an even number, or one on a ring of one. Without `chunks`: zigzag by groups of them. */
Layout layout_cut(int64_t sequence_length, int ring_size, int64_t rank_chunks);

/* The zigzag layout of sequences of `sequence_length` (>= 1) tokens on a ring of `ring_size` (>= 1). */
Layout layout_zigzag(int64_t sequence_length, int ring_size);

/* The same positions for every rank, but for padding, in chunks fine enough to be given out by
 * balance_chunks: for batches with document masks. */
Layout layout_packed(int64_t sequence_length, int ring_size);

/* Chunks of one sequence on one rank. */
int64_t layout_rank_chunks(const Layout *layout);

/* Steps through the runs of rank `rank` in sequence `b`, in ascending order of position: from Run{0} to the
 * first one, from each to the next; false behind the last. On rings of more than one a run ends at the middle
 * of the rank's share, so that each rank has two halves to work on, one before and one after the transfers.
 */
bool layout_next_run(const Layout *layout, int64_t b, int rank, Run *run);

#endif
