/* The devices that tests of the whole model run on: the CPU, and the CUDA device, which is the emulated one
 * of tests/emulator or, by `make check-gpu`, a real one. */
#ifndef RINGGPT_SUPPORT_TEST_DEVICE_H
#define RINGGPT_SUPPORT_TEST_DEVICE_H

#include <stdbool.h>

#include "kernels/base/status.h"
#include "kernels/device.h"

typedef enum TestDevice { TEST_CPU, TEST_CPU_BF16, TEST_CUDA_F32, TEST_CUDA_BF16 } TestDevice;

/* The name of a kind for messages. */
const char *test_device_name(TestDevice kind);

/* The type of a kind's elements. */
ElementType test_device_elements(TestDevice kind);

/* Lets this process and those it starts find the CUDA device that the environment variable RINGGPT_TEST_CUDA
 * names (kernels/cuda/load.h). False where none is named. */
bool test_device_find_cuda(void);

/* The same, ending the test as skipped, saying so, where none is named. */
void test_device_need_cuda(void);

/* The same, also where the CUDA device is a real one, to which the settings of the emulator mean nothing. */
void test_device_need_emulator(void);

/* Makes a device; `threads` are those of a CPU. After test_device_need_cuda for those of CUDA. */
Status test_device_create(TestDevice kind, int threads, Device **out, Error *error);

#endif
