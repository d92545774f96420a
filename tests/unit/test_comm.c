/* The local transport by the cases that every transport must pass, and the zigzag layout. */
#include <string.h>

#include "kernels/comm/layout.h"
#include "tests/support/comm_cases.h"
#include "tests/support/expect.h"
#include "tests/support/ranks.h"
#include "tests/support/unit.h"

/* ---------------------------------------------------------------- the cases of all transports */

static void test_cases(void **state) {
  (void)state;
  for (int size = 1; size <= 8; size++) {
    Error error = {0};
    const Status status = run_ranks(size, 1, 1, comm_cases_run, NULL, &error);
    if (status != STATUS_OK) fail_msg("%d ranks: %s", size, error.text);
  }
}

static void test_rings(void **state) {
  (void)state;
  Error error = {0};
  expect_ok(run_ranks(3, 2, 1, comm_cases_run, NULL, &error), &error);
  expect_ok(run_ranks(1, 4, 1, comm_cases_run, NULL, &error), &error);
}

static void test_failure(void **state) {
  (void)state;
  int informed[4] = {0};
  Error error = {0};
  assert_int_equal(run_ranks(2, 2, 1, comm_case_failure, informed, &error), STATUS_DATA);
  assert_string_equal(error.text, "rank 2: shard x is damaged");
  assert_true(informed[0] && informed[1] && informed[3]);
}

static void test_disagreement(void **state) {
  (void)state;
  Error error = {0};
  expect_error(run_ranks(2, 1, 1, comm_case_disagreement, NULL, &error), &error, STATUS_INTERNAL,
               "ranks disagree about collective operation");
}

/* ---------------------------------------------------------------- layout */

static void test_layout(void **state) {
  (void)state;
  for (int ring = 1; ring <= 8; ring++) {
    for (int64_t length = 1; length <= 67; length++) {
      int covered[256] = {0};
      int64_t work[8] = {0};
      const Layout layout = layout_zigzag(length, ring);
      for (int r = 0; r < ring; r++) {
        int64_t sum = 0;
        int runs = 0;
        for (Run run = {0}; layout_next_run(&layout, 0, r, &run); runs++) {
          assert_int_equal(run.local, sum);
          sum += run.length;
          for (int64_t j = 0; j < run.length; j++) {
            covered[run.start + j] += 1;
            work[r] += run.start + j;
          }
        }
        assert_int_equal(runs, ring == 1 ? 1 : 2);
        assert_int_equal(sum, layout.local_length);
        assert_int_equal(work[r], work[0]);
      }
      for (int64_t p = 0; p < length; p++) assert_int_equal(covered[p], 1);
    }
  }
}

/* More ranks than elements: some ranks hold nothing. */
static void test_parts(void **state) {
  (void)state;
  const int64_t totals[] = {0, 1, 5, 873, (int64_t)3 << 40};
  for (size_t t = 0; t < sizeof totals / sizeof totals[0]; t++) {
    for (int ranks = 1; ranks <= 1024; ranks = ranks * 2 + 1) {
      int64_t expected = 0;
      for (int rank = 0; rank < ranks; rank++) {
        int64_t begin = -1;
        int64_t end = -1;
        comm_part(totals[t], rank, ranks, &begin, &end);
        assert_int_equal(begin, expected);
        assert_true(end - begin == totals[t] / ranks || end - begin == totals[t] / ranks + 1);
        assert_int_equal(end, (int64_t)((__int128)totals[t] * (rank + 1) / ranks));
        expected = end;
      }
    }
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_cases),        cmocka_unit_test(test_rings),  cmocka_unit_test(test_failure),
      cmocka_unit_test(test_disagreement), cmocka_unit_test(test_layout), cmocka_unit_test(test_parts),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
