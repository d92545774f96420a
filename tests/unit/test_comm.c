/* The local transport: every collective against its definition, order of reduction, splitting, failure. */
#include <stdlib.h>
#include <string.h>

#include "kernels/comm/layout.h"
#include "tests/support/expect.h"
#include "tests/support/ranks.h"
#include "tests/support/unit.h"

#define REQUIRE(condition, what)                                                                             \
  do {                                                                                                       \
    if (!(condition)) return fail(error, STATUS_INTERNAL, "%s (line %d)", what, __LINE__);                   \
  } while (0)

/* ---------------------------------------------------------------- shifts */

static Status shift_all_distances(TestRank *rank, void *context, Error *error) {
  (void)context;
  Comm *comm = rank->world;
  enum { WORDS = 1000 };
  int64_t send[WORDS];
  int64_t receive[WORDS];
  for (int distance = 1; distance < comm->size; distance++) {
    for (int i = 0; i < WORDS; i++) send[i] = comm->rank * WORDS + i;
    CommRequest request = {0};
    TRY(comm_shift_start(comm, COMM_KEYS_VALUES, distance, send, receive, sizeof send, &request, error));
    TRY(comm_wait(comm, &request, error));
    const int from = (comm->rank - distance + comm->size) % comm->size;
    for (int i = 0; i < WORDS; i++) REQUIRE(receive[i] == from * WORDS + i, "a word of a shift");
  }
  REQUIRE(comm->counters[COMM_KEYS_VALUES].messages == comm->size - 1, "messages counted");
  REQUIRE(comm->counters[COMM_KEYS_VALUES].bytes == (comm->size - 1) * (int64_t)sizeof send, "bytes counted");
  REQUIRE(comm->counters[COMM_KEY_VALUE_GRADIENTS].messages == 0, "the other label is not counted");
  return STATUS_OK;
}

/* Several shifts and a reduction under way at once, waited for in another order. */
static Status overlapping_operations(TestRank *rank, void *context, Error *error) {
  (void)context;
  Comm *comm = rank->world;
  int send[2] = {comm->rank, 100 + comm->rank};
  int receive[2] = {-1, -1};
  double sum = comm->rank;
  CommRequest requests[3] = {{0}};
  TRY(comm_shift_start(comm, COMM_KEYS_VALUES, 1, &send[0], &receive[0], sizeof(int), &requests[0], error));
  TRY(comm_all_reduce_start(comm, COMM_CONTROL, COMM_F64, COMM_SUM, &sum, 1, &requests[1], error));
  TRY(comm_shift_start(comm, COMM_KEY_VALUE_GRADIENTS, 2, &send[1], &receive[1], sizeof(int), &requests[2],
                       error));
  for (int i = 2; i >= 0; i--) TRY(comm_wait(comm, &requests[i], error));
  const int size = comm->size;
  REQUIRE(receive[0] == (comm->rank - 1 + size) % size, "first shift");
  REQUIRE(receive[1] == 100 + (comm->rank - 2 + size) % size, "second shift");
  REQUIRE(sum == 0.5 * size * (size - 1), "sum");
  return STATUS_OK;
}

static void test_shift(void **state) {
  (void)state;
  Error error = {0};
  for (int size = 2; size <= 8; size++) {
    const Status status = run_ranks(size, 1, 1, shift_all_distances, NULL, &error);
    if (status != STATUS_OK) fail_msg("%d ranks: %s", size, error.text);
  }
  expect_ok(run_ranks(5, 1, 1, overlapping_operations, NULL, &error), &error);
}

/* ---------------------------------------------------------------- reductions, gathering, broadcast */

/* The sum in float must be that of the ranks in order, whoever comes first. */
static Status reduce_in_order(TestRank *rank, void *context, Error *error) {
  (void)context;
  enum { COUNT = 10007 };
  Comm *comm = rank->world;
  float *values = malloc(COUNT * sizeof *values);
  REQUIRE(values != NULL, "memory");
  for (int i = 0; i < COUNT; i++) values[i] = 1.0F / (float)(1 + (i * 7 + comm->rank * 13) % 101);
  const Status status = comm_all_reduce(comm, COMM_F32, COMM_SUM, values, COUNT, error);
  int wrong = 0;
  for (int i = 0; i < COUNT; i++) {
    float expected = 1.0F / (float)(1 + (i * 7) % 101);
    for (int r = 1; r < comm->size; r++) expected += 1.0F / (float)(1 + (i * 7 + r * 13) % 101);
    wrong += memcmp(&values[i], &expected, sizeof expected) != 0;
  }
  free(values);
  TRY(status);
  REQUIRE(wrong == 0, "a sum differs from the sum in the order of ranks");
  return STATUS_OK;
}

static Status small_collectives(TestRank *rank, void *context, Error *error) {
  (void)context;
  Comm *comm = rank->world;
  int64_t most = 10 - comm->rank;
  TRY(comm_all_reduce(comm, COMM_I64, COMM_MAX, &most, 1, error));
  REQUIRE(most == 10, "maximum");
  int64_t total = comm->rank;
  TRY(comm_all_reduce(comm, COMM_I64, COMM_SUM, &total, 1, error));
  REQUIRE(total == comm->size * (comm->size - 1) / 2, "integer sum");
  int own[2] = {comm->rank, -comm->rank};
  int all[2 * 16];
  TRY(comm_all_gather(comm, own, all, sizeof own, error));
  for (int r = 0; r < comm->size; r++) REQUIRE(all[2 * r] == r && all[2 * r + 1] == -r, "gathered row");
  for (int root = 0; root < comm->size; root++) {
    int value = comm->rank == root ? 1000 + root : 0;
    TRY(comm_broadcast(comm, root, &value, sizeof value, error));
    REQUIRE(value == 1000 + root, "broadcast");
  }
  return comm_barrier(comm, error);
}

static void test_reductions(void **state) {
  (void)state;
  Error error = {0};
  for (int size = 1; size <= 8; size++) {
    expect_ok(run_ranks(size, 1, 1, reduce_in_order, NULL, &error), &error);
    expect_ok(run_ranks(size, 1, 1, small_collectives, NULL, &error), &error);
  }
}

/* ---------------------------------------------------------------- groups */

static Status split_in_rings(TestRank *rank, void *context, Error *error) {
  (void)context;
  REQUIRE(rank->ring->size == 3, "size of a ring");
  REQUIRE(rank->ring->rank == rank->world->rank % 3, "rank in the ring");
  int64_t sum = rank->world->rank;
  TRY(comm_all_reduce(rank->ring, COMM_I64, COMM_SUM, &sum, 1, error));
  REQUIRE(sum == 9 * rank->data_rank + 3, "a sum within the ring");
  return STATUS_OK;
}

static void test_split(void **state) {
  (void)state;
  Error error = {0};
  expect_ok(run_ranks(3, 2, 1, split_in_rings, NULL, &error), &error);
}

/* ---------------------------------------------------------------- failure */

/* Rank 2 fails; the others wait in different calls of different groups and must all hear of it. */
static Status one_rank_fails(TestRank *rank, void *context, Error *error) {
  int *informed = context;
  Comm *world = rank->world;
  if (world->rank == 2) return fail(error, STATUS_DATA, "shard x is damaged");
  double value = 1.0;
  Status status = STATUS_OK;
  if (world->rank == 3) {
    int send = 0;
    int receive = 0;
    CommRequest request = {0};
    status = comm_shift_start(rank->ring, COMM_KEYS_VALUES, 1, &send, &receive, sizeof send, &request, error);
    if (status == STATUS_OK) status = comm_wait(rank->ring, &request, error);
  } else {
    status = comm_all_reduce(world, COMM_F64, COMM_SUM, &value, 1, error);
  }
  REQUIRE(status == STATUS_DATA, "the status of the failed rank");
  REQUIRE(strcmp(error->text, "rank 2: shard x is damaged") == 0, "the cause with its rank");
  informed[world->rank] = 1;
  return status;
}

static void test_failure(void **state) {
  (void)state;
  int informed[4] = {0};
  Error error = {0};
  assert_int_equal(run_ranks(2, 2, 1, one_rank_fails, informed, &error), STATUS_DATA);
  assert_string_equal(error.text, "rank 2: shard x is damaged");
  assert_true(informed[0] && informed[1] && informed[3]);
}

static Status disagree(TestRank *rank, void *context, Error *error) {
  (void)context;
  double value[2] = {0};
  return comm_all_reduce(rank->world, COMM_F64, COMM_SUM, value, rank->world->rank == 0 ? 1 : 2, error);
}

static void test_disagreement(void **state) {
  (void)state;
  Error error = {0};
  assert_int_equal(run_ranks(2, 1, 1, disagree, NULL, &error), STATUS_INTERNAL);
  assert_non_null(strstr(error.text, "disagree"));
}

/* ---------------------------------------------------------------- layout */

static void test_layout(void **state) {
  (void)state;
  for (int ring = 1; ring <= 8; ring++) {
    for (int64_t length = 1; length <= 67; length++) {
      int covered[256] = {0};
      int64_t work[8] = {0};
      for (int r = 0; r < ring; r++) {
        const Layout layout = layout_zigzag(length, r, ring);
        assert_int_equal(layout.run_count, ring == 1 ? 1 : 2);
        int64_t sum = 0;
        for (int i = 0; i < layout.run_count; i++) {
          sum += layout.runs[i].length;
          for (int64_t j = 0; j < layout.runs[i].length; j++) {
            covered[layout.runs[i].start + j] += 1;
            work[r] += layout.runs[i].start + j;
          }
        }
        assert_int_equal(sum, layout.local_length);
        assert_int_equal(work[r], work[0]);
      }
      for (int64_t p = 0; p < length; p++) assert_int_equal(covered[p], 1);
    }
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_shift),   cmocka_unit_test(test_reductions),   cmocka_unit_test(test_split),
      cmocka_unit_test(test_failure), cmocka_unit_test(test_disagreement), cmocka_unit_test(test_layout),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
