/* The implementations that tests run over: see the header. */
#include "tests/support/implementations.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/cpu_device.h"
#include "kernels/cuda/load.h"
#include "tests/support/test_device.h"
#include "tests/support/unit.h"

/* Of the CPU's the widest first, since the first limits the products of the whole process. */
static const Implementation implementations[] = {
    {"reference", "reference", ELEMENT_F32},
    {"reference bf16", "reference", ELEMENT_BF16},
#if defined(__x86_64__)
    {"avx512_bf16 bf16", "avx512_bf16", ELEMENT_BF16},
    {"avx512", "avx512", ELEMENT_F32},
    {"avx512 bf16", "avx512", ELEMENT_BF16},
    {"avx2", "avx2", ELEMENT_F32},
    {"avx2 bf16", "avx2", ELEMENT_BF16},
#endif
    {"cuda fp32", NULL, ELEMENT_F32},
    {"cuda bf16", NULL, ELEMENT_BF16},
};

const Implementation *implementation_at(size_t i) {
  return i < sizeof implementations / sizeof implementations[0] ? &implementations[i] : NULL;
}

static Device *cpu_device(const Implementation *implementation, int threads) {
  Error error = {0};
  Device *device = NULL;
  assert_int_equal(setenv("RINGGPT_ISA", implementation->isa, 1), 0);
  const Status status = cpu_device_create(threads, implementation->elements, &device, &error);
  assert_int_equal(unsetenv("RINGGPT_ISA"), 0);
  if (status == STATUS_CONFIG) return NULL;
  if (status != STATUS_OK) fail_msg("%s: %s", implementation->name, error.text);
  return device;
}

static Device *cuda_device(const Implementation *implementation) {
  Error error = {0};
  Device *device = NULL;
  if (!test_device_find_cuda()) return NULL;
  if (cuda_device_create(0, implementation->elements, &device, &error) != STATUS_OK) {
    fail_msg("%s: %s", implementation->name, error.text);
  }
  return device;
}

Device *implementation_device(const Implementation *implementation, int threads) {
  return implementation->isa != NULL ? cpu_device(implementation, threads) : cuda_device(implementation);
}

bool implementation_on_host(const Device *device) {
  return device->table->queues == NULL;
}

bool implementation_wants_small(const Device *device) {
  return test_wants_small() || strstr(device->summary, "emulated") != NULL;
}
