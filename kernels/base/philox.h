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
} PhiloxPurpose;

/* Four random words: the block of ten rounds over `counter` (4 words) under `key` (2 words). */
void philox_block(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

/* Four random words for (seed, purpose, stream, index): key = seed; counter = (index, stream and purpose). */
void philox_draw(uint64_t seed, PhiloxPurpose purpose, uint32_t stream, uint64_t index, uint32_t out[4]);

/* Two independent normal numbers of mean 0 and variance 1 from two words, by Box and Muller's transform. */
void philox_normal_pair(uint32_t a, uint32_t b, double out[2]);

#endif
