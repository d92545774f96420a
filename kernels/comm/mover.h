/* What moves the memory of devices for a group of ranks whose transport cannot: the group's operations on
 * host memory stay with the transport, those on device memory (comm_use_device) go to the mover. NCCL is one.
 *
 * Nothing here waits for a device or for another rank: a `_start` puts the operation into a queue of the
 * rank's device, behind what the rank has put into QUEUE_COMPUTE so far; `wait` lets QUEUE_COMPUTE go on
 * behind it. Every rank of the group makes the same calls in the same order. A handle belongs to one thread.
 */
#ifndef RINGGPT_COMM_MOVER_H
#define RINGGPT_COMM_MOVER_H

#include "kernels/comm/comm.h"

typedef struct CommMoverTable {
  const char *name; /* "nccl" */
  /* As the calls of the same names in comm.h; sums are of floats, in the order of ranks. */
  Status (*shift_start)(CommMover *mover, CommLabel label, int distance, const void *send, void *receive,
                        size_t bytes, CommRequest *request, Error *error);
  Status (*reduce_scatter_start)(CommMover *mover, CommLabel label, float *buffer, int64_t elements,
                                 CommRequest *request, Error *error);
  Status (*gather_parts_start)(CommMover *mover, CommLabel label, void *buffer, int64_t elements,
                               size_t width, CommRequest *request, Error *error);
  Status (*wait)(CommMover *mover, CommRequest *request, Error *error); /* clears the request */
  /* Looks for a failure of what is under way; called often. */
  Status (*check)(CommMover *mover, Error *error);
  /* Gives up what is under way: queues that wait for other ranks go on, with undefined results. */
  void (*abort)(CommMover *mover);
  void (*destroy)(CommMover *mover);
} CommMoverTable;

struct CommMover {
  const CommMoverTable *table; /* first: a mover's own state follows */
};

/* Gives the group its mover, which the group releases with itself, and the device whose memory it moves: in
 * place of comm_use_device. Groups that are split from it get movers of their own. */
void comm_attach_mover(Comm *comm, Device *device, CommMover *mover);

#endif
