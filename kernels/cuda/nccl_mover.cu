/* The mover over NCCL, its operations: each is a group of messages between two marks in the queues of the
 * device. Sums are not left to NCCL: the parts are brought here and added in the order of ranks, so that the
 * bits are those of every other transport. */
#include <stdlib.h>

#include "kernels/cuda/nccl_internal.h"

/* Pieces are of a multiple of so many floats, so that sums go by four. */
#define PIECE_STEP 64

static DeviceQueue queue_of(CommLabel label) {
  const bool ring = label == COMM_KEYS_VALUES || label == COMM_KEY_VALUE_GRADIENTS;
  return ring ? QUEUE_RING : QUEUE_REDUCTION;
}

/* ---------------------------------------------------------------- requests */

static Status more_requests(NcclMover *nccl, Error *error) {
  const int64_t count = nccl->request_count > 0 ? 2 * nccl->request_count : 4;
  NcclRequest *grown = (NcclRequest *)realloc(nccl->requests, (size_t)count * sizeof *grown);
  if (grown == NULL) return fail(error, STATUS_SYSTEM, "no memory for operations between ranks");
  for (int64_t i = nccl->request_count; i < count; i++) grown[i] = NcclRequest{};
  nccl->requests = grown;
  nccl->request_count = count;
  return STATUS_OK;
}

/* One that is not in use, with its mark. */
static Status take_request(NcclMover *nccl, CommRequest *request, Error *error) {
  Device *device = nccl_device(nccl);
  int64_t i = 0;
  while (i < nccl->request_count && nccl->requests[i].used) i++;
  if (i == nccl->request_count) TRY(more_requests(nccl, error));
  NcclRequest *slot = &nccl->requests[i];
  if (slot->done == NULL) TRY(device->table->queues->event_create(device, &slot->done, error));
  request->id = (uint64_t)i + 1;
  return STATUS_OK;
}

/* ---------------------------------------------------------------- starting and waiting */

/* What every operation begins with: its queue goes on behind what the rank has computed so far. */
static Status begin(NcclMover *nccl, CommLabel label, CommRequest *request, Error *error) {
  Device *device = nccl_device(nccl);
  const DeviceQueues *queues = device->table->queues;
  const DeviceQueue queue = queue_of(label);
  TRY(nccl_check(&nccl->mover, error));
  TRY(device_check(device, error));
  TRY(take_request(nccl, request, error));
  queues->record(device, QUEUE_COMPUTE, nccl->ready);
  queues->wait(device, queue, nccl->ready);
  return STATUS_OK;
}

/* Messages are in their queue when it returns. */
static Status end(NcclGroup *group, Error *error) {
  TRY(nccl_end(group, error));
  return nccl_settle(group->nccl, group->queue, error);
}

/* And ends with: a mark behind it. */
static void finish(NcclMover *nccl, CommLabel label, const CommRequest *request) {
  Device *device = nccl_device(nccl);
  NcclRequest *slot = &nccl->requests[request->id - 1];
  device->table->queues->record(device, queue_of(label), slot->done);
  slot->used = true;
}

static Status wait(CommMover *mover, CommRequest *request, Error *error) {
  NcclMover *nccl = nccl_mover(mover);
  Device *device = nccl_device(nccl);
  TRY(nccl_check(mover, error));
  NcclRequest *slot = &nccl->requests[request->id - 1];
  device->table->queues->wait(device, QUEUE_COMPUTE, slot->done);
  slot->used = false;
  *request = CommRequest{};
  return STATUS_OK;
}

/* ---------------------------------------------------------------- operations */

static Status shift_start(CommMover *mover, CommLabel label, int distance, const void *send, void *receive,
                          size_t bytes, CommRequest *request, Error *error) {
  NcclMover *nccl = nccl_mover(mover);
  const int size = nccl->size;
  NcclGroup group;
  TRY(begin(nccl, label, request, error));
  nccl_begin(nccl, queue_of(label), &group);
  nccl_send(&group, (nccl->rank + distance) % size, send, bytes);
  nccl_receive(&group, (nccl->rank - distance + size) % size, receive, bytes);
  TRY(end(&group, error));
  finish(nccl, label, request);
  return STATUS_OK;
}

/* A sum of parts by pieces: the same on every rank. */
typedef struct Pieces {
  int64_t elements; /* of the whole buffer */
  int64_t largest;  /* part */
  int64_t piece;    /* of each part at a time, and a row of the scratch memory */
} Pieces;

static Pieces pieces_of(int64_t elements, int size) {
  const int64_t largest = elements / size + (elements % size != 0);
  const int64_t steps = (largest + PIECE_STEP - 1) / PIECE_STEP;
  const int64_t most = NCCL_SCRATCH_FLOATS / (size - 1) / PIECE_STEP;
  return Pieces{elements, largest, (steps < most ? steps : most) * PIECE_STEP};
}

/* Elements [*first, *first + *count) of the buffer: the piece that begins `at` elements into a rank's part.
 */
static void find_piece(const NcclMover *nccl, const Pieces *pieces, int rank, int64_t at, int64_t *first,
                       int64_t *count) {
  int64_t end = 0;
  comm_part(pieces->elements, rank, nccl->size, first, &end);
  const int64_t left = end - *first - at;
  *first += at;
  *count = left < 0 ? 0 : left < pieces->piece ? left : pieces->piece;
}

/* The row of the scratch memory for what rank `rank`, not this one, sends. */
static float *row_of(const NcclMover *nccl, int rank, int64_t row_floats) {
  return nccl->scratch + (rank < nccl->rank ? rank : rank - 1) * row_floats;
}

/* Puts the own pieces of all other ranks into the scratch memory. */
static Status bring_pieces(NcclMover *nccl, const Pieces *pieces, int64_t at, const float *buffer,
                           Error *error) {
  const int size = nccl->size;
  int64_t first = 0;
  int64_t count = 0;
  int64_t own_count = 0;
  NcclGroup group;
  find_piece(nccl, pieces, nccl->rank, at, &first, &own_count);
  nccl_begin(nccl, QUEUE_REDUCTION, &group);
  for (int distance = 1; distance < size; distance++) {
    const int to = (nccl->rank + distance) % size;
    const int from = (nccl->rank - distance + size) % size;
    find_piece(nccl, pieces, to, at, &first, &count);
    nccl_send(&group, to, buffer + first, (size_t)count * sizeof(float));
    nccl_receive(&group, from, row_of(nccl, from, pieces->piece), (size_t)own_count * sizeof(float));
  }
  return end(&group, error);
}

/* own (elements) = the sum over ranks in their order, where `own` is this rank's and the rows are the
 * others'. Where a sum takes fewer arrays than there are ranks, it goes on from what the one before has left
 * in the place of rank 0, which is needed no longer. */
static void sum_in_order(NcclMover *nccl, float *own, int64_t elements, int64_t row_floats) {
  Device *device = nccl_device(nccl);
  const float *sources[DEVICE_SOURCES];
  float *const running = nccl->rank == 0 ? own : row_of(nccl, 0, row_floats);
  int rank = 0;
  while (rank < nccl->size) {
    int count = 0;
    if (rank > 0) sources[count++] = running;
    for (; rank < nccl->size && count < DEVICE_SOURCES; rank++) {
      sources[count++] = rank == nccl->rank ? own : row_of(nccl, rank, row_floats);
    }
    float *const to = rank == nccl->size ? own : running;
    device->table->queues->sum(device, QUEUE_REDUCTION, count, sources, elements, to);
  }
}

static Status reduce_scatter_start(CommMover *mover, CommLabel label, float *buffer, int64_t elements,
                                   CommRequest *request, Error *error) {
  NcclMover *nccl = nccl_mover(mover);
  const Pieces pieces = pieces_of(elements, nccl->size);
  if (queue_of(label) != QUEUE_REDUCTION) return fail(error, STATUS_INTERNAL, "a sum in the ring's queue");
  TRY(begin(nccl, label, request, error));
  for (int64_t at = 0; at < pieces.largest; at += pieces.piece) {
    int64_t first = 0;
    int64_t count = 0;
    TRY(bring_pieces(nccl, &pieces, at, buffer, error));
    find_piece(nccl, &pieces, nccl->rank, at, &first, &count);
    sum_in_order(nccl, buffer + first, count, pieces.piece);
  }
  finish(nccl, label, request);
  return STATUS_OK;
}

static Status gather_parts_start(CommMover *mover, CommLabel label, void *buffer, int64_t elements,
                                 size_t width, CommRequest *request, Error *error) {
  NcclMover *nccl = nccl_mover(mover);
  const int size = nccl->size;
  char *bytes = (char *)buffer;
  int64_t own = 0;
  int64_t own_end = 0;
  NcclGroup group;
  comm_part(elements, nccl->rank, size, &own, &own_end);
  TRY(begin(nccl, label, request, error));
  nccl_begin(nccl, queue_of(label), &group);
  for (int distance = 1; distance < size; distance++) {
    const int to = (nccl->rank + distance) % size;
    const int from = (nccl->rank - distance + size) % size;
    int64_t first = 0;
    int64_t last = 0;
    comm_part(elements, from, size, &first, &last);
    nccl_send(&group, to, bytes + (size_t)own * width, (size_t)(own_end - own) * width);
    nccl_receive(&group, from, bytes + (size_t)first * width, (size_t)(last - first) * width);
  }
  TRY(end(&group, error));
  finish(nccl, label, request);
  return STATUS_OK;
}

const CommMoverTable nccl_table = {
    "nccl", shift_start, reduce_scatter_start, gather_parts_start, wait, nccl_check, nccl_abort, nccl_destroy,
};
