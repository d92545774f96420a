/* The order of samples in an epoch: a pseudo-random permutation of [0, n) that is computed, not stored, so
 * that any place of any epoch is known at once.
 *
 * It is a Feistel network (M. Luby and C. Rackoff, 1988) over the smallest square power of two that holds n,
 * with Philox as its round function; a value that falls outside [0, n) is sent through again until it falls
 * inside ("cycle walking", J. Black and P. Rogaway, 2002), less than four times on average. */
#ifndef RINGGPT_DATA_PERMUTATION_H
#define RINGGPT_DATA_PERMUTATION_H

#include <stdint.h>

typedef struct Permutation {
  uint64_t count;     /* n */
  uint64_t key;       /* of the round function */
  unsigned half_bits; /* bits of each half of the Feistel network */
} Permutation;

/* The permutation of [0, count), count >= 1, for one epoch of a seed at one sequence length. */
Permutation permutation_make(uint64_t seed, int64_t epoch, int64_t sequence_length, int64_t count);

/* The image of `index`, 0 <= index < count. */
int64_t permutation_apply(const Permutation *permutation, int64_t index);

#endif
