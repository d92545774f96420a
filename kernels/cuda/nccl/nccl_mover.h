/* The NCCL mover from inside: what nccl.cu and nccl_life.cu share. */
#ifndef RINGGPT_CUDA_NCCL_MOVER_H
#define RINGGPT_CUDA_NCCL_MOVER_H

#include <nccl.h>

#include "kernels/cuda/cuda_device.h"

/* Headers of C alone. */
extern "C" {
#include "kernels/base/clock.h"
#include "kernels/comm/mover.h"
}

/* What runs side by side has a communicator and a queue of its own; in each, operations run in the order in
 * which they are started, the same on every rank. */
enum { RING_LANE, REDUCTION_LANE, LANES };

typedef struct NcclLane {
  DeviceQueue queue;
  ncclComm_t comm; /* NULL: not made, or given up */
} NcclLane;

/* One message to or from a peer: `send` or `receive` is NULL. */
typedef struct NcclMessage {
  int peer;
  const void *send;
  void *receive;
  size_t bytes;
} NcclMessage;

/* The end of an operation, in the order in which they were made and in that of the idle ones. */
typedef struct NcclMark {
  DeviceEvent *event;
  struct NcclMark *made_before;
  struct NcclMark *next_idle;
} NcclMark;

typedef struct NcclMover {
  CommMover mover; /* first: a CommMover * of this kind is a NcclMover * */
  Device *device;
  int rank, size;
  double timeout;
  NcclLane lanes[LANES];
  NcclMessage *messages; /* (2 size): of the operation at hand */
  float *scratch;        /* (size - 1, piece) */
  int64_t piece;         /* floats of a part that are summed at a time */
  DeviceEvent *reached;  /* where QUEUE_COMPUTE stood when an operation was started */
  NcclMark *made, *idle;
} NcclMover;

/* The operations: all entries but `abort` and `destroy`. */
Status nccl_shift_start(CommMover *mover, CommLabel label, int distance, const void *send, void *receive,
                        size_t bytes, CommRequest *request, Error *error);
Status nccl_reduce_scatter_start(CommMover *mover, CommLabel label, float *buffer, int64_t elements,
                                 CommRequest *request, Error *error);
Status nccl_gather_parts_start(CommMover *mover, CommLabel label, void *buffer, int64_t elements,
                               size_t width, CommRequest *request, Error *error);
Status nccl_wait(CommMover *mover, CommRequest *request, Error *error);
Status nccl_check(CommMover *mover, Error *error);

/* Waits until what returned `code` is no longer in progress; fails with NCCL's reason. */
Status nccl_settle(const NcclMover *self, const NcclLane *lane, ncclResult_t code, const char *what,
                   Error *error);

/* Puts the first `count` of the mover's messages into the lane's queue as one group: a send without its
 * receive, or one after the other, could wait for ever. */
Status nccl_exchange(const NcclMover *self, const NcclLane *lane, int count, const char *what, Error *error);

#endif
