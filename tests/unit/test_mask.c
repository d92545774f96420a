/* Marks of documents and what follows from them, against loops over single positions. */
#include <string.h>

#include "kernels/comm/documents.h"
#include "model/mask.h"
#include "tests/support/compare.h"
#include "tests/support/unit.h"

enum { SEQUENCES = 2, MOST = 300, MOST_MARKS = SEQUENCES * (MOST / 64 + 1) };

/* Sequences with a document start at every position by the chance of 1 in `rarity`. */
typedef struct Case {
  int64_t length;
  int64_t window;
  uint64_t marks[MOST_MARKS];
  Documents documents;
  int64_t start[SEQUENCES][MOST]; /* of the document of each position */
  int64_t first[SEQUENCES][MOST]; /* key that each position sees */
} Case;

static void make_case(Case *made, int64_t length, int64_t rarity, int64_t window, Random *random) {
  memset(made, 0, sizeof *made);
  made->length = length;
  made->window = window;
  made->documents = (Documents){.words = documents_words(length), .marks = made->marks};
  assert_true(SEQUENCES * made->documents.words <= MOST_MARKS);
  for (int64_t b = 0; b < SEQUENCES; b++) {
    for (int64_t p = 0, start = 0; p < length; p++) {
      if (random_below(random, rarity) == 0) {
        documents_mark(made->marks + b * made->documents.words, p);
        start = p;
      }
      made->start[b][p] = start;
      made->first[b][p] = start;
      while (window > 0 && p - made->first[b][p] >= window) made->first[b][p]++;
    }
  }
}

static void check_documents(const Case *made) {
  for (int64_t b = 0; b < SEQUENCES; b++) {
    int64_t end = 0;
    for (Run document = {0}; documents_next(&made->documents, b, made->length, &document);) {
      assert_int_equal(document.start, end);
      assert_true(document.length > 0);
      end = document.start + document.length;
      for (int64_t p = document.start; p < end; p++) assert_int_equal(made->start[b][p], document.start);
      assert_true(end == made->length || documents_marked(&made->documents, b, end));
    }
    assert_int_equal(end, made->length);
    for (int64_t p = 0; p < made->length; p++) {
      assert_int_equal(documents_start(&made->documents, b, p), made->start[b][p]);
    }
  }
}

/* A run anywhere, which may reach into or lie in the padding. */
static Run draw_run(const Case *made, Random *random) {
  const int64_t start = random_below(random, made->length + 10);
  return (Run){.start = start, .length = 1 + random_below(random, made->length)};
}

static void check_runs(const Case *made, Random *random) {
  int64_t first[MOST];
  for (int64_t b = 0; b < SEQUENCES; b++) {
    const Run queries = draw_run(made, random);
    const Run keys = draw_run(made, random);
    int64_t pairs = 0;
    bool visible = false;
    mask_fill_run(&made->documents, b, queries, made->length, made->window, first);
    for (int64_t i = 0; i < queries.length; i++) {
      const int64_t p = queries.start + i;
      assert_true(first[i] == (p < made->length ? made->first[b][p] : INT64_MAX));
      if (p >= made->length) continue;
      pairs += p + 1 - first[i];
      for (int64_t key = first[i]; key <= p; key++) {
        visible = visible || (key >= keys.start && key < keys.start + keys.length);
      }
    }
    assert_int_equal(mask_pairs(&made->documents, b, queries, made->length, made->window), pairs);
    assert_int_equal(mask_visible(&made->documents, b, queries, keys, made->length, made->window), visible);
  }
}

static void test_against_loops(void **state) {
  static Case made;
  Random random = {11};
  (void)state;
  for (int64_t length = 1; length <= MOST; length += length < 140 ? 1 : 23) {
    for (int64_t rarity = 1; rarity <= 4000; rarity *= 5) {
      make_case(&made, length, rarity, random_below(&random, 2) * random_below(&random, length + 20),
                &random);
      check_documents(&made);
      for (int i = 0; i < 4; i++) check_runs(&made, &random);
    }
  }
}

/* Without marks a sequence is one document. */
static void test_no_documents(void **state) {
  int64_t first[8];
  Run document = {0};
  (void)state;
  assert_true(documents_next(NULL, 0, 100, &document));
  assert_int_equal(document.start, 0);
  assert_int_equal(document.length, 100);
  assert_false(documents_next(NULL, 0, 100, &document));
  mask_fill_run(NULL, 0, (Run){.start = 96, .length = 8}, 100, 0, first);
  for (int i = 0; i < 8; i++) assert_true(first[i] == (i < 4 ? 0 : INT64_MAX));
  assert_int_equal(mask_pairs(NULL, 0, (Run){.start = 0, .length = 200}, 100, 0), 100 * 101 / 2);
  assert_int_equal(mask_pairs(NULL, 0, (Run){.start = 0, .length = 200}, 100, 10), 55 + 90 * 10);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_against_loops),
      cmocka_unit_test(test_no_documents),
  };
  return cmocka_run_group_tests_name("mask", tests, NULL, NULL);
}
