/* The devices that tests of the whole model run on. */
#include "tests/support/test_device.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/cpu_device.h"
#include "kernels/cuda/load.h"
#include "tests/support/unit.h"

const char *test_device_name(TestDevice kind) {
  static const char *const names[] = {"CPU", "CPU in bf16", "CUDA in fp32", "CUDA in bf16"};
  return names[kind];
}

ElementType test_device_elements(TestDevice kind) {
  return kind == TEST_CPU_BF16 || kind == TEST_CUDA_BF16 ? ELEMENT_BF16 : ELEMENT_F32;
}

bool test_device_find_cuda(void) {
  const char *object = getenv("RINGGPT_TEST_CUDA");
  if (object == NULL || object[0] == '\0') return false;
  assert_int_equal(setenv("RINGGPT_CUDA", object, 1), 0);
  return true;
}

void test_device_need_cuda(void) {
  if (test_device_find_cuda()) return;
  print_message("RINGGPT_TEST_CUDA names no CUDA device\n");
  skip();
}

Status test_device_create(TestDevice kind, int threads, Device **out, Error *error) {
  const ElementType elements = test_device_elements(kind);
  if (kind == TEST_CPU || kind == TEST_CPU_BF16) return cpu_device_create(threads, elements, out, error);
  return cuda_device_create(0, elements, out, error);
}

void test_device_need_emulator(void) {
  Error error = {0};
  Device *device = NULL;
  test_device_need_cuda();
  if (test_device_create(TEST_CUDA_F32, 1, &device, &error) != STATUS_OK) fail_msg("%s", error.text);
  const bool emulated = strstr(device->summary, "emulated") != NULL;
  device_destroy(device);
  if (emulated) return;
  print_message("on the emulator alone\n");
  skip();
}
