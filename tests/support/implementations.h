/* The implementations of the operations that tests run over: the CPU's instruction sets and CUDA, with
 * elements of both types; CUDA where the environment variable RINGGPT_TEST_CUDA names the shared object of
 * that device, which may be the emulated one. */
#ifndef RINGGPT_SUPPORT_IMPLEMENTATIONS_H
#define RINGGPT_SUPPORT_IMPLEMENTATIONS_H

#include <stdbool.h>
#include <stddef.h>

#include "kernels/device.h"

typedef struct Implementation {
  const char *name;
  const char *isa; /* what RINGGPT_ISA may be; NULL for CUDA */
  ElementType elements;
} Implementation;

/* Implementation i, NULL behind the last. */
const Implementation *implementation_at(size_t i);

/* Makes a device, on the CPU with `threads` threads; release it with device_destroy. NULL where this CPU
 * lacks the instruction set, or RINGGPT_TEST_CUDA is not set; any other failure fails the running test. */
Device *implementation_device(const Implementation *implementation, int threads);

/* Whether the device's memory is the host's and its work is done when a call returns. */
bool implementation_on_host(const Device *device);

/* Whether cases must be small: the device is an emulation, some thousand times slower than what it stands
 * for, or tests run under a checker. */
bool implementation_wants_small(const Device *device);

#endif
