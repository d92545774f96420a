/* The order of samples in an epoch. */
#include "data/permutation.h"

#include "kernels/base/philox.h"

/* Four rounds make a Feistel network strong over large halves; small halves need more. */
#define FEISTEL_ROUNDS 8

/* Streams of PHILOX_SAMPLE_ORDER: two that derive the key, and one for each round. */
enum { STREAM_LENGTH, STREAM_EPOCH, STREAM_ROUNDS };

static uint64_t derive_key(uint64_t key, uint32_t stream, uint64_t value) {
  uint32_t words[4];
  philox_draw(key, PHILOX_SAMPLE_ORDER, stream, value, words);
  return (uint64_t)words[1] << 32 | words[0];
}

Permutation permutation_make(uint64_t seed, int64_t epoch, int64_t sequence_length, int64_t count) {
  Permutation permutation = {.count = (uint64_t)count, .half_bits = 1};
  const uint64_t length_key = derive_key(seed, STREAM_LENGTH, (uint64_t)sequence_length);
  permutation.key = derive_key(length_key, STREAM_EPOCH, (uint64_t)epoch);
  while (permutation.half_bits < 32 && permutation.count > (uint64_t)1 << (2 * permutation.half_bits)) {
    permutation.half_bits++;
  }
  return permutation;
}

/* A bijection on [0, 4^half_bits). */
static uint64_t feistel(const Permutation *permutation, uint64_t value) {
  const uint64_t mask = ((uint64_t)1 << permutation->half_bits) - 1;
  uint64_t left = value >> permutation->half_bits;
  uint64_t right = value & mask;
  for (uint32_t round = 0; round < FEISTEL_ROUNDS; round++) {
    uint32_t words[4];
    philox_draw(permutation->key, PHILOX_SAMPLE_ORDER, STREAM_ROUNDS + round, right, words);
    const uint64_t mixed = left ^ (words[0] & mask);
    left = right;
    right = mixed;
  }
  return left << permutation->half_bits | right;
}

int64_t permutation_apply(const Permutation *permutation, int64_t index) {
  uint64_t value = (uint64_t)index;
  do {
    value = feistel(permutation, value);
  } while (value >= permutation->count);
  return (int64_t)value;
}
