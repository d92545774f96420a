/* A device as one rank sees it: its operations, its memory and, where it works on its own, its queues. What
 * kind it is does not show outside of the folder that makes it: kernels/cpu or kernels/cuda. */
#ifndef RINGGPT_DEVICE_H
#define RINGGPT_DEVICE_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/base/status.h"
#include "kernels/ops.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The queues of a device that works on its own: what is put into one is done in that order, and queues run
 * side by side. Operations, device_zero, device_write and device_copy_rows go to QUEUE_COMPUTE; the others
 * move what ranks send to each other. */
typedef enum DeviceQueue { QUEUE_COMPUTE, QUEUE_RING, QUEUE_REDUCTION, DEVICE_QUEUES } DeviceQueue;

/* A mark in a queue that other queues, of any device of the process, can wait for. */
typedef struct DeviceEvent DeviceEvent;

/* What a device that works on its own adds: ordering and moving memory between ranks. From any thread of the
 * process. NULL in the table of a device whose work is done when a call returns and whose memory is the
 * host's. */
typedef struct DeviceQueues {
  Status (*event_create)(Device *device, DeviceEvent **out, Error *error);
  /* The event may outlive its device; NULL is allowed. */
  void (*event_destroy)(DeviceEvent *event);
  /* Returns when what is before the event's last mark is done; at once where it was never put. */
  void (*event_finish)(const DeviceEvent *event);
  /* Puts the mark behind what is in the queue. A mark may be put again and again; a wait means the last. */
  void (*record)(Device *device, DeviceQueue queue, DeviceEvent *event);
  /* What is put into the queue from now on begins after the mark; the host goes on. */
  void (*wait)(Device *device, DeviceQueue queue, const DeviceEvent *event);
  /* Seconds that QUEUE_COMPUTE has spent in such waits since the last call, as far as they are over. From the
     thread of the device. */
  double (*waited)(Device *device);
  /* Copies `bytes`; `from` may be memory of another device of the process. */
  void (*copy)(Device *device, DeviceQueue queue, void *to, const void *from, size_t bytes);
  /* to[i] = sources[0][i] + sources[1][i] + ... in this order, for `elements` floats; `to` may be one of the
     `count` (at most DEVICE_SOURCES) sources, which may be memory of other devices of the process. */
  void (*sum)(Device *device, DeviceQueue queue, int count, const float *const *sources, int64_t elements,
              float *to);
} DeviceQueues;

enum { DEVICE_SOURCES = 64 };

/* What a kind of device provides besides operations; the public calls below say what each does. */
typedef struct DeviceTable {
  const char *kind; /* "cpu", "cuda" */
  Status (*alloc)(Device *device, size_t bytes, const char *what, void **out, Error *error);
  void (*free)(Device *device, void *memory);
  void (*zero)(Device *device, void *memory, size_t bytes);
  void (*write)(Device *device, void *memory, const void *host, size_t bytes);
  void (*read)(Device *device, void *host, const void *memory, size_t bytes);
  void (*copy_rows)(Device *device, void *to, size_t to_stride, const void *from, size_t from_stride,
                    size_t row_bytes, int64_t rows);
  void (*destroy)(Device *device);
  const DeviceQueues *queues;
  size_t (*left)(Device *device);
} DeviceTable;

struct Device {
  const DeviceTable *table;
  Ops ops;
  int threads;    /* of this rank's compute loops on the CPU, >= 1 */
  Error failure;  /* the first failure of an operation; what is computed from then on is of no use */
  int64_t *pairs; /* where attention's forward pass adds, while it works, the pairs of a query of a head and a
                     key that it sees; NULL: nowhere. A device that works on its own does not. */
  /* Called now and then from the middle of long operations, by the thread that made the device: lets messages
     under way move (comm_poll). NULL: nothing is to be called. */
  void (*poll)(void *context);
  void *poll_context;
  pthread_t owner;   /* the thread that made the device */
  char summary[160]; /* what was chosen, for the log: "cpu, avx512, oneDNN 2.6.3 avx512, 2 threads" */
};

/* Releases a device; NULL is allowed. Its memory must have been released before. */
void device_destroy(Device *device);

/* Device memory of `bytes`, zeroed and aligned to MEMORY_ALIGNMENT at least; `what` names it in an error. */
Status device_alloc(Device *device, size_t bytes, const char *what, void **out, Error *error);
void device_free(Device *device, void *memory);

/* The bytes of device memory that are left to take; SIZE_MAX where that is not known. */
size_t device_left(Device *device);

/* Sets device memory to zero bytes. */
void device_zero(Device *device, void *memory, size_t bytes);

/* Copies from host memory, which the caller may change as soon as the call returns, to device memory; and
 * back: after device_read the bytes are there. */
void device_write(Device *device, void *memory, const void *host, size_t bytes);
void device_read(Device *device, void *host, const void *memory, size_t bytes);

/* Copies `rows` rows of row_bytes within the device, rows to_stride and from_stride bytes apart. */
void device_copy_rows(Device *device, void *to, size_t to_stride, const void *from, size_t from_stride,
                      size_t row_bytes, int64_t rows);

/* Seconds that the device's computation has waited for what moves between ranks, since the last call; as far
 * as they are over, which behind a device_read all are. 0 on a device whose memory is the host's. */
double device_waited(Device *device);

/* Device memory as the host sees it: itself where the device's memory is the host's, else a copy. */
typedef struct DeviceMapping {
  Device *device;
  void *memory; /* device memory (bytes) */
  void *host;   /* host memory (bytes) with the same content */
  size_t bytes;
} DeviceMapping;

/* Makes the bytes at `memory` readable and writable by the host until device_unmap; no operation may use them
 * meanwhile. STATUS_SYSTEM without host memory, naming `what`; or a failure of the device. */
Status device_map(Device *device, void *memory, size_t bytes, const char *what, DeviceMapping *mapping,
                  Error *error);

/* Ends it; with `changed`, what the host wrote is in device memory from then on. The struct may be zero. */
void device_unmap(DeviceMapping *mapping, bool changed);

/* Reports the first failure of an operation since the device was made, as far as it is known: a device that
 * works on its own learns of some at the next device_read. */
Status device_check(const Device *device, Error *error);

/* Calls the hook, if there is one and this is the thread that made the device: for implementations of
 * operations, to be called after every few microseconds of work, from any thread. */
void device_poll(const Device *device);

/* Whether an operation has failed: for long operations, which then end early. From any thread. */
bool device_failed(const Device *device);

/* Adds to what device->pairs counts, if anything: for implementations of operations, from any thread. */
void device_count_pairs(const Device *device, int64_t pairs);

/* Records a failure of an operation: for implementations of operations, and for the poll hook to end what is
 * computed. From the thread of the device. */
void device_fail(Device *device, Status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#ifdef __cplusplus
}
#endif

#endif
