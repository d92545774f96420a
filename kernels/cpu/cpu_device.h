/* The CPU as a device. */
#ifndef RINGGPT_CPU_DEVICE_H
#define RINGGPT_CPU_DEVICE_H

#include <stdint.h>

#include "kernels/device.h"

typedef struct CpuDevice {
  Device device;         /* first: a Device * of this kind is a CpuDevice * */
  uint64_t *float_modes; /* (threads): what kernels/cpu/float_mode.h changed in them */
} CpuDevice;

/* Makes a device with `threads` compute threads (>= 1), whose memory is the host's and whose work is done
 * when a call returns. RINGGPT_ISA=reference|avx2|avx512 forces an instruction set; a name that is unknown or
 * that this CPU lacks fails with STATUS_CONFIG. oneDNN's products follow the first device of the process that
 * uses them: a later one with another instruction set has theirs, as its summary says. A device belongs to
 * the thread that makes it: create, use and destroy it there, and while it exists let its operations alone
 * run OpenMP loops there: a team of another size would end its threads. As long as it exists, the thread and
 * its compute threads take subnormal numbers as zero, which threads started meanwhile inherit; of several
 * devices the last one made is destroyed first. */
Status cpu_device_create(int threads, Device **out, Error *error);

#endif
