/* The mover over NCCL from inside: what nccl_group.cu and nccl_mover.cu share.
 *
 * The order of operations, in one place: every rank makes the same calls in the same order, and each queue
 * that moves memory has an NCCL communicator of its own. Keys, values and their gradients go over
 * QUEUE_RING's, in the order of these calls, gradients and weights over QUEUE_REDUCTION's, in the order of
 * those; the two run side by side. Nothing else is put into either communicator. */
#ifndef RINGGPT_CUDA_NCCL_INTERNAL_H
#define RINGGPT_CUDA_NCCL_INTERNAL_H

#include <nccl.h>

#include "kernels/cuda/cuda_device.h"
#include "kernels/cuda/nccl_plugin.h"

extern "C" {
#include "kernels/base/clock.h"
#include "kernels/comm/mover.h"
}

/* How far the making has come: what is under way. Communicators are made one after the other; then every pair
 * of ranks that will meet exchanges a few bytes, because NCCL connects two ranks at their first message and
 * the host waits for both of them there. */
typedef enum NcclStage {
  NCCL_JOIN_RING,
  NCCL_JOIN_REDUCTION,
  NCCL_CONNECT_RING,
  NCCL_CONNECT_REDUCTION,
  NCCL_READY
} NcclStage;

/* One that is under way; its number, from 1, is the id in CommRequest. */
typedef struct NcclRequest {
  DeviceEvent *done; /* made at first use and kept */
  bool used;
} NcclRequest;

/* Scratch memory for sums, in floats (16 MiB), for groups of at most 65,536 ranks: what is larger is summed
 * piece by piece. A piece of each other rank is large enough to make starting it cheap. */
#define NCCL_SCRATCH_FLOATS ((int64_t)4 << 20)

typedef struct NcclMover {
  CommMover mover; /* first: a CommMover * of this kind is an NcclMover * */
  CudaDevice *cuda;
  int rank;
  int size;
  NcclIds ids;
  NcclStage stage;
  ncclComm_t comms[DEVICE_QUEUES]; /* NULL: none, or given up; [QUEUE_COMPUTE] has none */
  Error failure;                   /* the first; nothing is started any more */
  DeviceEvent *ready;              /* where the compute queue stood at the last start */
  NcclRequest *requests;           /* (request_count) */
  int64_t request_count;
  float *scratch; /* (NCCL_SCRATCH_FLOATS) what comes to be added, in QUEUE_REDUCTION */
} NcclMover;

static inline NcclMover *nccl_mover(CommMover *mover) {
  return (NcclMover *)mover;
}

static inline Device *nccl_device(const NcclMover *nccl) {
  return &nccl->cuda->device;
}

/* Makes the mover's GPU the current one of this thread, and the one before current again. */
int nccl_enter(const NcclMover *nccl);
void nccl_leave(const NcclMover *nccl, int previous);

/* Records a failure of NCCL or the first one again, gives up both communicators and returns its status. */
Status nccl_fail(NcclMover *nccl, ncclResult_t code, const char *what, Error *error);

/* Messages that NCCL is to carry together, side by side, in one queue: begin, any number of sends and
 * receives, none of them where there are no bytes, end. nccl_end tells NCCL that these are all; nccl_settle
 * then waits until they are in the queue, and nothing may be put behind them before. */
typedef struct NcclGroup {
  NcclMover *nccl;
  DeviceQueue queue;
  ncclResult_t code; /* of the first call that failed */
  int previous;      /* the GPU to make current again */
} NcclGroup;
void nccl_begin(NcclMover *nccl, DeviceQueue queue, NcclGroup *group);
void nccl_send(NcclGroup *group, int rank, const void *from, size_t bytes);
void nccl_receive(NcclGroup *group, int rank, void *to, size_t bytes);
Status nccl_end(NcclGroup *group, Error *error);

/* Waits until the communicator of a queue has put what it was given into the queue. No time limit: where
 * other ranks hang, so does this, with device_poll called. */
Status nccl_settle(NcclMover *nccl, DeviceQueue queue, Error *error);

/* CommMoverTable.check: STATUS_OK, or the first failure. */
Status nccl_check(CommMover *mover, Error *error);
void nccl_abort(CommMover *mover);
void nccl_destroy(CommMover *mover);

/* The table, of nccl_mover.cu. */
extern const CommMoverTable nccl_table;

#endif
