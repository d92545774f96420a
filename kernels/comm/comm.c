/* Collectives over a group of ranks: checks and counts, then the transport's table. */
#include "kernels/comm/comm.h"

static Status finish(Comm *comm, Status started, CommRequest *request, Error *error) {
  return started == STATUS_OK ? comm->table->wait(comm, request, error) : started;
}

Status comm_shift_start(Comm *comm, CommLabel label, int distance, const void *send, void *receive,
                        size_t bytes, CommRequest *request, Error *error) {
  if (distance <= 0 || distance >= comm->size) {
    return fail(error, STATUS_INTERNAL, "ring shift by %d in a group of %d ranks", distance, comm->size);
  }
  TRY(comm->table->shift_start(comm, label, distance, send, receive, bytes, request, error));
  comm->counters[label].messages += 1;
  comm->counters[label].bytes += (int64_t)bytes;
  return STATUS_OK;
}

Status comm_all_reduce_start(Comm *comm, CommType type, CommReduction reduction, void *buffer,
                             int64_t elements, CommRequest *request, Error *error) {
  return comm->table->all_reduce_start(comm, type, reduction, buffer, elements, request, error);
}

Status comm_all_reduce(Comm *comm, CommType type, CommReduction reduction, void *buffer, int64_t elements,
                       Error *error) {
  CommRequest request = {0};
  const Status started =
      comm->table->all_reduce_start(comm, type, reduction, buffer, elements, &request, error);
  return finish(comm, started, &request, error);
}

Status comm_all_gather(Comm *comm, const void *send, void *receive, size_t bytes, Error *error) {
  CommRequest request = {0};
  return finish(comm, comm->table->all_gather_start(comm, send, receive, bytes, &request, error), &request,
                error);
}

Status comm_broadcast(Comm *comm, int root, void *buffer, size_t bytes, Error *error) {
  CommRequest request = {0};
  return finish(comm, comm->table->broadcast_start(comm, root, buffer, bytes, &request, error), &request,
                error);
}

Status comm_barrier(Comm *comm, Error *error) {
  CommRequest request = {0};
  return finish(comm, comm->table->barrier_start(comm, &request, error), &request, error);
}

Status comm_wait(Comm *comm, CommRequest *request, Error *error) {
  return request->kind == 0 ? STATUS_OK : comm->table->wait(comm, request, error);
}

Status comm_split(Comm *comm, int color, Comm **out, Error *error) {
  return comm->table->split(comm, color, out, error);
}

void comm_abort(Comm *comm, const Error *cause) {
  comm->table->abort(comm, cause);
}

void comm_destroy(Comm *comm) {
  if (comm != NULL) comm->table->destroy(comm);
}
