/* The local transport between devices that work on their own (tests/support/device_rounds.h). */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/load.h"
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

/* ---------------------------------------------------------------- an abort while copies are queued */

enum { ABORT_BYTES = 1 << 20, ABORT_ROUNDS = 40 };

typedef struct AbortRank {
  Comm *comm;
  pthread_barrier_t *together;
  Error error;
} AbortRank;

/* Rank 0 aborts with its buffer on the way to rank 1, which has another GPU, and releases it, as it may
 * behind comm_abort; then rank 1 works off what it has queued. */
static void *abort_rank(void *argument) {
  AbortRank *self = argument;
  Device *device = NULL;
  void *send = NULL;
  void *receive = NULL;
  CommRequest request = {0};
  Error cause = {0};
  Status status = cuda_device_create(self->comm->rank, ELEMENT_F32, &device, &self->error);
  if (status == STATUS_OK) status = comm_use_device(self->comm, device, &self->error);
  if (status == STATUS_OK) status = device_alloc(device, ABORT_BYTES, "test", &send, &self->error);
  if (status == STATUS_OK) status = device_alloc(device, ABORT_BYTES, "test", &receive, &self->error);
  if (status == STATUS_OK) {
    status =
        comm_shift_start(self->comm, COMM_KEYS_VALUES, 1, send, receive, ABORT_BYTES, &request, &self->error);
  }
  (void)pthread_barrier_wait(self->together);
  if (status == STATUS_OK && self->comm->rank == 0) {
    (void)fail(&cause, STATUS_DATA, "as asked");
    comm_abort(self->comm, &cause);
    device_free(device, send);
    send = NULL;
  }
  (void)pthread_barrier_wait(self->together);
  if (device != NULL) {
    device_free(device, receive);
    device_free(device, send);
    if (status == STATUS_OK) (void)device_check(device, &self->error);
    device_destroy(device);
  }
  comm_destroy(self->comm);
  return NULL;
}

static void abort_round(void) {
  Error error = {0};
  Comm *comms[2];
  pthread_barrier_t together;
  pthread_t threads[2];
  AbortRank ranks[2];
  expect_ok(comm_local_create(2, comms, &error), &error);
  assert_int_equal(pthread_barrier_init(&together, NULL, 2), 0);
  for (int i = 0; i < 2; i++) {
    ranks[i] = (AbortRank){.comm = comms[i], .together = &together};
    assert_int_equal(pthread_create(&threads[i], NULL, abort_rank, &ranks[i]), 0);
  }
  for (int i = 0; i < 2; i++) (void)pthread_join(threads[i], NULL);
  for (int i = 0; i < 2; i++) expect_ok(ranks[i].error.status, &ranks[i].error);
  (void)pthread_barrier_destroy(&together);
}

static void test_abort_waits_for_copies(void **state) {
  int devices = 0;
  Error error = {0};
  (void)state;
  test_device_need_cuda();
  assert_int_equal(setenv("EMULATED_DEVICES", "2", 1), 0);
  expect_ok(cuda_device_count(&devices, &error), &error);
  for (int round = 0; round < ABORT_ROUNDS && devices >= 2; round++) abort_round();
  assert_int_equal(unsetenv("EMULATED_DEVICES"), 0);
  if (devices < 2) skip();
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_groups),
      cmocka_unit_test(test_control),
      cmocka_unit_test(test_failure),
      cmocka_unit_test(test_abort_waits_for_copies),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
