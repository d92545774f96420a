/* Dropout in float64, with a Philox4x32-10 of its own, written from J. Salmon et al., "Parallel random
 * numbers: as easy as 1, 2, 3" (SC 2011); it shares no source with the program that it judges. */
#ifndef RINGGPT_REFERENCE_DROPOUT64_H
#define RINGGPT_REFERENCE_DROPOUT64_H

#include <stdint.h>

#include "tests/reference/equations64.h"

/* The masks of a sequence whose tokens have the numbers first_token, first_token + 1, ... */
typedef struct RefDropout {
  double p; /* probability of being set to zero */
  uint64_t seed;
  int64_t first_token;
} RefDropout;

/* Philox4x32-10: counter (4 words) under key (2 words) to words (4). */
void ref_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t words[4]);

/* The word of the element in `column` of `columns` of the token with that number at a place of the model. The
 * words of a token are numbered from token x ceil(columns / 4) blocks on, four to a block; the counter is
 * (number of the block as two words, place, 4), the key the seed as two words. */
uint32_t ref_dropout_word(uint64_t seed, uint32_t place, int64_t token, int64_t columns, int64_t column);

/* 0 where the word is below p 2^32, rounded, 2^32 - 1 at most; else 1 / (1 - p). */
double ref_dropout_factor(double p, uint64_t seed, uint32_t place, int64_t token, int64_t columns,
                          int64_t column);

/* x (T, C) times the factors of a place; nothing for NULL. It is its own derivative. */
void ref_dropout(const RefDropout *dropout, uint32_t place, RefMatrix x);

#endif
