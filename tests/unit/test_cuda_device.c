/* The CUDA device: memory, copies between host and device, queues between devices, and its failures. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/load.h"
#include "tests/support/expect.h"
#include "tests/support/test_device.h"
#include "tests/support/unit.h"

#define MIB ((size_t)1 << 20)
/* More than goes through pinned memory at once. */
#define LARGE (37 * MIB + 13)

static Device *make_device(int index) {
  Error error = {0};
  Device *device = NULL;
  if (cuda_device_create(index, ELEMENT_F32, &device, &error) != STATUS_OK) fail_msg("%s", error.text);
  return device;
}

static Device *open_device(void) {
  test_device_need_cuda();
  return make_device(0);
}

static void *take(Device *device, size_t bytes) {
  Error error = {0};
  void *memory = NULL;
  if (device_alloc(device, bytes, "a test", &memory, &error) != STATUS_OK) fail_msg("%s", error.text);
  return memory;
}

static void expect_good(Device *device) {
  Error error = {0};
  if (device_check(device, &error) != STATUS_OK) fail_msg("%s", error.text);
}

static void close_device(Device *device) {
  expect_good(device);
  device_destroy(device);
}

static unsigned char *host_bytes(size_t bytes, uint32_t stream) {
  unsigned char *host = malloc(bytes + 1);
  assert_non_null(host);
  for (size_t i = 0; i < bytes; i++) host[i] = (unsigned char)((i * 2654435761U + stream * 40503U) >> 24);
  return host;
}

/* ---------------------------------------------------------------- what it is */

static void test_summary(void **state) {
  (void)state;
  test_device_need_cuda();
  static const char *const types[] = {"fp32", "bf16"};
  static const size_t sizes[] = {4, 2};
  for (int i = 0; i < 2; i++) {
    Error error = {0};
    Device *device = NULL;
    assert_int_equal(cuda_device_create(0, i == 0 ? ELEMENT_F32 : ELEMENT_BF16, &device, &error), STATUS_OK);
    assert_memory_equal(device->summary, "cuda 0, ", 8);
    assert_non_null(strstr(device->summary, ", cuBLASLt "));
    assert_non_null(strstr(device->summary, types[i]));
    assert_int_equal(device->ops.elem_size, sizes[i]);
    assert_string_equal(device->table->kind, "cuda");
    assert_non_null(device->table->queues);
    close_device(device);
  }
}

/* Behind elem_size there are pointers to functions alone, and none is missing but the two that a device may
 * do without. */
static void test_no_entry_is_missing(void **state) {
  (void)state;
  Device *device = open_device();
  const unsigned char *at = (const unsigned char *)&device->ops;
  for (size_t i = offsetof(Ops, attention); i < sizeof(Ops); i += sizeof(void *)) {
    const unsigned char none[sizeof(void *)] = {0};
    if (i == offsetof(Ops, attention.forward_alone) || i == offsetof(Ops, attention.backward_alone)) continue;
    assert_memory_not_equal(at + i, none, sizeof none);
  }
  close_device(device);
}

static void test_no_such_device(void **state) {
  (void)state;
  test_device_need_cuda();
  int devices = 0;
  Error error = {0};
  Device *device = NULL;
  assert_int_equal(cuda_device_count(&devices, &error), STATUS_OK);
  assert_true(devices >= 1);
  assert_int_equal(cuda_device_create(devices, ELEMENT_F32, &device, &error), STATUS_CONFIG);
  assert_non_null(strstr(error.text, "no CUDA device"));
  assert_null(device);
  error = (Error){0};
  assert_int_equal(cuda_device_create(-1, ELEMENT_F32, &device, &error), STATUS_CONFIG);
}

static void test_machine_without_gpu(void **state) {
  (void)state;
  test_device_need_emulator();
  int devices = 7;
  Error error = {0};
  Device *device = NULL;
  assert_int_equal(setenv("EMULATED_DEVICES", "0", 1), 0);
  const Status counted = cuda_device_count(&devices, &error);
  Error created_error = {0};
  const Status created = cuda_device_create(0, ELEMENT_F32, &device, &created_error);
  assert_int_equal(unsetenv("EMULATED_DEVICES"), 0);
  assert_int_equal(counted, STATUS_CONFIG);
  assert_int_equal(devices, 0);
  assert_non_null(strstr(error.text, "no CUDA device: "));
  assert_int_equal(created, STATUS_CONFIG);
  assert_string_equal(created_error.text, error.text);
  assert_null(device);
}

/* ---------------------------------------------------------------- memory */

static void test_memory_is_zeroed_and_aligned(void **state) {
  (void)state;
  Device *device = open_device();
  static const size_t sizes[] = {0, 1, 255, 4096, LARGE};
  for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
    void *memory = take(device, sizes[i]);
    assert_non_null(memory);
    assert_int_equal((uintptr_t)memory % 256, 0);
    unsigned char *host = host_bytes(sizes[i], 1);
    device_read(device, host, memory, sizes[i]);
    for (size_t k = 0; k < sizes[i]; k++) {
      if (host[k] != 0) fail_msg("byte %zu of %zu is %d", k, sizes[i], host[k]);
    }
    free(host);
    device_free(device, memory);
  }
  device_free(device, NULL);
  close_device(device);
}

/* Pieces of every size behind each other, so that they lie across both parts of the pinned memory, and the
 * host's bytes are changed as soon as each call returns. */
static void test_write_and_read(void **state) {
  (void)state;
  Device *device = open_device();
  static const size_t pieces[] = {1,           3,   1000, 4 * MIB, 17,      8 * MIB, 8 * MIB, 255,
                                  8 * MIB - 1, 256, 0,    511,     5 * MIB, 100,     MIB + 1};
  size_t total = 0;
  for (size_t i = 0; i < sizeof pieces / sizeof pieces[0]; i++) total += pieces[i];
  unsigned char *expected = host_bytes(total, 2);
  unsigned char *passing = malloc(8 * MIB);
  unsigned char *got = malloc(total);
  assert_non_null(passing);
  assert_non_null(got);
  unsigned char *memory = take(device, total);
  size_t at = 0;
  for (size_t i = 0; i < sizeof pieces / sizeof pieces[0]; i++) {
    memcpy(passing, expected + at, pieces[i]);
    device_write(device, memory + at, passing, pieces[i]);
    memset(passing, 0xEE, pieces[i]);
    at += pieces[i];
  }
  device_read(device, got, memory, total);
  assert_memory_equal(got, expected, total);
  memset(got, 0, total);
  device_read(device, got + 5, memory + 5, 1001);
  assert_memory_equal(got + 5, expected + 5, 1001);
  assert_int_equal(got[4], 0);
  assert_int_equal(got[1006], 0);
  device_free(device, memory);
  free(got);
  free(passing);
  free(expected);
  close_device(device);
}

static void test_large_write(void **state) {
  (void)state;
  Device *device = open_device();
  unsigned char *expected = host_bytes(LARGE, 3);
  unsigned char *got = malloc(LARGE);
  assert_non_null(got);
  unsigned char *memory = take(device, LARGE);
  device_write(device, memory, expected, LARGE);
  device_zero(device, memory + 1000, 77);
  memset(expected + 1000, 0, 77);
  device_zero(device, memory, 0);
  device_read(device, got, memory, LARGE);
  assert_memory_equal(got, expected, LARGE);
  device_free(device, memory);
  free(got);
  free(expected);
  close_device(device);
}

/* Rows with and without holes on either side; what lies between rows is not touched. */
static void test_copy_rows(void **state) {
  (void)state;
  enum { BYTES = 4096 };
  static const struct {
    size_t to_stride, from_stride, row_bytes;
    int64_t rows;
  } cases[] = {{64, 64, 64, 20}, {100, 64, 48, 20}, {64, 100, 64, 20}, {33, 33, 7, 50}, {0, 0, 1000, 1},
               {64, 0, 16, 30},  {64, 64, 0, 20},   {64, 64, 64, 0},   {8, 8, 8, 512}};
  Device *device = open_device();
  unsigned char *from = host_bytes(BYTES, 4);
  unsigned char *memory_from = take(device, BYTES);
  unsigned char *memory_to = take(device, BYTES);
  device_write(device, memory_from, from, BYTES);
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    unsigned char *expected = host_bytes(BYTES, 5);
    unsigned char got[BYTES];
    device_write(device, memory_to, expected, BYTES);
    for (int64_t row = 0; row < cases[i].rows; row++) {
      memcpy(expected + (size_t)row * cases[i].to_stride, from + (size_t)row * cases[i].from_stride,
             cases[i].row_bytes);
    }
    device_copy_rows(device, memory_to, cases[i].to_stride, memory_from, cases[i].from_stride,
                     cases[i].row_bytes, cases[i].rows);
    device_read(device, got, memory_to, BYTES);
    assert_memory_equal(got, expected, BYTES);
    free(expected);
  }
  device_free(device, memory_to);
  device_free(device, memory_from);
  free(from);
  close_device(device);
}

/* The message says what asked for how much; the device goes on. */
static void test_out_of_memory(void **state) {
  (void)state;
  Device *device = open_device();
  void *memory = device;
  char asked[128];
  const size_t most = SIZE_MAX / 4;
  Error error = {0};
  assert_int_equal(device_alloc(device, most, "the optimizer's state", &memory, &error), STATUS_SYSTEM);
  assert_null(memory);
  (void)snprintf(asked, sizeof asked, "cuda 0: no memory for the optimizer's state: %zu bytes asked, ", most);
  assert_memory_equal(error.text, asked, strlen(asked));
  assert_non_null(strstr(error.text, " bytes free"));
  expect_good(device);
  float value = 3;
  memory = take(device, sizeof value);
  device->ops.add_f32(device, 0, memory, memory);
  device_write(device, memory, &value, sizeof value);
  device->ops.add_f32(device, 1, memory, memory);
  device_read(device, &value, memory, sizeof value);
  assert_true(value == 6);
  device_free(device, memory);
  close_device(device);
}

/* A device that cannot be made for want of memory leaves nothing behind, wherever it came to. */
static void test_out_of_memory_at_creation(void **state) {
  (void)state;
  test_device_need_emulator();
  static const char *const sizes[] = {"1000000", "34000000", "40000000"};
  for (int i = 0; i < 3; i++) {
    Error error = {0};
    Device *device = NULL;
    assert_int_equal(setenv("EMULATED_MEMORY", sizes[i], 1), 0);
    const Status status = cuda_device_create(0, ELEMENT_BF16, &device, &error);
    assert_int_equal(setenv("EMULATED_MEMORY", "53000000", 1), 0);
    if (status == STATUS_SYSTEM) device = make_device(0);
    assert_int_equal(unsetenv("EMULATED_MEMORY"), 0);
    assert_int_equal(status, STATUS_SYSTEM);
    assert_non_null(strstr(error.text, "cuda 0: no memory for "));
    close_device(device);
  }
}

/* Sums of more columns than the scratch memory has room for at a time, and rows that do not fit it at all. */
static void test_scratch_memory(void **state) {
  (void)state;
  enum { OUTPUTS = 2200000, TOO_LONG = 1100000, ROWS = 2 };
  Device *device = open_device();
  const Ops *ops = &device->ops;
  Error error = {0};
  float *host = malloc((size_t)OUTPUTS * sizeof *host);
  assert_non_null(host);
  float *dy = take(device, (size_t)ROWS * OUTPUTS * sizeof *host);
  float *dw = take(device, (size_t)OUTPUTS * sizeof *host);
  float *dbias = take(device, (size_t)OUTPUTS * sizeof *host);
  for (int i = 0; i < OUTPUTS; i++) host[i] = (float)i;
  for (int i = 0; i < ROWS; i++) device_write(device, dy + i * OUTPUTS, host, OUTPUTS * sizeof *host);
  ops->linear_backward_weight(device, ROWS, 1, OUTPUTS, OUTPUTS, dy, dy, dw, dbias);
  device_read(device, host, dbias, OUTPUTS * sizeof *host);
  assert_int_equal(device_check(device, &error), STATUS_OK);
  for (int i = 0; i < OUTPUTS; i++) {
    if (host[i] != (float)(ROWS * i)) fail_msg("the sum of column %d is %g", i, (double)host[i]);
  }
  ops->layernorm_backward(device, 1, TOO_LONG, dy, dy, dy, dw, dw, dy, dw, dbias);
  expect_error(device_check(device, &error), &error, STATUS_CONFIG, "layernorm_backward",
               "17600000 bytes of scratch memory");
  device_free(device, dbias);
  device_free(device, dw);
  device_free(device, dy);
  free(host);
  device_destroy(device);
}

/* ---------------------------------------------------------------- failures */

static void test_failure_stays(void **state) {
  (void)state;
  Device *device = open_device();
  float values[2] = {1, 2};
  float *memory = take(device, sizeof values);
  float *sums[1] = {memory};
  device_write(device, memory, values, sizeof values);
  device_fail(device, STATUS_INTERNAL, "operation %d went wrong", 1);
  device_fail(device, STATUS_INTERNAL, "operation %d went wrong", 2);
  device_zero(device, memory, sizeof values);
  device_copy_rows(device, memory, 4, memory + 1, 4, 4, 1);
  device->ops.add_f32(device, 2, memory, memory);
  device->ops.linear_backward_input(device, 1, 1, 1, 1, memory, memory, memory);
  device->table->queues->sum(device, QUEUE_COMPUTE, 1, (const float *const *)sums, 2, memory);
  values[0] = 7;
  device_write(device, memory, values, sizeof values);
  device_read(device, values, memory, sizeof values);
  assert_true(values[0] == 7);
  Error error = {0};
  assert_int_equal(device_check(device, &error), STATUS_INTERNAL);
  assert_string_equal(error.text, "operation 1 went wrong");
  device_free(device, memory);
  device_destroy(device);
}

static void *sum_of_nothing(void *argument) {
  Device *device = argument;
  device->table->queues->sum(device, QUEUE_RING, 0, NULL, 1, NULL);
  return NULL;
}

/* What fails in another thread is the device's failure from its next device_read on. */
static void test_failure_in_another_thread(void **state) {
  (void)state;
  Device *device = open_device();
  float value = 1;
  void *memory = take(device, sizeof value);
  pthread_t thread;
  assert_int_equal(pthread_create(&thread, NULL, sum_of_nothing, device), 0);
  assert_int_equal(pthread_join(thread, NULL), 0);
  device_read(device, &value, memory, sizeof value);
  assert_true(value == 1);
  Error error = {0};
  assert_int_equal(device_check(device, &error), STATUS_INTERNAL);
  assert_non_null(strstr(error.text, "a sum of 0 arrays"));
  device_free(device, memory);
  device_destroy(device);
}

/* ---------------------------------------------------------------- queues */

enum { SUMMED = 1003, ROUNDS = 30 };

/* Three numbers whose sum is 1 in their order and 0 or so in others. */
static const float in_order[3] = {1e9F, -1e9F, 1};

typedef struct Pair {
  Device *device[2];
  float *memory[2];
  DeviceEvent *written[2], *summed, *copied;
} Pair;

static DeviceEvent *make_event(Device *device) {
  Error error = {0};
  DeviceEvent *event = NULL;
  if (device->table->queues->event_create(device, &event, &error) != STATUS_OK) fail_msg("%s", error.text);
  return event;
}

/* Round by round, with `offset` floats before the arrays: both devices write new numbers behind the last
 * round's copy; device 1 adds them in its reduction queue; device 0 fetches the sum in its ring queue, and
 * reads it in its compute queue. Only events hold the queues together. */
static void play_round(Pair *pair, int round, int64_t offset) {
  const DeviceQueues *queues = pair->device[0]->table->queues;
  float host[SUMMED];
  for (int i = 0; i < 2; i++) {
    queues->wait(pair->device[i], QUEUE_COMPUTE, pair->copied);
    for (int k = 0; k < SUMMED; k++) host[k] = in_order[i] * (float)(1 + (k + round) % 3);
    device_write(pair->device[i], pair->memory[i] + offset, host, sizeof host);
    for (int k = 0; k < SUMMED; k++) host[k] = in_order[2] + (float)round;
    if (i == 1) device_write(pair->device[1], pair->memory[1] + 2048 + offset, host, sizeof host);
    queues->record(pair->device[i], QUEUE_COMPUTE, pair->written[i]);
  }
  const float *sources[3] = {pair->memory[0] + offset, pair->memory[1] + offset,
                             pair->memory[1] + 2048 + offset};
  queues->wait(pair->device[1], QUEUE_REDUCTION, pair->written[0]);
  queues->wait(pair->device[1], QUEUE_REDUCTION, pair->written[1]);
  queues->sum(pair->device[1], QUEUE_REDUCTION, 3, sources, SUMMED, pair->memory[1] + offset);
  queues->record(pair->device[1], QUEUE_REDUCTION, pair->summed);
  queues->wait(pair->device[0], QUEUE_RING, pair->summed);
  queues->copy(pair->device[0], QUEUE_RING, pair->memory[0] + 2048 + offset, pair->memory[1] + offset,
               sizeof host);
  queues->record(pair->device[0], QUEUE_RING, pair->copied);
  queues->wait(pair->device[0], QUEUE_COMPUTE, pair->copied);
  memset(host, 0, sizeof host);
  device_read(pair->device[0], host, pair->memory[0] + 2048 + offset, sizeof host);
  for (int k = 0; k < SUMMED; k++) {
    if (host[k] != 1 + (float)round) fail_msg("round %d: element %d is %g", round, k, (double)host[k]);
  }
}

/* Operations of the device that this thread made last work between calls for another one. */
static void compute_between(const Pair *pair) {
  float host[2] = {1, 2};
  device_write(pair->device[1], pair->memory[1], host, sizeof host);
  device_zero(pair->device[0], pair->memory[0], sizeof host);
  pair->device[1]->ops.add_f32(pair->device[1], 1, pair->memory[1] + 1, pair->memory[1]);
  device_read(pair->device[1], host, pair->memory[1], sizeof host);
  assert_true(host[0] == 3);
}

/* A wait for a mark that was never put does not hold. */
static void play(int second) {
  Pair pair = {.device = {make_device(0), make_device(second)}};
  for (int i = 0; i < 2; i++) {
    pair.memory[i] = take(pair.device[i], 4100 * sizeof(float));
    pair.written[i] = make_event(pair.device[i]);
  }
  pair.summed = make_event(pair.device[1]);
  pair.copied = make_event(pair.device[0]);
  for (int round = 0; round < ROUNDS; round++) play_round(&pair, round, round % 5);
  compute_between(&pair);
  for (int i = 0; i < 2; i++) {
    expect_good(pair.device[i]);
    device_free(pair.device[i], pair.memory[i]);
    pair.device[0]->table->queues->event_destroy(pair.written[i]);
  }
  const DeviceQueues *queues = pair.device[0]->table->queues;
  queues->event_destroy(pair.summed);
  device_destroy(pair.device[1]);
  device_destroy(pair.device[0]);
  queues->event_destroy(pair.copied); /* may outlive the device */
  queues->event_destroy(NULL);
}

static void test_queues_on_one_gpu(void **state) {
  (void)state;
  test_device_need_cuda();
  play(0);
}

static void test_queues_on_two_gpus(void **state) {
  (void)state;
  test_device_need_cuda();
  int devices = 0;
  Error error = {0};
  assert_int_equal(setenv("EMULATED_DEVICES", "2", 1), 0);
  const Status status = cuda_device_count(&devices, &error);
  if (status == STATUS_OK && devices >= 2) play(1);
  assert_int_equal(unsetenv("EMULATED_DEVICES"), 0);
  assert_int_equal(status, STATUS_OK);
  if (devices >= 2) return;
  print_message("one GPU alone\n");
  skip();
}

/* From one array to as many as can be, of every length, from their start or from behind it. */
static void test_sums(void **state) {
  (void)state;
  Device *device = open_device();
  static const int64_t lengths[] = {0, 1, 3, 4, 5, 1023, 1024, 40000};
  enum { LONGEST = 40000, FILLED = LONGEST + 200 };
  float *host = malloc(FILLED * sizeof *host);
  assert_non_null(host);
  float *arrays[DEVICE_SOURCES];
  for (int k = 0; k < DEVICE_SOURCES; k++) {
    arrays[k] = take(device, FILLED * sizeof(float));
    for (int i = 0; i < FILLED; i++) host[i] = (float)(i % 100 + k);
    device_write(device, arrays[k], host, FILLED * sizeof *host);
  }
  float *to = take(device, (LONGEST + 1) * sizeof(float));
  for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
    const int count = i % 2 == 0 ? DEVICE_SOURCES : 1 + (int)i;
    device_zero(device, to, (LONGEST + 1) * sizeof(float));
    const float *sources[DEVICE_SOURCES];
    for (int k = 0; k < count; k++) sources[k] = arrays[k] + 100 * (k % 3) * (int)(i % 2);
    if (i == 5) sources[1] = arrays[1] + 1; /* aligned to 4 */
    device->table->queues->sum(device, QUEUE_COMPUTE, count, sources, lengths[i], to);
    device_read(device, host, to, (size_t)lengths[i] * sizeof *host);
    for (int64_t k = 0; k < lengths[i]; k++) {
      int expected = count * (int)(k % 100) + count * (count - 1) / 2;
      if (i == 5) expected += (int)((k + 1) % 100 - k % 100);
      assert_true(host[k] == (float)expected);
    }
    device_read(device, host, to + lengths[i], sizeof *host);
    if (lengths[i] > 0) assert_true(host[0] == 0);
  }
  device_free(device, to);
  for (int k = 0; k < DEVICE_SOURCES; k++) device_free(device, arrays[k]);
  free(host);
  close_device(device);
}

/* ---------------------------------------------------------------- ranks as threads */

typedef struct RankRun {
  float number;
  const char *fault; /* what went wrong */
} RankRun;

static void rank_work(Device *device, RankRun *run) {
  Error error = {0};
  float *memory = NULL;
  if (device_alloc(device, 3 * sizeof(float), "a rank", (void **)&memory, &error) != STATUS_OK) {
    run->fault = "no memory";
    return;
  }
  for (int i = 0; i < 50; i++) {
    float host[3] = {run->number, (float)i, 5};
    device_write(device, memory, host, sizeof host);
    device->ops.add_f32(device, 1, memory + 1, memory);
    device->ops.linear_forward(device, 1, 1, 1, 1, memory, memory, NULL, memory + 2);
    device_read(device, host, memory, sizeof host);
    const float sum = run->number + (float)i;
    if (host[0] != sum || host[2] != sum * sum) run->fault = "wrong numbers";
  }
  if (device_check(device, &error) != STATUS_OK) run->fault = "failed";
  device_free(device, memory);
}

static void *rank_main(void *argument) {
  RankRun *run = argument;
  Error error = {0};
  Device *device = NULL;
  if (cuda_device_create(0, ELEMENT_F32, &device, &error) != STATUS_OK) {
    run->fault = "no device";
    return NULL;
  }
  rank_work(device, run);
  device_destroy(device);
  return NULL;
}

static void test_ranks_share_a_device(void **state) {
  (void)state;
  test_device_need_cuda();
  pthread_t threads[4];
  RankRun runs[4] = {{.number = 1}, {.number = 2}, {.number = 3}, {.number = 4}};
  for (int i = 0; i < 4; i++) assert_int_equal(pthread_create(&threads[i], NULL, rank_main, &runs[i]), 0);
  for (int i = 0; i < 4; i++) {
    assert_int_equal(pthread_join(threads[i], NULL), 0);
    if (runs[i].fault != NULL) fail_msg("rank %d: %s", i, runs[i].fault);
  }
}

/* A computation that waits for copies behind it knows how long; what was told is not told again, and a device
 * whose memory is the host's never waits. More waits than there is room for are no failure. */
static void test_time_of_waits(void **state) {
  (void)state;
  Error error = {0};
  Device *device = open_device();
  const DeviceQueues *queues = device->table->queues;
  DeviceEvent *event = NULL;
  char *memory = take(device, 2 * LARGE);
  char host = 1;
  assert_true(device_waited(device) == 0.0);
  if (queues->event_create(device, &event, &error) != STATUS_OK) fail_msg("%s", error.text);
  for (int i = 0; i < 8200; i++) {
    if (i % 1000 == 0) queues->copy(device, QUEUE_RING, memory, memory + LARGE, LARGE);
    queues->record(device, QUEUE_RING, event);
    queues->wait(device, QUEUE_COMPUTE, event);
  }
  device_read(device, &host, memory, 1);
  const double waited = device_waited(device);
  assert_true(waited > 0.0 && waited < 600.0);
  assert_true(device_waited(device) == 0.0);
  queues->event_destroy(event);
  device_free(device, memory);
  close_device(device);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_summary),
      cmocka_unit_test(test_no_entry_is_missing),
      cmocka_unit_test(test_no_such_device),
      cmocka_unit_test(test_machine_without_gpu),
      cmocka_unit_test(test_memory_is_zeroed_and_aligned),
      cmocka_unit_test(test_write_and_read),
      cmocka_unit_test(test_large_write),
      cmocka_unit_test(test_copy_rows),
      cmocka_unit_test(test_out_of_memory),
      cmocka_unit_test(test_out_of_memory_at_creation),
      cmocka_unit_test(test_scratch_memory),
      cmocka_unit_test(test_failure_stays),
      cmocka_unit_test(test_failure_in_another_thread),
      cmocka_unit_test(test_queues_on_one_gpu),
      cmocka_unit_test(test_queues_on_two_gpus),
      cmocka_unit_test(test_sums),
      cmocka_unit_test(test_ranks_share_a_device),
      cmocka_unit_test(test_time_of_waits),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
