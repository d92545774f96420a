/* Generated sequences of key-value recall, to train on and to test by: multi-query associative recall (MQAR;
 * S. Arora et al., "Zoology: Measuring and Improving Recall in Efficient Language Models", 2023).
 *
 *     position  0  1  2  3      2P-2  2P-1  2P                                T-1
 *     token     k0 v0 k1 v1 ... kP-1  vP-1  0  0  k7  0  k1  0  0  0  k7  0 ...
 *     target                                      v7     v1           v7
 *
 * A sequence begins with P pairs of a key, all different, and a value. Behind them each position is either
 * filler, token 0, or asks for a key, and its target is that key's value; nothing else has a target, and the
 * answers do not stand in the sequence. Keys are the tokens [1, V/2), values [V/2, V). The pairs take at most
 * a quarter of a sequence, so that short ones have fewer.
 *
 * Every token is a function of the seed, the sequence's number, its length and the position alone: each rank
 * of a ring makes its own positions, and all grids see the same sequences. On a ring of R cut in zigzag the
 * rank that holds the pairs has two of 2R chunks, so that most questions are answered by another rank. */
#ifndef RINGGPT_DATA_RECALL_H
#define RINGGPT_DATA_RECALL_H

#include <stdint.h>

#include "data/permutation.h"

/* The least vocabulary, which has one key, and the shortest sequence, which has one pair. */
#define RECALL_LEAST_VOCABULARY 4
#define RECALL_LEAST_LENGTH 8

/* The first number of the sequences that no training comes to: they are for evaluation. */
#define RECALL_HELD_OUT ((int64_t)1 << 62)

typedef struct RecallOptions {
  int64_t vocab_size; /* V, at least RECALL_LEAST_VOCABULARY */
  int64_t pairs;      /* P at most, 1 to recall_keys(V); 0: nothing is generated */
  double queries;     /* share of the positions behind the pairs that ask, above 0, at most 1 */
  uint64_t seed;
} RecallOptions;

/* One sequence. */
typedef struct RecallSequence {
  int64_t length;        /* T */
  int64_t pairs;         /* P of this length */
  int64_t first_value;   /* V/2 */
  int64_t values;        /* V - V/2 */
  uint64_t threshold;    /* 2^32 times the share of queries */
  uint64_t seed;         /* of this sequence */
  Permutation key_order; /* of the keys: pair i has number i of it */
} RecallSequence;

/* Keys of a vocabulary. */
int64_t recall_keys(int64_t vocab_size);

/* Sequence number `index` >= 0 of `length` >= RECALL_LEAST_LENGTH tokens. */
RecallSequence recall_sequence(const RecallOptions *options, int64_t index, int64_t length);

/* The tokens and targets of positions [start, start + count); IGNORED_TARGET (kernels/ops.h) where nothing is
 * asked. What lies behind the sequence is like filler. */
void recall_fill(const RecallSequence *sequence, int64_t start, int64_t count, int32_t *tokens,
                 int32_t *targets);

/* The pair that the position asks for, or -1 where it does not ask. Pair i lies at 2i (key) and 2i + 1. */
int64_t recall_asked(const RecallSequence *sequence, int64_t position);

#endif
