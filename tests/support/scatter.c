/* Layouts whose chunks lie on any rank. */
#include "tests/support/scatter.h"

#include "tests/support/compare.h"

/* Exchanges chunks of two places by chance, then puts those of each rank in order. */
static void scatter_sequence(int64_t ranks, int64_t rank_chunks, Random *random, int32_t *chunks) {
  const int64_t count = ranks * rank_chunks;
  for (int64_t i = 0; i < count; i++) chunks[i] = (int32_t)i;
  for (int64_t i = count - 1; i > 0; i--) {
    const int64_t j = random_below(random, i + 1);
    const int32_t other = chunks[j];
    chunks[j] = chunks[i];
    chunks[i] = other;
  }
  for (int64_t rank = 0; rank < ranks; rank++) {
    int32_t *own = chunks + rank * rank_chunks;
    for (int64_t i = 1; i < rank_chunks; i++) {
      const int32_t chunk = own[i];
      int64_t place = i;
      for (; place > 0 && own[place - 1] > chunk; place--) own[place] = own[place - 1];
      own[place] = chunk;
    }
  }
}

void scatter_chunks(const Layout *layout, int64_t sequences, uint64_t seed, int32_t *chunks) {
  const int64_t rank_chunks = layout_rank_chunks(layout);
  Random random = {seed};
  for (int64_t b = 0; b < sequences; b++) {
    scatter_sequence(layout->ring_size, rank_chunks, &random, chunks + b * layout->ring_size * rank_chunks);
  }
}

int64_t scatter_position(const Layout *layout, int rank, int64_t row) {
  const int64_t local = row % layout->local_length;
  Run run = {0};
  while (layout_next_run(layout, row / layout->local_length, rank, &run)) {
    if (local < run.local + run.length) break;
  }
  return run.start + local - run.local;
}
