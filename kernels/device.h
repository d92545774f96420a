/* A device as one rank sees it: its operations, its memory and its threads. The instruction set is chosen
 * once here, from what the CPU has or from the environment variable RINGGPT_ISA. */
#ifndef RINGGPT_DEVICE_H
#define RINGGPT_DEVICE_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/base/status.h"
#include "kernels/ops.h"

struct Device {
  Ops ops;
  int threads;   /* threads of this rank's compute loops, >= 1 */
  Error failure; /* the first failure of an operation */
  /* Called now and then from the middle of long operations, by the thread that made the device: lets messages
     under way move (comm_poll). NULL: nothing is to be called. */
  void (*poll)(void *context);
  void *poll_context;
  pthread_t owner;       /* the thread that made the device */
  uint64_t *float_modes; /* (threads): what kernels/cpu/float_mode.h changed in them */
  char summary[96];      /* what was chosen, for the log: "cpu, avx512, oneDNN 2.6.3 avx512, 2 threads" */
};

/* Makes a device with `threads` compute threads (>= 1). RINGGPT_ISA=reference|avx2|avx512 forces an
 * instruction set; a name that is unknown or that this CPU lacks fails with STATUS_CONFIG. oneDNN's
 * products follow the first device of the process that uses them: a later one with another instruction set
 * has theirs, as its summary says. A device belongs to the thread that makes it: create, use and destroy it
 * there, and while it exists let its operations alone run OpenMP loops there: a team of another size would
 * end its threads. As long as it exists, the thread and its compute threads take subnormal numbers as zero,
 * which threads started meanwhile inherit; of several devices the last one made is destroyed first. */
Status device_create(int threads, Device **out, Error *error);

/* Releases a device; NULL is allowed. Its memory must have been released before. */
void device_destroy(Device *device);

/* Device memory of `bytes`, zeroed and aligned to MEMORY_ALIGNMENT; `what` names it in an error. */
Status device_alloc(Device *device, size_t bytes, const char *what, void **out, Error *error);
void device_free(Device *device, void *memory);

/* Sets device memory to zero bytes. */
void device_zero(Device *device, void *memory, size_t bytes);

/* Copies from host to device memory and back; after device_read the bytes are there. */
void device_write(Device *device, void *memory, const void *host, size_t bytes);
void device_read(Device *device, void *host, const void *memory, size_t bytes);

/* Reports the first failure of an operation since the device was made. */
Status device_check(const Device *device, Error *error);

/* Calls the hook, if there is one and this is the thread that made the device: for implementations of
 * operations, to be called after every few microseconds of work, from any thread. */
void device_poll(const Device *device);

/* Records a failure of an operation: for implementations of operations. */
void device_fail(Device *device, Status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
