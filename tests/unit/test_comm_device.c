/* The local transport between devices that work on their own (tests/support/device_rounds.h). */
#include <string.h>

#include "tests/support/device_rounds.h"
#include "tests/support/expect.h"
#include "tests/support/unit.h"

static void test_groups(void **state) {
  static const int grids[][2] = {{1, 1}, {2, 1}, {3, 1}, {2, 2}, {5, 1}};
  (void)state;
  test_device_need_cuda();
  for (size_t i = 0; i < sizeof grids / sizeof grids[0]; i++) {
    Error error = {0};
    expect_ok(run_ranks_on(TEST_CUDA_F32, grids[i][0], grids[i][1], 1, device_rounds, NULL, &error), &error);
  }
}

/* What is small and for the host stays in host memory. */
static Status control(TestRank *rank, void *context, Error *error) {
  double sum = (double)rank->world->rank;
  (void)context;
  TRY(comm_all_reduce(rank->world, COMM_F64, COMM_SUM, &sum, 1, error));
  if (sum != 3.0) return fail(error, STATUS_INTERNAL, "the sum of 0, 1 and 2 is %g", sum);
  return comm_barrier(rank->world, error);
}

static void test_control(void **state) {
  Error error = {0};
  (void)state;
  test_device_need_cuda();
  expect_ok(run_ranks_on(TEST_CUDA_F32, 3, 1, 1, control, NULL, &error), &error);
}

/* A rank that fails while others wait for it takes them with it, and nothing is left. */
static Status failing(TestRank *rank, void *context, Error *error) {
  DeviceBuffers buffers;
  CommRequest request = {0};
  (void)context;
  Status status = device_buffers_create(rank->device, &buffers, error);
  if (status == STATUS_OK && rank->world->rank == 1) status = fail(error, STATUS_DATA, "as asked");
  if (status != STATUS_OK) comm_abort(rank->world, error);
  if (status == STATUS_OK) {
    status = comm_shift_start(rank->ring, COMM_KEYS_VALUES, 1, buffers.send, buffers.receive,
                              sizeof buffers.host, &request, error);
  }
  if (status == STATUS_OK) status = comm_wait(rank->ring, &request, error);
  device_buffers_free(&buffers);
  return status;
}

static void test_failure(void **state) {
  Error error = {0};
  (void)state;
  test_device_need_cuda();
  assert_int_equal(run_ranks_on(TEST_CUDA_F32, 3, 1, 1, failing, NULL, &error), STATUS_DATA);
  assert_non_null(strstr(error.text, "as asked"));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_groups),
      cmocka_unit_test(test_control),
      cmocka_unit_test(test_failure),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
