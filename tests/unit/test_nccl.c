/* The mover over NCCL and how groups get it: emulated, over the fake NCCL of tests/nccl, whose own checks
 * count too. It shows that the mover keeps to NCCL's rules, orders the queues of its device rightly and adds
 * in the order of ranks; it does not show that NCCL works, nor how fast. */
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/comm/mover.h"
#include "kernels/cuda/load.h"
#include "kernels/cuda/nccl_load.h"
#include "tests/support/device_rounds.h"
#include "tests/support/expect.h"
#include "tests/support/unit.h"

/* The emulated object of the CUDA device holds the mover too: both are on one emulator. */
static void need_nccl(void) {
  test_device_need_cuda();
  const char *object = getenv("RINGGPT_TEST_NCCL");
  if (object == NULL || object[0] == '\0') {
    print_message("RINGGPT_TEST_NCCL names no NCCL\n");
    skip();
  }
  assert_int_equal(setenv("RINGGPT_NCCL", object, 1), 0);
  assert_int_equal(setenv("EMULATED_DEVICES", "3", 1), 0);
  assert_int_equal(unsetenv("FAKE_NCCL_FAIL"), 0);
  assert_int_equal(unsetenv("FAKE_NCCL_VERSION"), 0);
}

/* ---------------------------------------------------------------- groups over NCCL */

/* What runs on a rank whose groups, world and ring, are over NCCL. */
typedef struct OverNccl {
  TestRankMain main;
  void *context;
} OverNccl;

static Status make_group(Device *device, Comm *of, Comm **group, Error *error) {
  TRY(comm_split(of, 0, group, error));
  return cuda_nccl_attach(*group, device, error);
}

/* A device of this rank's own, while the thread's current GPU is another one: whoever needs the device has to
 * make it current. */
static Status make_device(int rank, Device **device, Error *error) {
  Device *last = NULL;
  int devices = 0;
  TRY(cuda_device_count(&devices, error));
  TRY(cuda_device_create(rank % devices, ELEMENT_F32, device, error));
  TRY(cuda_device_create((rank + 1) % devices, ELEMENT_F32, &last, error));
  device_destroy(last);
  return STATUS_OK;
}

/* As the program lets its groups hear of each other in long waits (train/rank_device.c). */
static void poll_groups(void *context) {
  const TestRank *rank = context;
  if (rank->world != NULL) comm_poll(rank->world);
  if (rank->ring != NULL) comm_poll(rank->ring);
}

/* Ranks that come with groups of the local transport get others beside them, on devices of their own. The
 * movers end before their device. */
static Status over_nccl(TestRank *rank, void *context, Error *error) {
  const OverNccl *inner = context;
  TestRank other = *rank;
  Status status = STATUS_OK;
  other.world = NULL;
  other.ring = NULL;
  other.device = NULL;
  TRY_GOTO(make_device(rank->world->rank, &other.device, error), done);
  TRY_GOTO(make_group(other.device, rank->world, &other.world, error), done);
  TRY_GOTO(make_group(other.device, rank->ring, &other.ring, error), done);
  other.device->poll = poll_groups;
  other.device->poll_context = &other;
  TRY_GOTO(inner->main(&other, inner->context, error), done);
done:
  if (status != STATUS_OK && other.world != NULL) comm_abort(other.world, error);
  if (status != STATUS_OK && other.ring != NULL) comm_abort(other.ring, error);
  if (other.device != NULL) other.device->poll = NULL;
  comm_destroy(other.ring);
  comm_destroy(other.world);
  device_destroy(other.device);
  return status;
}

static Status run_over_nccl(int ring, int data, TestRankMain main, void *context, Error *error) {
  OverNccl inner = {.main = main, .context = context};
  return run_ranks_on(TEST_CUDA_F32, ring, data, 1, over_nccl, &inner, error);
}

static void test_groups(void **state) {
  static const int grids[][2] = {{1, 1}, {2, 1}, {3, 1}, {2, 2}, {1, 3}, {5, 1}};
  (void)state;
  need_nccl();
  for (size_t i = 0; i < sizeof grids / sizeof grids[0]; i++) {
    Error error = {0};
    expect_ok(run_over_nccl(grids[i][0], grids[i][1], device_rounds, NULL, &error), &error);
  }
}

/* ---------------------------------------------------------------- several under way */

enum { REQUESTS = 9, PART = 640, ROUNDS = 10 };

/* Values that name who sends, in which operation, and where in it. */
static float name_of(int rank, int operation, int64_t i) {
  return (float)(rank * 1000000 + operation * 1000 + (int)(i % 1000));
}

/* The bytes of operation k of both buffers are those of its own part. */
static Status start_all(const TestRank *rank, int round, char *send, char *receive,
                        CommRequest requests[REQUESTS], Error *error) {
  float host[PART];
  for (int k = 0; k < REQUESTS; k++) {
    const size_t at = (size_t)k * sizeof host;
    /* A short queue and a long one, so that the last mark of the one says nothing of the other. */
    const CommLabel label = k == 0              ? COMM_KEY_VALUE_GRADIENTS
                            : k == REQUESTS - 1 ? COMM_KEYS_VALUES
                                                : COMM_WEIGHTS;
    for (int64_t i = 0; i < PART; i++) host[i] = name_of(rank->ring->rank, round * REQUESTS + k, i);
    device_write(rank->device, send + at, host, sizeof host);
    TRY(comm_shift_start(rank->ring, label, 1, send + at, receive + at, sizeof host, &requests[k], error));
  }
  return STATUS_OK;
}

/* In an order that is neither that of the starts nor the opposite. */
static Status wait_for_all(const TestRank *rank, int round, char *send, char *receive,
                           CommRequest requests[REQUESTS], Error *error) {
  const int from = (rank->ring->rank + rank->ring->size - 1) % rank->ring->size;
  float host[PART];
  for (int n = 0; n < REQUESTS; n++) {
    const int k = (4 * n + 6) % REQUESTS;
    const size_t at = (size_t)k * sizeof host;
    TRY(comm_wait(rank->ring, &requests[k], error));
    if (requests[k].kind != 0) return fail(error, STATUS_INTERNAL, "a request is not cleared");
    device_zero(rank->device, send + at, sizeof host);
    device_read(rank->device, host, receive + at, sizeof host);
    for (int64_t i = 0; i < PART; i++) {
      if (host[i] == name_of(from, round * REQUESTS + k, i)) continue;
      return fail(error, STATUS_INTERNAL, "operation %d: element %lld is %g", k, (long long)i,
                  (double)host[i]);
    }
  }
  return device_check(rank->device, error);
}

static Status many_at_once(TestRank *rank, void *context, Error *error) {
  const size_t bytes = REQUESTS * PART * sizeof(float);
  CommRequest requests[REQUESTS] = {{0}};
  void *send = NULL;
  void *receive = NULL;
  Status status = STATUS_OK;
  (void)context;
  TRY_GOTO(device_alloc(rank->device, bytes, "test", &send, error), done);
  TRY_GOTO(device_alloc(rank->device, bytes, "test", &receive, error), done);
  for (int round = 0; round < ROUNDS; round++) {
    TRY_GOTO(start_all(rank, round, send, receive, requests, error), done);
    TRY_GOTO(wait_for_all(rank, round, send, receive, requests, error), done);
  }
done:
  device_free(rank->device, receive);
  device_free(rank->device, send);
  return status;
}

static void test_many_at_once(void **state) {
  Error error = {0};
  (void)state;
  need_nccl();
  expect_ok(run_over_nccl(3, 1, many_at_once, NULL, &error), &error);
}

/* ---------------------------------------------------------------- sums */

/* A number whose sums depend on their order. */
static float rough(int rank, int64_t i) {
  uint32_t x = (uint32_t)i * 2654435761U + (uint32_t)rank * 40503U;
  x = (x ^ (x >> 15)) * 2246822519U;
  x ^= x >> 13;
  const float unit = (float)(x >> 8) / 16777216.0F - 0.5F;
  return unit * (float)(1 << (x % 20));
}

/* This rank's part over NCCL has the bits of the host's sum in the order of ranks, which are those of the
 * local transport (tests/support/comm_cases.c). */
static Status compare_sums(const TestRank *rank, void *memory, float *host, float *expected, int64_t elements,
                           Error *error) {
  Comm *world = rank->world;
  const size_t bytes = (size_t)elements * sizeof(float);
  int64_t begin = 0;
  int64_t end = 0;
  CommRequest request = {0};
  for (int64_t i = 0; i < elements; i++) host[i] = expected[i] = rough(world->rank, i);
  device_write(rank->device, memory, host, bytes);
  TRY(comm_reduce_scatter_start(world, COMM_GRADIENTS, COMM_F32, COMM_SUM, memory, elements, &request,
                                error));
  TRY(comm_wait(world, &request, error));
  TRY(comm_all_reduce(world, COMM_F32, COMM_SUM, expected, elements, error));
  device_read(rank->device, host, memory, bytes);
  TRY(device_check(rank->device, error));
  comm_part(elements, world->rank, world->size, &begin, &end);
  if (memcmp(host + begin, expected + begin, (size_t)(end - begin) * sizeof(float)) == 0) return STATUS_OK;
  return fail(error, STATUS_INTERNAL, "sums of %lld elements differ", (long long)elements);
}

static Status sums(TestRank *rank, void *context, Error *error) {
  const int64_t elements = *(const int64_t *)context;
  const size_t bytes = (size_t)elements * sizeof(float);
  void *memory = NULL;
  float *host = malloc(bytes);
  float *expected = malloc(bytes);
  Status status = host != NULL && expected != NULL ? STATUS_OK : fail(error, STATUS_SYSTEM, "no memory");
  if (status == STATUS_OK) status = device_alloc(rank->device, bytes, "test", &memory, error);
  if (status == STATUS_OK) status = compare_sums(rank, memory, host, expected, elements, error);
  if (status == STATUS_OK) status = compare_sums(rank, memory, host, expected, elements - 1, error);
  device_free(rank->device, memory);
  free(expected);
  free(host);
  return status;
}

/* From fewer elements than ranks, some of which then have no part, to more than go in one piece. */
static void test_sums(void **state) {
  static const int64_t sizes[] = {2, 7, 4000, 20011, 7500001};
  (void)state;
  need_nccl();
  for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
    int64_t elements = sizes[i];
    Error error = {0};
    expect_ok(run_over_nccl(3, 1, sums, &elements, &error), &error);
    if (elements < 100000) expect_ok(run_over_nccl(6, 1, sums, &elements, &error), &error);
  }
}

enum { SUMS = 4, MOST_SUMMED = 70001 };
static const int64_t summed[SUMS] = {500, 1500, 20000, MOST_SUMMED};

/* This rank's part of sum k is that of the ranks' names, which are whole numbers, so that it is exact. */
static Status expect_sum(const TestRank *rank, const void *memory, int k, float *host, Error *error) {
  const int size = rank->world->size;
  int64_t begin = 0;
  int64_t end = 0;
  comm_part(summed[k], rank->world->rank, size, &begin, &end);
  device_read(rank->device, host, memory, (size_t)summed[k] * sizeof(float));
  for (int64_t i = begin; i < end; i++) {
    const float expected = (float)size * name_of(0, k, i) + 500000.0F * (float)(size * (size - 1));
    if (host[i] == expected) continue;
    return fail(error, STATUS_INTERNAL, "sum %d: element %lld is %g, not %g", k, (long long)i,
                (double)host[i], (double)expected);
  }
  return device_check(rank->device, error);
}

static Status sum_all(const TestRank *rank, void *memory[SUMS], float *host, Error *error) {
  CommRequest requests[SUMS] = {{0}};
  for (int k = 0; k < SUMS; k++) {
    for (int64_t i = 0; i < summed[k]; i++) host[i] = name_of(rank->world->rank, k, i);
    device_write(rank->device, memory[k], host, (size_t)summed[k] * sizeof(float));
    TRY(comm_reduce_scatter_start(rank->world, COMM_GRADIENTS, COMM_F32, COMM_SUM, memory[k], summed[k],
                                  &requests[k], error));
  }
  for (int k = SUMS - 1; k >= 0; k--) {
    TRY(comm_wait(rank->world, &requests[k], error));
    TRY(expect_sum(rank, memory[k], k, host, error));
  }
  return STATUS_OK;
}

/* Sums of several sizes under way at once, all in the same scratch memory. */
static Status sums_at_once(TestRank *rank, void *context, Error *error) {
  void *memory[SUMS] = {NULL};
  float *host = malloc(MOST_SUMMED * sizeof(float));
  Status status = host != NULL ? STATUS_OK : fail(error, STATUS_SYSTEM, "no memory");
  (void)context;
  for (int k = 0; k < SUMS && status == STATUS_OK; k++) {
    status = device_alloc(rank->device, (size_t)summed[k] * sizeof(float), "test", &memory[k], error);
  }
  if (status == STATUS_OK) status = sum_all(rank, memory, host, error);
  for (int k = 0; k < SUMS; k++) device_free(rank->device, memory[k]);
  free(host);
  return status;
}

static void test_sums_at_once(void **state) {
  Error error = {0};
  (void)state;
  need_nccl();
  expect_ok(run_over_nccl(4, 1, sums_at_once, NULL, &error), &error);
}

/* ---------------------------------------------------------------- failures */

/* Waits, where there is no failure at first, until it is known here too. */
static Status until_known(Comm *comm, Error *error) {
  Status status = STATUS_OK;
  while (status == STATUS_OK) status = comm->mover->table->check(comm->mover, error);
  return status;
}

/* Shifts without end; what a group says at the end it says again. */
static Status endless(TestRank *rank, void *context, Error *error) {
  DeviceBuffers buffers;
  Status status = device_buffers_create(rank->device, &buffers, error);
  (void)context;
  while (status == STATUS_OK) {
    CommRequest request = {0};
    status = comm_shift_start(rank->ring, COMM_KEYS_VALUES, 1, buffers.send, buffers.receive,
                              sizeof buffers.host, &request, error);
    if (status == STATUS_OK) status = comm_wait(rank->ring, &request, error);
  }
  Error again = {0};
  if (until_known(rank->ring, &again) != status || strcmp(again.text, error->text) != 0) {
    *error = (Error){0};
    status = fail(error, STATUS_DATA, "another failure than before: %s", again.text);
  }
  device_buffers_free(&buffers);
  return status;
}

static void test_failure_under_way(void **state) {
  Error error = {0};
  (void)state;
  need_nccl();
  assert_int_equal(setenv("FAKE_NCCL_FAIL", "0:5", 1), 0);
  const Status status = run_over_nccl(3, 1, endless, NULL, &error);
  expect_error(status, &error, STATUS_SYSTEM, "rank 0 of 3: NCCL: the ring: ", "rank 0 fails as asked");
}

/* A rank that does not come to the group takes the others with it, with its words. */
static void test_failure_to_join(void **state) {
  Error error = {0};
  (void)state;
  need_nccl();
  assert_int_equal(setenv("FAKE_NCCL_FAIL", "2:0", 1), 0);
  const Status status = run_over_nccl(4, 1, device_rounds, NULL, &error);
  expect_error(status, &error, STATUS_SYSTEM, "rank 2 of 4: NCCL: the ring: ", "rank 2 fails as asked");
  /* In its first messages, by which ranks are connected. */
  assert_int_equal(setenv("FAKE_NCCL_FAIL", "2:1", 1), 0);
  const Status later = run_over_nccl(4, 1, device_rounds, NULL, &error);
  expect_error(later, &error, STATUS_SYSTEM, "rank 2 of 4: NCCL: the ring: ", "rank 2 fails as asked");
}

/* A rank that gives up by itself lets the others go on and off. */
static Status leaving(TestRank *rank, void *context, Error *error) {
  DeviceBuffers buffers;
  CommRequest request = {0};
  Status status = device_buffers_create(rank->device, &buffers, error);
  (void)context;
  if (status == STATUS_OK && rank->world->rank == 1) {
    status = fail(error, STATUS_DATA, "as asked");
    comm_abort(rank->ring, error);
    comm_abort(rank->world, error);
  }
  if (status == STATUS_OK) {
    status = comm_shift_start(rank->ring, COMM_KEYS_VALUES, 1, buffers.send, buffers.receive,
                              sizeof buffers.host, &request, error);
  }
  if (status == STATUS_OK) status = comm_wait(rank->ring, &request, error);
  if (status == STATUS_OK) status = until_known(rank->ring, error);
  device_buffers_free(&buffers);
  return status;
}

/* Whether by NCCL or by the transport is a race. */
static void test_leaving(void **state) {
  Error error = {0};
  (void)state;
  need_nccl();
  const Status status = run_over_nccl(3, 1, leaving, NULL, &error);
  assert_int_not_equal(status, STATUS_OK);
  expect_error(status, &error, status, "rank 0 of 3: NCCL: ", "given up");
}

/* A rank has failed, which the transport of the groups knows and NCCL does not: those that wait in NCCL for
 * its messages hear of it by comm_poll. The rank itself does nothing until they have. */
static Status unheard(TestRank *rank, void *context, Error *error) {
  atomic_int *left = context;
  DeviceBuffers buffers;
  CommRequest request = {0};
  Status status = device_buffers_create(rank->device, &buffers, error);
  if (status == STATUS_OK && rank->ring->rank == 1) {
    status = fail(error, STATUS_DATA, "as asked");
    rank->world->table->abort(rank->world, error);
    while (atomic_load(left) < rank->ring->size - 1) (void)sched_yield();
  } else if (status == STATUS_OK) {
    status = comm_shift_start(rank->ring, COMM_KEYS_VALUES, 1, buffers.send, buffers.receive,
                              sizeof buffers.host, &request, error);
    (void)atomic_fetch_add(left, 1);
  }
  device_buffers_free(&buffers);
  return status;
}

/* In a ring of 2, so that each rank waits for the one that fails. */
static void test_unheard(void **state) {
  atomic_int left = 0;
  Error error = {0};
  (void)state;
  need_nccl();
  const Status status = run_over_nccl(2, 1, unheard, &left, &error);
  expect_error(status, &error, STATUS_INTERNAL, "rank 0 of 2: NCCL: ", "given up");
}

/* Ranks whose calls differ: both fail, and the one that came last knows why. */
static Status disagreeing(TestRank *rank, void *context, Error *error) {
  Error *failures = context;
  DeviceBuffers buffers;
  CommRequest request = {0};
  const size_t fewer = rank->ring->rank == 1 ? 4 : 0;
  Status status = device_buffers_create(rank->device, &buffers, error);
  if (status == STATUS_OK) {
    status = comm_shift_start(rank->ring, COMM_KEYS_VALUES, 1, buffers.send, buffers.receive,
                              sizeof buffers.host - fewer, &request, error);
  }
  if (status == STATUS_OK) status = until_known(rank->ring, error);
  failures[rank->ring->rank] = *error;
  device_buffers_free(&buffers);
  return status;
}

static void test_disagreement(void **state) {
  Error failures[2] = {{0}};
  Error error = {0};
  (void)state;
  need_nccl();
  assert_int_not_equal(run_over_nccl(2, 1, disagreeing, failures, &error), STATUS_OK);
  assert_true(strstr(failures[0].text, "ranks differ") != NULL ||
              strstr(failures[1].text, "ranks differ") != NULL);
  assert_int_not_equal(failures[0].status, STATUS_OK);
  assert_int_not_equal(failures[1].status, STATUS_OK);
}

/* ---------------------------------------------------------------- loading */

static void test_version(void **state) {
  static const struct {
    const char *number;
    const char *text;
    bool warned;
  } cases[] = {{"22802", "NCCL 2.28.2", false},
               {"22803", "NCCL 2.28.3", true},
               {"22808", "NCCL 2.28.8", true},
               {"22809", "NCCL 2.28.9", false},
               {"23004", "NCCL 2.30.4", false}};
  (void)state;
  need_nccl();
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    NcclVersion version;
    Error error = {0};
    assert_int_equal(setenv("FAKE_NCCL_VERSION", cases[i].number, 1), 0);
    expect_ok(cuda_nccl_version(&version, &error), &error);
    assert_string_equal(version.text, cases[i].text);
    assert_int_equal(version.warning != NULL, cases[i].warned);
  }
}

/* Rank 1 cannot load the object: all fail with its words. */
static Status nothing(TestRank *rank, void *context, Error *error) {
  (void)rank;
  (void)context;
  return fail(error, STATUS_INTERNAL, "the groups were made");
}

static void test_missing(void **state) {
  NcclVersion version;
  Error error = {0};
  (void)state;
  test_device_need_cuda();
  assert_int_equal(setenv("RINGGPT_NCCL", "/nowhere/ringgpt-nccl.so", 1), 0);
  expect_error(cuda_nccl_version(&version, &error), &error, STATUS_CONFIG,
               "no NCCL: /nowhere/ringgpt-nccl.so is not there");
  const Status status = run_over_nccl(3, 1, nothing, NULL, &error);
  expect_error(status, &error, STATUS_CONFIG, "no NCCL: /nowhere/ringgpt-nccl.so is not there");
}

/* Memory of the CPU is not NCCL's to move. */
static Status on_cpu(TestRank *rank, void *context, Error *error) {
  (void)context;
  return cuda_nccl_attach(rank->world, rank->device, error);
}

static void test_other_devices(void **state) {
  Error error = {0};
  (void)state;
  const Status status = run_ranks(2, 1, 1, on_cpu, NULL, &error);
  expect_error(status, &error, STATUS_CONFIG, "not of a cpu device");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_groups),
      cmocka_unit_test(test_many_at_once),
      cmocka_unit_test(test_sums),
      cmocka_unit_test(test_sums_at_once),
      cmocka_unit_test(test_failure_under_way),
      cmocka_unit_test(test_failure_to_join),
      cmocka_unit_test(test_leaving),
      cmocka_unit_test(test_unheard),
      cmocka_unit_test(test_disagreement),
      cmocka_unit_test(test_version),
      cmocka_unit_test(test_missing),
      cmocka_unit_test(test_other_devices),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
