/* Generated sequences of key-value recall. */
#include "data/recall.h"

#include "kernels/base/philox.h"
#include "kernels/ops.h"

/* Streams of PHILOX_RECALL under the seed of a sequence: one for the values of the pairs, one for what stands
 * behind them. The sequences' own seeds are drawn under the seed of all, in two steps as permutation_make's.
 */
enum { STREAM_LENGTH, STREAM_INDEX, STREAM_VALUE, STREAM_POSITION };

static uint64_t derive_seed(uint64_t seed, uint32_t stream, uint64_t number) {
  uint32_t words[4];
  philox_draw(seed, PHILOX_RECALL, stream, number, words);
  return (uint64_t)words[1] << 32 | words[0];
}

/* A number below `count` from a random word. */
static int64_t below(uint32_t word, int64_t count) {
  return (int64_t)((uint64_t)word * (uint64_t)count >> 32);
}

int64_t recall_keys(int64_t vocab_size) {
  return vocab_size / 2 - 1;
}

RecallSequence recall_sequence(const RecallOptions *options, int64_t index, int64_t length) {
  const int64_t most = length / RECALL_LEAST_LENGTH;
  RecallSequence sequence = {.length = length,
                             .pairs = options->pairs < most ? options->pairs : most,
                             .first_value = options->vocab_size / 2,
                             .values = options->vocab_size - options->vocab_size / 2,
                             .threshold = (uint64_t)(options->queries * 0x1p32)};
  sequence.seed = derive_seed(options->seed, STREAM_LENGTH, (uint64_t)length);
  sequence.seed = derive_seed(sequence.seed, STREAM_INDEX, (uint64_t)index);
  sequence.key_order = permutation_make(sequence.seed, 0, 0, recall_keys(options->vocab_size));
  return sequence;
}

static int32_t key_of(const RecallSequence *sequence, int64_t pair) {
  return (int32_t)(1 + permutation_apply(&sequence->key_order, pair));
}

static int32_t value_of(const RecallSequence *sequence, int64_t pair) {
  uint32_t words[4];
  philox_draw(sequence->seed, PHILOX_RECALL, STREAM_VALUE, (uint64_t)pair, words);
  return (int32_t)(sequence->first_value + below(words[0], sequence->values));
}

int64_t recall_asked(const RecallSequence *sequence, int64_t position) {
  uint32_t words[4];
  if (position < 2 * sequence->pairs || position >= sequence->length) return -1;
  philox_draw(sequence->seed, PHILOX_RECALL, STREAM_POSITION, (uint64_t)position, words);
  return words[0] < sequence->threshold ? below(words[1], sequence->pairs) : -1;
}

void recall_fill(const RecallSequence *sequence, int64_t start, int64_t count, int32_t *tokens,
                 int32_t *targets) {
  for (int64_t i = 0; i < count; i++) {
    const int64_t position = start + i;
    const int64_t asked = recall_asked(sequence, position);
    tokens[i] = 0;
    targets[i] = IGNORED_TARGET;
    if (asked >= 0) {
      tokens[i] = key_of(sequence, asked);
      targets[i] = value_of(sequence, asked);
    } else if (position < 2 * sequence->pairs) {
      const int64_t pair = position / 2;
      tokens[i] = position % 2 == 0 ? key_of(sequence, pair) : value_of(sequence, pair);
    }
  }
}
