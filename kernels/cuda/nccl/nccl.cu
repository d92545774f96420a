/* Operations of the NCCL mover: groups of sends and receives. Sums are taken here, in the order of ranks, not
 * by NCCL, whose order depends on the machine: the bits are those of the other transports. */
#include <stdlib.h>
#include <time.h>

#include "kernels/cuda/nccl/nccl_mover.h"

static NcclMover *self_of(CommMover *mover) {
  return (NcclMover *)mover;
}

/* ---------------------------------------------------------------- NCCL's answers */

static bool is_good(ncclResult_t code) {
  return code == ncclSuccess || code == ncclInProgress;
}

static Status refuse(ncclResult_t code, const char *what, Error *error) {
  return fail(error, STATUS_SYSTEM, "NCCL: %s: %s (%s)", what, ncclGetErrorString(code),
              ncclGetLastError(NULL));
}

/* Communicators do not block, so that a rank can be told meanwhile that another one has failed. */
Status nccl_settle(const NcclMover *self, const NcclLane *lane, ncclResult_t code, const char *what,
                   Error *error) {
  static const struct timespec pause = {0, 20000};
  const double start = clock_seconds();
  while (code == ncclInProgress) {
    if (self->timeout > 0 && clock_seconds() - start > self->timeout) {
      return fail(error, STATUS_SYSTEM, "NCCL: %s: rank %d waited %g s for the other ranks", what, self->rank,
                  self->timeout);
    }
    device_poll(self->device);
    (void)nanosleep(&pause, NULL);
    const ncclResult_t asked = ncclCommGetAsyncError(lane->comm, &code);
    if (asked != ncclSuccess) code = asked;
  }
  return code == ncclSuccess ? STATUS_OK : refuse(code, what, error);
}

Status nccl_exchange(const NcclMover *self, const NcclLane *lane, int count, const char *what, Error *error) {
  const cudaStream_t stream = cuda_device(self->device)->streams[lane->queue];
  ncclResult_t code = ncclGroupStart();
  if (code != ncclSuccess) return refuse(code, what, error);
  for (int i = 0; i < count && is_good(code); i++) {
    const NcclMessage *message = &self->messages[i];
    if (message->bytes == 0) continue;
    if (message->send != NULL) {
      code = ncclSend(message->send, message->bytes, ncclInt8, message->peer, lane->comm, stream);
    } else {
      code = ncclRecv(message->receive, message->bytes, ncclInt8, message->peer, lane->comm, stream);
    }
  }
  const ncclResult_t ended = ncclGroupEnd();
  return nccl_settle(self, lane, is_good(code) ? ended : code, what, error);
}

Status nccl_check(CommMover *mover, Error *error) {
  const NcclMover *self = self_of(mover);
  for (int i = 0; i < LANES; i++) {
    if (self->lanes[i].comm == NULL) continue;
    ncclResult_t code = ncclSuccess;
    const ncclResult_t asked = ncclCommGetAsyncError(self->lanes[i].comm, &code);
    if (!is_good(asked)) code = asked;
    if (!is_good(code)) return refuse(code, "a transfer between GPUs", error);
  }
  return STATUS_OK;
}

/* ---------------------------------------------------------------- order in the queues */

/* A mark for the end of an operation: an idle one, or a new one. */
static Status take_mark(NcclMover *self, NcclMark **out, Error *error) {
  if (self->idle == NULL) {
    NcclMark *mark = (NcclMark *)calloc(1, sizeof *mark);
    if (mark == NULL) return fail(error, STATUS_SYSTEM, "NCCL: no memory for an operation");
    const Status status = self->device->table->queues->event_create(self->device, &mark->event, error);
    if (status != STATUS_OK) {
      free(mark);
      return status;
    }
    mark->made_before = self->made;
    self->made = mark;
    self->idle = mark;
  }
  *out = self->idle;
  self->idle = self->idle->next_idle;
  return STATUS_OK;
}

/* Chooses the lane and lets it go on behind what is in QUEUE_COMPUTE. */
static Status begin(NcclMover *self, CommLabel label, const NcclLane **out, Error *error) {
  const DeviceQueues *queues = self->device->table->queues;
  const bool ring = label == COMM_KEYS_VALUES || label == COMM_KEY_VALUE_GRADIENTS;
  const NcclLane *lane = &self->lanes[ring ? RING_LANE : REDUCTION_LANE];
  if (lane->comm == NULL) return fail(error, STATUS_INTERNAL, "NCCL: the communicator was given up");
  queues->record(self->device, QUEUE_COMPUTE, self->reached);
  queues->wait(self->device, lane->queue, self->reached);
  *out = lane;
  return STATUS_OK;
}

/* Marks the end of the operation, for nccl_wait. */
static Status finish(NcclMover *self, const NcclLane *lane, CommRequest *request, Error *error) {
  NcclMark *mark = NULL;
  TRY(take_mark(self, &mark, error));
  self->device->table->queues->record(self->device, lane->queue, mark->event);
  request->id = (uint64_t)(uintptr_t)mark;
  return STATUS_OK;
}

Status nccl_wait(CommMover *mover, CommRequest *request, Error *error) {
  NcclMover *self = self_of(mover);
  NcclMark *mark = (NcclMark *)(uintptr_t)request->id;
  self->device->table->queues->wait(self->device, QUEUE_COMPUTE, mark->event);
  mark->next_idle = self->idle;
  self->idle = mark;
  *request = CommRequest{};
  return nccl_check(mover, error);
}

/* ---------------------------------------------------------------- operations */

Status nccl_shift_start(CommMover *mover, CommLabel label, int distance, const void *send, void *receive,
                        size_t bytes, CommRequest *request, Error *error) {
  NcclMover *self = self_of(mover);
  const NcclLane *lane = NULL;
  TRY(begin(self, label, &lane, error));
  self->messages[0] = NcclMessage{(self->rank + distance) % self->size, send, NULL, bytes};
  self->messages[1] = NcclMessage{(self->rank - distance + self->size) % self->size, NULL, receive, bytes};
  TRY(nccl_exchange(self, lane, 2, "a shift around the ring", error));
  return finish(self, lane, request, error);
}

/* Piece number `round` of a rank's part: [*begin, *end) of the elements, empty behind the part's end. */
static void piece_of(const NcclMover *self, int64_t elements, int rank, int64_t round, int64_t *begin,
                     int64_t *end) {
  comm_part(elements, rank, self->size, begin, end);
  *begin = *begin + round * self->piece < *end ? *begin + round * self->piece : *end;
  *end = *begin + self->piece < *end ? *begin + self->piece : *end;
}

/* Sends one piece of each part to its owner and receives what the others have of the own one, the rows of
 * `scratch` in the order of ranks. */
static Status trade_pieces(NcclMover *self, const NcclLane *lane, const float *buffer, int64_t elements,
                           int64_t round, Error *error) {
  int64_t own_begin = 0;
  int64_t own_end = 0;
  piece_of(self, elements, self->rank, round, &own_begin, &own_end);
  int count = 0;
  for (int peer = 0, row = 0; peer < self->size; peer++) {
    if (peer == self->rank) continue;
    int64_t begin = 0;
    int64_t end = 0;
    piece_of(self, elements, peer, round, &begin, &end);
    self->messages[count++] = NcclMessage{peer, buffer + begin, NULL, (size_t)(end - begin) * sizeof(float)};
    self->messages[count++] = NcclMessage{peer, NULL, self->scratch + row++ * self->piece,
                                          (size_t)(own_end - own_begin) * sizeof(float)};
  }
  return nccl_exchange(self, lane, count, "a sum over ranks", error);
}

/* Sums the rows of `scratch` and the own piece in the order of ranks into the own piece: as many at a time as
 * a device adds, the sum so far in the place of the first of them. */
static void add_pieces(const NcclMover *self, const NcclLane *lane, float *own, int64_t elements) {
  float *sources[DEVICE_SOURCES];
  int count = 0;
  for (int rank = 0, row = 0; rank < self->size; rank++) {
    sources[count++] = rank == self->rank ? own : self->scratch + row++ * self->piece;
    const bool last = rank == self->size - 1;
    if (count < DEVICE_SOURCES && !last) continue;
    self->device->table->queues->sum(self->device, lane->queue, count, sources, elements,
                                     last ? own : sources[0]);
    count = 1;
  }
}

Status nccl_reduce_scatter_start(CommMover *mover, CommLabel label, float *buffer, int64_t elements,
                                 CommRequest *request, Error *error) {
  NcclMover *self = self_of(mover);
  const NcclLane *lane = NULL;
  TRY(begin(self, label, &lane, error));
  const int64_t largest = (elements + self->size - 1) / self->size;
  for (int64_t round = 0; round * self->piece < largest; round++) {
    int64_t begin = 0;
    int64_t end = 0;
    TRY(trade_pieces(self, lane, buffer, elements, round, error));
    piece_of(self, elements, self->rank, round, &begin, &end);
    add_pieces(self, lane, buffer + begin, end - begin);
  }
  return finish(self, lane, request, error);
}

Status nccl_gather_parts_start(CommMover *mover, CommLabel label, void *buffer, int64_t elements,
                               size_t width, CommRequest *request, Error *error) {
  NcclMover *self = self_of(mover);
  const NcclLane *lane = NULL;
  TRY(begin(self, label, &lane, error));
  int64_t own_begin = 0;
  int64_t own_end = 0;
  comm_part(elements, self->rank, self->size, &own_begin, &own_end);
  int count = 0;
  for (int peer = 0; peer < self->size; peer++) {
    if (peer == self->rank) continue;
    int64_t begin = 0;
    int64_t end = 0;
    comm_part(elements, peer, self->size, &begin, &end);
    self->messages[count++] = NcclMessage{peer, (const char *)buffer + (size_t)own_begin * width, NULL,
                                          (size_t)(own_end - own_begin) * width};
    self->messages[count++] =
        NcclMessage{peer, NULL, (char *)buffer + (size_t)begin * width, (size_t)(end - begin) * width};
  }
  TRY(nccl_exchange(self, lane, count, "a gathering of parts", error));
  return finish(self, lane, request, error);
}
