/* Collectives over a group of ranks: checks and counts, then the transport's table. */
#include "kernels/comm/comm.h"

#include "kernels/comm/combine.h"
#include "kernels/comm/mover.h"

Status comm_use_device(Comm *comm, Device *device, Error *error) {
  if (device->table->queues == NULL) return STATUS_OK;
  if (comm->size > 1 && !comm->table->moves_device_memory) {
    return fail(error, STATUS_CONFIG, "the transport %s cannot move memory of a %s device", comm->table->name,
                device->table->kind);
  }
  comm->device = device;
  return STATUS_OK;
}

void comm_attach_mover(Comm *comm, Device *device, CommMover *mover) {
  comm->device = device;
  comm->mover = mover;
}

void comm_leave_device(Comm *comm) {
  if (comm->mover != NULL) comm->mover->table->destroy(comm->mover);
  comm->mover = NULL;
  comm->device = NULL;
}

/* The kind of a request that is the mover's. */
#define MOVED (-1)

static bool is_moved(const Comm *comm, CommLabel label) {
  return comm->mover != NULL && label != COMM_CONTROL;
}

static void count(Comm *comm, CommLabel label, int64_t bytes) {
  comm->counters[label].messages += 1;
  comm->counters[label].bytes += bytes;
}

Status comm_shift_start(Comm *comm, CommLabel label, int distance, const void *send, void *receive,
                        size_t bytes, CommRequest *request, Error *error) {
  if (distance <= 0 || distance >= comm->size) {
    return fail(error, STATUS_INTERNAL, "ring shift by %d in a group of %d ranks", distance, comm->size);
  }
  if (is_moved(comm, label)) {
    TRY(comm->mover->table->shift_start(comm->mover, label, distance, send, receive, bytes, request, error));
    request->kind = MOVED;
  } else {
    TRY(comm->table->shift_start(comm, label, distance, send, receive, bytes, request, error));
  }
  count(comm, label, (int64_t)bytes);
  return STATUS_OK;
}

void comm_part(int64_t elements, int rank, int size, int64_t *begin, int64_t *end) {
  /* Quotient and remainder apart, so that no product exceeds `elements` by much. */
  const int64_t quotient = elements / size;
  const int64_t remainder = elements % size;
  *begin = quotient * rank + remainder * rank / size;
  *end = quotient * (rank + 1) + remainder * (rank + 1) / size;
}

/* Elements that a rank hands to others when parts are summed where they belong: all but its own part. */
static int64_t others_elements(const Comm *comm, int64_t elements) {
  int64_t begin = 0;
  int64_t end = 0;
  comm_part(elements, comm->rank, comm->size, &begin, &end);
  return elements - (end - begin);
}

/* Elements that a rank hands to others when each gets its part. */
static int64_t own_elements(const Comm *comm, int64_t elements) {
  return (elements - others_elements(comm, elements)) * (comm->size - 1);
}

Status comm_all_reduce_start(Comm *comm, CommLabel label, CommType type, CommReduction reduction,
                             void *buffer, int64_t elements, CommRequest *request, Error *error) {
  if (is_moved(comm, label)) return fail(error, STATUS_INTERNAL, "all-reduce of device memory");
  TRY(comm->table->all_reduce_start(comm, label, type, reduction, buffer, elements, request, error));
  const int64_t sent = others_elements(comm, elements) + own_elements(comm, elements);
  count(comm, label, sent * (int64_t)comm_width(type));
  return STATUS_OK;
}

Status comm_all_reduce(Comm *comm, CommType type, CommReduction reduction, void *buffer, int64_t elements,
                       Error *error) {
  CommRequest request = {0};
  TRY(comm_all_reduce_start(comm, COMM_CONTROL, type, reduction, buffer, elements, &request, error));
  return comm->table->wait(comm, &request, error);
}

Status comm_reduce_scatter_start(Comm *comm, CommLabel label, CommType type, CommReduction reduction,
                                 void *buffer, int64_t elements, CommRequest *request, Error *error) {
  if (is_moved(comm, label)) {
    if (type != COMM_F32 || reduction != COMM_SUM) {
      return fail(error, STATUS_INTERNAL, "devices add floats, nothing else");
    }
    TRY(comm->mover->table->reduce_scatter_start(comm->mover, label, buffer, elements, request, error));
    request->kind = MOVED;
  } else {
    TRY(comm->table->reduce_scatter_start(comm, label, type, reduction, buffer, elements, request, error));
  }
  count(comm, label, others_elements(comm, elements) * (int64_t)comm_width(type));
  return STATUS_OK;
}

Status comm_gather_parts_start(Comm *comm, CommLabel label, void *buffer, int64_t elements, size_t width,
                               CommRequest *request, Error *error) {
  if (is_moved(comm, label)) {
    TRY(comm->mover->table->gather_parts_start(comm->mover, label, buffer, elements, width, request, error));
    request->kind = MOVED;
  } else {
    TRY(comm->table->gather_parts_start(comm, label, buffer, elements, width, request, error));
  }
  count(comm, label, own_elements(comm, elements) * (int64_t)width);
  return STATUS_OK;
}

Status comm_all_gather(Comm *comm, const void *send, void *receive, size_t bytes, Error *error) {
  CommRequest request = {0};
  TRY(comm->table->all_gather_start(comm, send, receive, bytes, &request, error));
  count(comm, COMM_CONTROL, (int64_t)bytes * (comm->size - 1));
  return comm->table->wait(comm, &request, error);
}

Status comm_broadcast(Comm *comm, int root, void *buffer, size_t bytes, Error *error) {
  CommRequest request = {0};
  TRY(comm->table->broadcast_start(comm, root, buffer, bytes, &request, error));
  count(comm, COMM_CONTROL, comm->rank == root ? (int64_t)bytes * (comm->size - 1) : 0);
  return comm->table->wait(comm, &request, error);
}

Status comm_barrier(Comm *comm, Error *error) {
  CommRequest request = {0};
  TRY(comm->table->barrier_start(comm, &request, error));
  return comm->table->wait(comm, &request, error);
}

Status comm_wait(Comm *comm, CommRequest *request, Error *error) {
  if (request->kind == 0) return STATUS_OK;
  if (request->kind == MOVED) return comm->mover->table->wait(comm->mover, request, error);
  return comm->table->wait(comm, request, error);
}

Status comm_split(Comm *comm, int color, Comm **out, Error *error) {
  return comm->table->split(comm, color, out, error);
}

bool comm_ended(Comm *comm) {
  return comm->table->ended(comm);
}

void comm_poll(Comm *comm) {
  Error kept = {0};
  if (comm->table->poll != NULL) comm->table->poll(comm);
  if (comm->mover == NULL) return;
  /* A device that waits for a rank that is gone would wait for ever. What the mover finds, it keeps. */
  if (comm_ended(comm)) {
    comm->mover->table->abort(comm->mover);
  } else {
    (void)comm->mover->table->check(comm->mover, &kept);
  }
}

void comm_abort(Comm *comm, const Error *cause) {
  /* The transport first: it carries the cause. */
  comm->table->abort(comm, cause);
  if (comm->mover != NULL) comm->mover->table->abort(comm->mover);
}

void comm_destroy(Comm *comm) {
  if (comm == NULL) return;
  comm_leave_device(comm);
  comm->table->destroy(comm);
}
