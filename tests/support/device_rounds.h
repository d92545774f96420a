/* Rounds of every operation between devices that work on their own, whatever moves their memory: results, and
 * that everything is ordered by marks in queues. Buffers are written in the compute queue just before an
 * operation and overwritten there just behind comm_wait, so that a missing mark shows under an emulator that
 * works off queues in random order. */
#ifndef RINGGPT_SUPPORT_DEVICE_ROUNDS_H
#define RINGGPT_SUPPORT_DEVICE_ROUNDS_H

#include "tests/support/ranks.h"

/* Two device buffers of a rank, and host memory as large. */
enum { DEVICE_BUFFER_ELEMENTS = 1003 };
typedef struct DeviceBuffers {
  Device *device;
  void *send;
  void *receive;
  float host[DEVICE_BUFFER_ELEMENTS];
} DeviceBuffers;

/* To be freed also where it failed. */
Status device_buffers_create(Device *device, DeviceBuffers *buffers, Error *error);
void device_buffers_free(DeviceBuffers *buffers);

/* The rounds over the rank's groups: shifts by every distance and around the ring in its group `ring`, sums
 * and gathered parts in `world`. For run_ranks_on. */
Status device_rounds(TestRank *rank, void *context, Error *error);

#endif
