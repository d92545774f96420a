/* The CPU as a device. */
#ifndef RINGGPT_CPU_DEVICE_H
#define RINGGPT_CPU_DEVICE_H

#include <stdint.h>

#include "kernels/cpu/products_dnnl.h"
#include "kernels/device.h"

typedef struct CpuDevice {
  Device device;          /* first: a Device * of this kind is a CpuDevice * */
  uint64_t *float_modes;  /* (threads): what kernels/cpu/float_mode.h changed in them */
  ProductsDnnl *products; /* NULL where products are the reference's */
} CpuDevice;

/* Makes a device with `threads` compute threads (>= 1) and elements of a type, whose memory is the host's and
 * whose work is done when a call returns. RINGGPT_ISA=reference|avx2|avx512|avx512_bf16 forces an instruction
 * set; a name that is unknown or that this CPU lacks fails with STATUS_CONFIG. oneDNN's products follow the
 * first device of the process that uses them: a later one with a larger instruction set has theirs, as its
 * summary says. A device belongs to the thread that makes it: create, use and destroy it there, and while it
 * exists let its operations alone run OpenMP loops there: a team of another size would end its threads. As
 * long as it exists, the thread and its compute threads take subnormal numbers as zero, which threads started
 * meanwhile inherit; of several devices the last one made is destroyed first. */
Status cpu_device_create(int threads, ElementType elements, Device **out, Error *error);

/* Whether a device of bf16 elements has products by the CPU's instructions for them (avx512_bf16), as oneDNN
 * makes them; without, it is no faster than one of floats. */
bool cpu_device_has_bf16(const Device *device);

#endif
