/* Making, giving up and releasing the NCCL mover. */
#include <stdio.h>
#include <stdlib.h>

#include "kernels/cuda/nccl/nccl.h"
#include "kernels/cuda/nccl/nccl_mover.h"

/* Floats of scratch memory for sums over ranks: 64 MiB. */
static const int64_t SCRATCH_FLOATS = INT64_C(1) << 24;

/* Most blocks of threads of a communicator: NCCL's kernels hold multiprocessors as long as they wait for a
 * peer, and starve where a grid of attention leaves no room for them. */
enum { MOST_BLOCKS = 16 };

static const DeviceQueue lane_queues[LANES] = {QUEUE_RING, QUEUE_REDUCTION};

/* ---------------------------------------------------------------- giving up and releasing */

static void mover_abort(CommMover *mover) {
  NcclMover *self = (NcclMover *)mover;
  for (int i = 0; i < LANES; i++) {
    if (self->lanes[i].comm != NULL) (void)ncclCommAbort(self->lanes[i].comm);
    self->lanes[i].comm = NULL;
  }
}

static void close_lane(const NcclMover *self, NcclLane *lane) {
  if (lane->comm == NULL) return;
  Error ignored = {};
  const ncclResult_t code = ncclCommFinalize(lane->comm);
  if (nccl_settle(self, lane, code, "its end", &ignored) == STATUS_OK) {
    (void)ncclCommDestroy(lane->comm);
  } else {
    (void)ncclCommAbort(lane->comm);
  }
  lane->comm = NULL;
}

static void mover_destroy(CommMover *mover) {
  NcclMover *self = (NcclMover *)mover;
  for (int i = 0; i < LANES; i++) close_lane(self, &self->lanes[i]);
  const DeviceQueues *queues = self->device->table->queues;
  while (self->made != NULL) {
    NcclMark *mark = self->made;
    self->made = mark->made_before;
    queues->event_destroy(mark->event);
    free(mark);
  }
  queues->event_destroy(self->reached);
  device_free(self->device, self->scratch);
  free(self->messages);
  free(self);
}

static const CommMoverTable mover_table = {
    "nccl",      nccl_shift_start, nccl_reduce_scatter_start, nccl_gather_parts_start, nccl_wait, nccl_check,
    mover_abort, mover_destroy,
};

/* ---------------------------------------------------------------- making */

static Status take_memory(NcclMover *self, Error *error) {
  const int64_t others = self->size > 1 ? self->size - 1 : 1;
  void *scratch = NULL;
  self->piece = SCRATCH_FLOATS / others;
  self->messages = (NcclMessage *)calloc(2 * (size_t)self->size, sizeof *self->messages);
  if (self->messages == NULL) return fail(error, STATUS_SYSTEM, "NCCL: no memory for %d ranks", self->size);
  TRY(self->device->table->queues->event_create(self->device, &self->reached, error));
  TRY(device_alloc(self->device, (size_t)(self->piece * others) * sizeof(float), "sums over ranks", &scratch,
                   error));
  self->scratch = (float *)scratch;
  return STATUS_OK;
}

/* Rank 0's names of the communicators, at every rank. */
static Status agree_on_names(Comm *host, ncclUniqueId (&names)[LANES], Error *error) {
  for (int i = 0; i < LANES && host->rank == 0; i++) {
    const ncclResult_t code = ncclGetUniqueId(&names[i]);
    if (code != ncclSuccess) {
      return fail(error, STATUS_SYSTEM, "NCCL: cannot start: %s (%s)", ncclGetErrorString(code),
                  ncclGetLastError(NULL));
    }
  }
  return comm_broadcast(host, 0, names, sizeof names, error);
}

/* Sends a little to every peer that the lane has messages for, and receives as much: NCCL connects two ranks
 * when they first meet, and later no start has to wait for another rank to come. */
static Status meet_peers(NcclMover *self, const NcclLane *lane, Error *error) {
  int count = 0;
  for (int peer = 0; peer < self->size; peer++) {
    const int distance = (peer - self->rank + self->size) % self->size;
    const bool neighbour = distance == 1 || distance == self->size - 1;
    if (distance == 0 || (lane->queue == QUEUE_RING && !neighbour)) continue;
    self->messages[count++] = NcclMessage{peer, self->scratch, NULL, sizeof(float)};
    self->messages[count++] = NcclMessage{peer, NULL, self->scratch + 1 + peer, sizeof(float)};
  }
  return nccl_exchange(self, lane, count, "connecting the ranks", error);
}

static Status open_lane(NcclMover *self, int number, const ncclUniqueId &name, Error *error) {
  NcclLane *lane = &self->lanes[number];
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  config.minCTAs = 1;
  config.maxCTAs = MOST_BLOCKS;
  lane->queue = lane_queues[number];
  const ncclResult_t code = ncclCommInitRankConfig(&lane->comm, self->size, name, self->rank, &config);
  TRY(nccl_settle(self, lane, code, "making a communicator", error));
  return meet_peers(self, lane, error);
}

static Status open_mover(NcclMover *self, Comm *host, Error *error) {
  ncclUniqueId names[LANES] = {};
  TRY(take_memory(self, error));
  TRY(agree_on_names(host, names, error));
  for (int i = 0; i < LANES; i++) TRY(open_lane(self, i, names[i], error));
  return STATUS_OK;
}

Status nccl_mover_create(Comm *host, Device *device, double timeout, CommMover **out, Error *error) {
  *out = NULL;
  NcclMover *self = (NcclMover *)calloc(1, sizeof *self);
  if (self == NULL) return fail(error, STATUS_SYSTEM, "NCCL: the machine has no memory left");
  self->mover.table = &mover_table;
  self->device = device;
  self->rank = host->rank;
  self->size = host->size;
  self->timeout = timeout;
  const Status status = open_mover(self, host, error);
  if (status != STATUS_OK) {
    mover_abort(&self->mover);
    mover_destroy(&self->mover);
    return status;
  }
  *out = &self->mover;
  return STATUS_OK;
}

/* ---------------------------------------------------------------- the version */

void nccl_describe(char *text, size_t bytes) {
  int version = 0;
  if (ncclGetVersion(&version) != ncclSuccess) {
    (void)snprintf(text, bytes, "NCCL of unknown version");
    return;
  }
  const bool faulty = version >= NCCL_VERSION(2, 28, 3) && version <= NCCL_VERSION(2, 28, 8);
  (void)snprintf(text, bytes, "NCCL %d.%d.%d%s", version / 10000, version / 100 % 100, version % 100,
                 faulty ? ", which is reported to have faults in giving up (2.28.3 to 2.28.8)" : "");
}
