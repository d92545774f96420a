/* Chunks of packed documents on the ranks of a ring: pairs are counted right, every rank gets as many chunks,
 * and the work is even wherever documents allow it. */
#include "kernels/comm/balance.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/compare.h"
#include "tests/support/expect.h"
#include "tests/support/unit.h"

enum { MOST_WORDS = 4096 };

/* The marks of documents that are made by chance: lengths between 1 and `longest`, short ones as likely as
 * long ones in every power of two. */
static Documents make_documents(int64_t sequences, int64_t length, int64_t longest, uint64_t seed,
                                uint64_t marks[MOST_WORDS]) {
  const int64_t words = documents_words(length);
  Random random = {seed};
  assert_true(sequences * words <= MOST_WORDS);
  memset(marks, 0, MOST_WORDS * sizeof *marks);
  for (int64_t b = 0; b < sequences; b++) {
    int64_t position = 0;
    for (;;) {
      int64_t most = 1;
      while (most < longest && random_below(&random, 8) > 0) most *= 2;
      position += 1 + random_below(&random, most < longest ? most : longest);
      if (position >= length) break;
      documents_mark(marks + b * words, position);
    }
  }
  return (Documents){.words = words, .marks = marks};
}

/* The rank that has a position. */
static int owner_of(const Layout *layout, int64_t b, int64_t position) {
  for (int rank = 0; rank < layout->ring_size; rank++) {
    for (Run run = {0}; layout_next_run(layout, b, rank, &run);) {
      if (position >= run.start && position < run.start + run.length) return rank;
    }
  }
  fail_msg("position %lld is nowhere", (long long)position);
  return -1;
}

/* The same sums, pair by pair. */
static Balance count_pairs(const Layout *layout, int64_t sequences, const Documents *documents,
                           int64_t window) {
  int64_t hop[8][8] = {{0}};
  Balance balance = {0};
  for (int64_t b = 0; b < sequences; b++) {
    int64_t document = 0;
    for (int64_t query = 0; query < layout->sequence_length; query++) {
      if (documents_marked(documents, b, query)) document = query;
      const int reader = owner_of(layout, b, query);
      for (int64_t key = document; key <= query; key++) {
        if (window > 0 && query - key >= window) continue;
        hop[(reader - owner_of(layout, b, key) + layout->ring_size) % layout->ring_size][reader] += 1;
      }
    }
  }
  for (int rank = 0; rank < layout->ring_size; rank++) {
    int64_t load = 0;
    for (int h = 0; h < layout->ring_size; h++) load += hop[h][rank];
    balance.pairs += load;
    if (load > balance.largest) balance.largest = load;
  }
  for (int h = 0; h < layout->ring_size; h++) {
    int64_t most = 0;
    for (int rank = 0; rank < layout->ring_size; rank++) most = hop[h][rank] > most ? hop[h][rank] : most;
    balance.hops += most;
  }
  return balance;
}

static void check_same(const Balance *a, const Balance *b) {
  assert_int_equal(a->pairs, b->pairs);
  assert_int_equal(a->largest, b->largest);
  assert_int_equal(a->hops, b->hops);
}

/* Every chunk is on one rank, as many on each, in ascending order. */
static void check_chunks(const Layout *layout, int64_t sequences) {
  const int64_t rank_chunks = layout_rank_chunks(layout);
  const int64_t count = rank_chunks * layout->ring_size;
  for (int64_t b = 0; b < sequences; b++) {
    bool seen[1024] = {false};
    for (int64_t i = 0; i < count; i++) {
      const int32_t chunk = layout->chunks[b * count + i];
      assert_true(chunk >= 0 && chunk < count && !seen[chunk]);
      seen[chunk] = true;
      if (i % rank_chunks > 0) assert_true(chunk > layout->chunks[b * count + i - 1]);
    }
  }
}

/* The work that is told, of zigzag and of what was chosen, is that of the layout. */
static void test_pairs(void **state) {
  (void)state;
  static uint64_t marks[MOST_WORDS];
  for (int ring = 1; ring <= 5; ring++) {
    for (int64_t window = 0; window <= 40; window += 20) {
      const int64_t length = 130 + ring;
      const Documents documents = make_documents(2, length, 100, (uint64_t)(ring + window), marks);
      Layout layout = ring == 1 ? layout_zigzag(length, 1) : layout_cut(length, ring, 8);
      int32_t chunks[2 * 5 * 8];
      Balancer balancer;
      Balance told;
      Error error = {0};
      expect_ok(balancer_create(&layout, 2, window, &balancer, &error), &error);
      balancer_measure_zigzag(&balancer, &documents, &told);
      Balance counted = count_pairs(&layout, 2, &documents, window);
      check_same(&told, &counted);
      balancer_choose(&balancer, &documents, chunks, &told);
      layout.chunks = chunks;
      check_chunks(&layout, 2);
      counted = count_pairs(&layout, 2, &documents, window);
      check_same(&told, &counted);
      balancer_free(&balancer);
    }
  }
}

/* Ranks within 10 % of the mean, where no document is too long for chunks of this size; zigzag is further off
 * in at least some batches, or nothing is proved. */
static void test_even(void **state) {
  (void)state;
  static uint64_t marks[MOST_WORDS];
  const int rings[] = {2, 4, 8};
  int uneven = 0;
  for (int r = 0; r < 3; r++) {
    for (uint64_t seed = 0; seed < 40; seed++) {
      const int64_t sequences = 1 + (int64_t)(seed % 3);
      const int64_t length = 16384 + 37 * (int64_t)seed;
      const Documents documents = make_documents(sequences, length, 8192, seed, marks);
      const Layout layout = layout_packed(length, rings[r]);
      int32_t chunks[3 * 128];
      Balancer balancer;
      Balance zigzag;
      Balance chosen;
      Error error = {0};
      expect_ok(balancer_create(&layout, sequences, 0, &balancer, &error), &error);
      balancer_measure_zigzag(&balancer, &documents, &zigzag);
      balancer_choose(&balancer, &documents, chunks, &chosen);
      assert_true(10 * chosen.largest * rings[r] <= 11 * chosen.pairs);
      assert_int_equal(chosen.pairs, zigzag.pairs);
      if (10 * zigzag.largest * rings[r] > 11 * zigzag.pairs) {
        uneven++;
        assert_true(chosen.hops <= zigzag.hops);
      }
      balancer_free(&balancer);
    }
  }
  assert_true(uneven > 20);
}

/* Without documents zigzag is even and stays: its runs are the longest. */
static void test_zigzag_stays(void **state) {
  (void)state;
  for (int ring = 2; ring <= 8; ring++) {
    static const uint64_t marks[65536 / 64];
    const Documents none = {.words = 65536 / 64, .marks = marks};
    Layout layout = layout_packed(65536, ring);
    const Layout zigzag = layout;
    int32_t chunks[8 * 16];
    Balancer balancer;
    Balance balance;
    Error error = {0};
    expect_ok(balancer_create(&layout, 1, 0, &balancer, &error), &error);
    balancer_choose(&balancer, &none, chunks, &balance);
    layout.chunks = chunks;
    for (int rank = 0; rank < ring; rank++) {
      Run got = {0};
      Run expected = {0};
      while (layout_next_run(&zigzag, 0, rank, &expected)) {
        assert_true(layout_next_run(&layout, 0, rank, &got));
        assert_memory_equal(&got, &expected, sizeof got);
      }
      assert_false(layout_next_run(&layout, 0, rank, &got));
    }
    balancer_free(&balancer);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_pairs),
      cmocka_unit_test(test_even),
      cmocka_unit_test(test_zigzag_stays),
  };
  return cmocka_run_group_tests_name("balance", tests, NULL, NULL);
}
