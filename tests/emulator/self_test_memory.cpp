/* Self test: device memory, its limits and guards, launches that cannot start, devices. */
#include <stdlib.h>
#include <string.h>

#include <string>

#include "kernels/cuda/language.h"
#include "self_test.h"

static void memory_starts_as_nan(void **) {
  unsigned words[1000];
  unsigned *device = new_on_device<unsigned>(1000);
  assert_int_equal((uintptr_t)device % 256, 0);
  to_host(words, device, 1000);
  for (unsigned word : words) assert_true(word == 0xffffffffu);
  CUDA(cudaFree(device));
}

/* Reads what nothing was written to, so the race check must not see it. */
__attribute__((no_sanitize("thread"))) static __global__ void shared_kernel(unsigned *out) {
  SHARED(unsigned, variable, [2]);
  EXTERN_SHARED(memory);
  unsigned *dynamic = (unsigned *)memory;
  out[blockIdx.x * 2] = variable[1];
  out[blockIdx.x * 2 + 1] = dynamic[1];
  variable[1] = dynamic[1] = 7;
}

static void shared_memory_of_each_block_starts_as_nan(void **) {
  unsigned words[8];
  unsigned *device = new_on_device<unsigned>(8);
  LAUNCH(shared_kernel, 4, 1, 8, nullptr, device);
  to_host(words, device, 8);
  for (unsigned word : words) assert_true(word == 0xffffffffu);
  CUDA(cudaFree(device));
}

static void memory_has_a_limit(void **) {
  size_t left, total;
  CUDA(cudaMemGetInfo(&left, &total));
  const size_t limit = total - left + 1048576;
  setenv("EMULATED_MEMORY", std::to_string(limit).c_str(), 1);
  CUDA(cudaMemGetInfo(&left, &total));
  assert_int_equal(total, limit);
  assert_int_equal(left, 1048576);
  unsigned char *first = new_on_device<unsigned char>(1000000);
  void *second = &left;
  assert_int_equal(cudaMalloc(&second, 100000), cudaErrorMemoryAllocation);
  assert_null(second);
  assert_int_equal(cudaGetLastError(), cudaErrorMemoryAllocation);
  assert_int_equal(cudaGetLastError(), cudaSuccess);
  CUDA(cudaFree(first));
  CUDA(cudaMalloc(&second, 100000));
  CUDA(cudaFree(second));
  unsetenv("EMULATED_MEMORY");
}

static __global__ void write_kernel(float *to, long at) {
  to[at] = 1.0f;
}
static __global__ void read_kernel(float *to, long at) {
  to[0] = to[at];
}
static __global__ void write_shared_kernel(int at) {
  EXTERN_SHARED(memory);
  memory[at] = 1;
}
static __global__ void deep_kernel(float *to) {
  volatile float large[1 << 18];
  for (int i = (1 << 18) - 1; i >= 0; i -= 256) large[i] = 1.0f;
  to[0] = large[0];
}

static int run_out_of_bounds(int number) {
  float *memory = new_on_device<float>(64 * 17);
  switch (number) {
  case 0:
    LAUNCH(write_kernel, 1, 1, 0, nullptr, memory, 64 * 17);
    break;
  case 1:
    LAUNCH(read_kernel, 1, 1, 0, nullptr, memory, 64 * 17);
    break;
  case 2:
    LAUNCH(write_kernel, 1, 1, 0, nullptr, memory, -1024);
    break;
  case 3:
    LAUNCH(write_shared_kernel, 1, 1, 64, nullptr, 64);
    break;
  case 4:
    LAUNCH(deep_kernel, 1, 1, 0, nullptr, memory);
    break;
  case 5:
    memory = new_on_device<float>(63);
    LAUNCH(write_kernel, 1, 1, 0, nullptr, memory, 63);
    break;
  case 6:
    CUDA(cudaFree(memory));
    memory[0] = 1.0f;
    break;
  default:
    return 0;
  }
  CUDA(cudaDeviceSynchronize());
  CUDA(cudaFree(memory));
  return 0;
}

static void access_behind_the_end_ends_the_process(void **) {
  for (int number = 0; number < 7; number++)
    if (!run_child(run_out_of_bounds, number).aborted) fail_msg("access %d is not found", number);
}

#if !defined(__SANITIZE_ADDRESS__)
static void faults_name_the_thread(void **) {
  expect_end(run_out_of_bounds, 0, "4352 bytes behind the start of device memory of 4352 bytes");
  expect_end(run_out_of_bounds, 1, "block (0,0,0), thread (0,0,0)");
  expect_end(run_out_of_bounds, 2, "4096 bytes before device memory of 4352 bytes");
  expect_end(run_out_of_bounds, 5, "device memory of 252 bytes was written to behind its end");
}
#endif

static void wrong_launches_are_errors(void **) {
  float *memory = new_on_device<float>(1);
  const dim3 grids[] = {dim3(0), dim3(1, 65536), dim3(1), dim3(1), dim3(1)};
  const dim3 blocks[] = {dim3(1), dim3(1), dim3(1025), dim3(1, 0), dim3(1)};
  const size_t shared[] = {0, 0, 0, 0, 48 * 1024 + 1};
  for (int i = 0; i < 5; i++) {
    LAUNCH(write_kernel, grids[i], blocks[i], shared[i], nullptr, memory, 0);
    assert_int_equal(cudaGetLastError(), i < 4 ? cudaErrorInvalidConfiguration : cudaErrorInvalidValue);
  }
  assert_int_equal(
      cudaFuncSetAttribute(write_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, 228 * 1024),
      cudaErrorInvalidValue);
  assert_int_equal(cudaGetLastError(), cudaErrorInvalidValue);
  CUDA(cudaFuncSetAttribute(write_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, 227 * 1024));
  LAUNCH(write_kernel, 1, 1, 227 * 1024, nullptr, memory, 0);
  CUDA(cudaGetLastError());
  CUDA(cudaFree(memory));
}

static void wrong_copies_are_errors(void **) {
  float values[8] = {};
  float *memory = new_on_device<float>(8);
  assert_int_equal(cudaMemcpy(memory, values, 36, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
  assert_int_equal(cudaMemcpy(memory, values, 32, cudaMemcpyDeviceToHost), cudaErrorInvalidValue);
  assert_int_equal(cudaMemcpy(values, memory, 32, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
  assert_int_equal(cudaMemset(values, 0, 32), cudaErrorInvalidValue);
  assert_int_equal(cudaFree(memory + 1), cudaErrorInvalidValue);
  assert_int_equal(cudaGetLastError(), cudaErrorInvalidValue);
  CUDA(cudaMemcpy(memory, values, 32, cudaMemcpyDefault));
  CUDA(cudaFree(memory));
}

static void rows_are_copied_with_their_strides(void **) {
  int values[6 * 4], out[6 * 5];
  for (int i = 0; i < 24; i++) values[i] = i;
  memset(out, 0, sizeof out);
  int *memory = to_device(values, 24);
  CUDA(cudaMemcpy2DAsync(out, 5 * sizeof(int), memory + 1, 4 * sizeof(int), 3 * sizeof(int), 6,
                         cudaMemcpyDeviceToHost, nullptr));
  for (int row = 0; row < 6; row++)
    for (int column = 0; column < 5; column++)
      assert_int_equal(out[row * 5 + column], column < 3 ? row * 4 + column + 1 : 0);
  CUDA(cudaFree(memory));
}

static void devices_are_counted(void **) {
  int count = -1;
  setenv("EMULATED_DEVICES", "0", 1);
  assert_int_equal(cudaGetDeviceCount(&count), cudaErrorNoDevice);
  assert_int_equal(count, 0);
  assert_int_equal(cudaSetDevice(0), cudaErrorNoDevice);
  setenv("EMULATED_DEVICES", "2", 1);
  CUDA(cudaGetDeviceCount(&count));
  assert_int_equal(count, 2);
  assert_int_equal(cudaSetDevice(2), cudaErrorInvalidDevice);
  assert_string_equal(cudaGetErrorName(cudaGetLastError()), "cudaErrorInvalidDevice");
  float *memory = new_on_device<float>(1);
  CUDA(cudaSetDevice(1));
  cudaPointerAttributes attributes;
  CUDA(cudaPointerGetAttributes(&attributes, memory));
  assert_int_equal(attributes.device, 0);
  CUDA(cudaDeviceEnablePeerAccess(0, 0));
  assert_int_equal(cudaDeviceEnablePeerAccess(0, 0), cudaErrorPeerAccessAlreadyEnabled);
  (void)cudaGetLastError();
  LAUNCH(write_kernel, 1, 1, 0, nullptr, memory, 0);
  CUDA(cudaDeviceSynchronize());
  CUDA(cudaSetDevice(0));
  CUDA(cudaFree(memory));
  unsetenv("EMULATED_DEVICES");
}

int test_memory(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(memory_starts_as_nan),
    cmocka_unit_test(shared_memory_of_each_block_starts_as_nan),
    cmocka_unit_test(memory_has_a_limit),
    cmocka_unit_test(access_behind_the_end_ends_the_process),
#if !defined(__SANITIZE_ADDRESS__)
    cmocka_unit_test(faults_name_the_thread),
#endif
    cmocka_unit_test(wrong_launches_are_errors),
    cmocka_unit_test(wrong_copies_are_errors),
    cmocka_unit_test(rows_are_copied_with_their_strides),
    cmocka_unit_test(devices_are_counted),
  };
  return cmocka_run_group_tests_name("memory", tests, nullptr, nullptr);
}
