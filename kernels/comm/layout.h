/* Which positions of a sequence live on which rank of a ring: the zigzag layout. Tokens, targets, positions
 * and document starts are all cut by this one description.
 *
 * A sequence of T tokens is padded to a multiple of 2R and cut into 2R chunks; rank r of R holds chunks r and
 * 2R-1-r, so that under a causal mask every rank has the same work at every hop:
 *
 *     R = 4   chunk  0 1 2 3 4 5 6 7
 *             rank   0 1 2 3 3 2 1 0
 *
 * A ring of one holds the whole sequence as a single run.
 */
#ifndef RINGGPT_COMM_LAYOUT_H
#define RINGGPT_COMM_LAYOUT_H

#include <stdint.h>

#define LAYOUT_MAX_RUNS 2

/* A run of consecutive global positions [start, start + length). */
typedef struct Run {
  int64_t start;
  int64_t length;
} Run;

/* The share of one rank: its runs in ascending order of position. All ranks have runs of the same length.
 * Positions at or beyond `sequence_length` are padding. */
typedef struct Layout {
  int64_t sequence_length; /* T, without padding */
  int64_t local_length;    /* positions of this rank, padding included: the sum of its runs */
  int run_count;           /* 1 for a ring of one, else 2 */
  Run runs[LAYOUT_MAX_RUNS];
} Layout;

/* The share of rank `ring_rank` of `ring_size` (>= 1) in a sequence of `sequence_length` (>= 1) tokens. */
Layout layout_zigzag(int64_t sequence_length, int ring_rank, int ring_size);

#endif
