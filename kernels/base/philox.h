/* Philox4x32-10, a counter-based random number generator: the same numbers for every grid and device.
 * J. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011; cuRAND has the same generator. */
#ifndef RINGGPT_BASE_PHILOX_H
#define RINGGPT_BASE_PHILOX_H

#include <stdint.h>

/* What a stream of numbers is for; part of the key, so that streams never meet. */
typedef enum PhiloxPurpose {
  PHILOX_WEIGHTS = 1,
  PHILOX_SAMPLE_ORDER = 2,
  PHILOX_DATA_SPLIT = 3,
  PHILOX_DROPOUT = 4,
  PHILOX_SAMPLING = 5,
  PHILOX_RECALL = 6,
  PHILOX_TASK = 7,
} PhiloxPurpose;

/* The two multipliers of a round, and what the two words of the key grow by from round to round. */
#define PHILOX_MULTIPLIER_0 0xD2511F53U
#define PHILOX_MULTIPLIER_1 0xCD9E8D57U
#define PHILOX_KEY_STEP_0 0x9E3779B9U
#define PHILOX_KEY_STEP_1 0xBB67AE85U
#define PHILOX_ROUNDS 10

/* Four random words: the block of ten rounds over `counter` (4 words) under `key` (2 words). */
void philox_block(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

/* Four random words for (seed, purpose, stream, index): key = seed; counter = (index, stream, purpose).
 * cuRAND has them for its seed `seed`, subsequence stream + 2^32 purpose and offset 4 index. */
void philox_draw(uint64_t seed, PhiloxPurpose purpose, uint32_t stream, uint64_t index, uint32_t out[4]);

/* Two independent normal numbers of mean 0 and variance 1 from two words, by Box and Muller's transform. */
void philox_normal_pair(uint32_t a, uint32_t b, double out[2]);

#endif
