/* Self test: streams run side by side, held back by events alone; host threads use them at the same time. */
#include <pthread.h>
#include <string.h>

#include "kernels/cuda/language.h"
#include "self_test.h"

enum { VALUES = 64, RUNS = 50 };

static __global__ void set_kernel(int *to, int value) {
  to[threadIdx.x] = value;
}

static __global__ void add_kernel(int *to, const int *from, int value) {
  to[threadIdx.x] = from[threadIdx.x] + value;
}

struct Pair {
  cudaStream_t first, second;
  cudaEvent_t event;
  int *a, *b;
};

static void make_pair(Pair *pair) {
  CUDA(cudaStreamCreateWithFlags(&pair->first, cudaStreamNonBlocking));
  CUDA(cudaStreamCreateWithPriority(&pair->second, cudaStreamNonBlocking, -1));
  CUDA(cudaEventCreateWithFlags(&pair->event, cudaEventDisableTiming));
  pair->a = new_on_device<int>(VALUES);
  pair->b = new_on_device<int>(VALUES);
}

static void destroy_pair(Pair *pair) {
  CUDA(cudaFree(pair->a));
  CUDA(cudaFree(pair->b));
  CUDA(cudaEventDestroy(pair->event));
  CUDA(cudaStreamDestroy(pair->first));
  CUDA(cudaStreamDestroy(pair->second));
}

/* b = what the first stream made of a, read in the second. */
static int value_behind(uint64_t seed, bool wait) {
  emulator::set_seed(seed);
  Pair pair;
  make_pair(&pair);
  LAUNCH(set_kernel, 1, VALUES, 0, pair.first, pair.a, 1);
  CUDA(cudaEventRecord(pair.event, pair.first));
  LAUNCH(set_kernel, 1, VALUES, 0, pair.first, pair.a, 2);
  CUDA(cudaEventRecord(pair.event, pair.first));
  if (wait) CUDA(cudaStreamWaitEvent(pair.second, pair.event, 0));
  LAUNCH(add_kernel, 1, VALUES, 0, pair.second, pair.b, pair.a, 10);
  CUDA(cudaStreamSynchronize(pair.second));
  int value;
  CUDA(cudaMemcpyAsync(&value, pair.b, sizeof value, cudaMemcpyDeviceToHost, pair.second));
  destroy_pair(&pair);
  return value;
}

static void a_wait_means_the_last_record(void **) {
  for (uint64_t seed = 0; seed < RUNS; seed++) assert_int_equal(value_behind(seed, true), 12);
}

/* The second stream may come before, between and behind the two of the first. */
static void a_missing_wait_shows(void **) {
  int before = 0, between = 0, behind = 0;
  for (uint64_t seed = 0; seed < RUNS; seed++) {
    const int value = value_behind(seed, false);
    before += value == 9;
    between += value == 11;
    behind += value == 12;
  }
  assert_int_equal(before + between + behind, RUNS);
  assert_true(before > 0 && between > 0 && behind > 0);
}

/* A record behind the wait does not count: were it waited for, this would never end. */
static void a_wait_for_nothing_is_none(void **) {
  for (uint64_t seed = 0; seed < RUNS; seed++) {
    emulator::set_seed(seed);
    Pair pair;
    make_pair(&pair);
    CUDA(cudaStreamWaitEvent(pair.second, pair.event, 0));
    LAUNCH(set_kernel, 1, VALUES, 0, pair.second, pair.a, 3);
    CUDA(cudaEventRecord(pair.event, pair.second));
    CUDA(cudaStreamWaitEvent(pair.first, pair.event, 0));
    LAUNCH(add_kernel, 1, VALUES, 0, pair.first, pair.b, pair.a, 1);
    CUDA(cudaEventRecord(pair.event, pair.first));
    CUDA(cudaEventSynchronize(pair.event));
    CUDA(cudaEventQuery(pair.event));
    int value;
    to_host(&value, pair.b, 1);
    assert_int_equal(value, 4);
    destroy_pair(&pair);
  }
}

/* Pageable memory may change as soon as the call returns; pinned memory must not. */
static void pinned_memory_is_read_late(void **) {
  int late = 0;
  for (uint64_t seed = 0; seed < RUNS; seed++) {
    emulator::set_seed(seed);
    Pair pair;
    make_pair(&pair);
    int pageable[VALUES] = {5};
    int *pinned;
    CUDA(cudaMallocHost(&pinned, sizeof pageable));
    pinned[0] = 5;
    CUDA(cudaMemcpyAsync(pair.a, pageable, sizeof pageable, cudaMemcpyHostToDevice, pair.first));
    CUDA(cudaMemcpyAsync(pair.b, pinned, sizeof pageable, cudaMemcpyHostToDevice, pair.second));
    pageable[0] = 6;
    pinned[0] = 6;
    int from_pageable, from_pinned;
    to_host(&from_pageable, pair.a, 1);
    to_host(&from_pinned, pair.b, 1);
    assert_int_equal(from_pageable, 5);
    late += from_pinned == 6;
    CUDA(cudaFreeHost(pinned));
    destroy_pair(&pair);
  }
  assert_true(late > 0);
}

static void destroyed_streams_finish(void **) {
  for (uint64_t seed = 0; seed < RUNS; seed++) {
    emulator::set_seed(seed);
    int *memory = new_on_device<int>(VALUES);
    cudaStream_t stream;
    CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    CUDA(cudaMemsetAsync(memory, 0, VALUES * sizeof(int), stream));
    LAUNCH(add_kernel, 1, VALUES, 0, stream, memory, memory, 8);
    CUDA(cudaStreamDestroy(stream));
    assert_int_equal(cudaStreamQuery(stream), cudaErrorInvalidResourceHandle);
    (void)cudaGetLastError();
    int value;
    to_host(&value, memory, 1);
    assert_int_equal(value, 8);
    CUDA(cudaFree(memory));
  }
}

static void freeing_waits_for_the_device(void **) {
  for (uint64_t seed = 0; seed < RUNS; seed++) {
    emulator::set_seed(seed);
    int *memory = new_on_device<int>(VALUES);
    cudaStream_t stream;
    CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    LAUNCH(set_kernel, 1, VALUES, 0, stream, memory, 1);
    CUDA(cudaFree(memory));
    CUDA(cudaStreamSynchronize(stream));
    CUDA(cudaStreamDestroy(stream));
  }
}

/* The default stream and blocking ones keep the order of calls. */
static void the_default_stream_keeps_order(void **) {
  for (uint64_t seed = 0; seed < RUNS; seed++) {
    emulator::set_seed(seed);
    int *memory = new_on_device<int>(VALUES);
    cudaStream_t stream;
    CUDA(cudaStreamCreate(&stream));
    CUDA(cudaMemsetAsync(memory, 0, VALUES * sizeof(int), stream));
    LAUNCH(set_kernel, 1, VALUES, 0, nullptr, memory, 1);
    LAUNCH(add_kernel, 1, VALUES, 0, stream, memory, memory, 2);
    int value;
    CUDA(cudaMemcpy(&value, memory, sizeof value, cudaMemcpyDeviceToHost));
    assert_int_equal(value, 3);
    CUDA(cudaStreamDestroy(stream));
    CUDA(cudaFree(memory));
  }
}

static void events_take_the_time(void **) {
  cudaEvent_t start, end, untimed;
  CUDA(cudaEventCreate(&start));
  CUDA(cudaEventCreate(&end));
  CUDA(cudaEventCreateWithFlags(&untimed, cudaEventDisableTiming));
  int *memory = new_on_device<int>(VALUES);
  float milliseconds = -1.0f;
  assert_int_equal(cudaEventElapsedTime(&milliseconds, start, end), cudaErrorInvalidResourceHandle);
  CUDA(cudaEventRecord(start));
  LAUNCH(set_kernel, 1, VALUES, 0, nullptr, memory, 1);
  CUDA(cudaEventRecord(end));
  CUDA(cudaEventRecord(untimed));
  CUDA(cudaDeviceSynchronize());
  CUDA(cudaEventElapsedTime(&milliseconds, start, end));
  assert_true(milliseconds > 0.0f);
  assert_int_equal(cudaEventElapsedTime(&milliseconds, start, untimed), cudaErrorInvalidResourceHandle);
  (void)cudaGetLastError();
  for (cudaEvent_t event : {start, end, untimed}) CUDA(cudaEventDestroy(event));
  CUDA(cudaFree(memory));
}

struct HostThread {
  pthread_t thread;
  int number, result;
};

/* Each makes, uses and checks its own streams. */
static void *use_streams(void *argument) {
  HostThread *self = (HostThread *)argument;
  for (int i = 0; i < RUNS; i++) {
    Pair pair;
    make_pair(&pair);
    for (int step = 0; step < 5; step++) {
      LAUNCH(set_kernel, 2, VALUES, 0, pair.first, pair.a, self->number + step);
      CUDA(cudaEventRecord(pair.event, pair.first));
      CUDA(cudaStreamWaitEvent(pair.second, pair.event));
      LAUNCH(add_kernel, 2, VALUES, 0, pair.second, pair.b, pair.a, 100);
      CUDA(cudaEventRecord(pair.event, pair.second));
      CUDA(cudaStreamWaitEvent(pair.first, pair.event));
    }
    int values[VALUES];
    CUDA(cudaMemcpyAsync(values, pair.b, sizeof values, cudaMemcpyDeviceToHost, pair.second));
    for (int value : values) self->result += value != self->number + 4 + 100;
    destroy_pair(&pair);
  }
  return nullptr;
}

static void host_threads_work_side_by_side(void **) {
  HostThread threads[4];
  for (int i = 0; i < 4; i++) {
    threads[i].number = 1000 * i;
    threads[i].result = 0;
    assert_int_equal(pthread_create(&threads[i].thread, nullptr, use_streams, &threads[i]), 0);
  }
  for (HostThread &thread : threads) {
    pthread_join(thread.thread, nullptr);
    assert_int_equal(thread.result, 0);
  }
}

int test_streams(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_wait_means_the_last_record),   cmocka_unit_test(a_missing_wait_shows),
      cmocka_unit_test(a_wait_for_nothing_is_none),     cmocka_unit_test(pinned_memory_is_read_late),
      cmocka_unit_test(destroyed_streams_finish),       cmocka_unit_test(freeing_waits_for_the_device),
      cmocka_unit_test(the_default_stream_keeps_order), cmocka_unit_test(events_take_the_time),
      cmocka_unit_test(host_threads_work_side_by_side),
  };
  return cmocka_run_group_tests_name("streams", tests, nullptr, nullptr);
}
