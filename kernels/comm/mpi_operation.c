/* Operations of the MPI transport: which streams each kind is made of, and how it goes on. */
#include "kernels/comm/comm.h"

#if RINGGPT_MPI

#include <stdlib.h>
#include <string.h>

#include "kernels/base/clock.h"
#include "kernels/comm/mpi_state.h"

/* Pieces of a broadcast: a rank hands one on while it receives the next. */
#define BROADCAST_PIECE ((size_t)1 << 20)

/* A header, and at most what an all-reduce has: a part and its sum, to and from every other rank. */
enum { STREAMS_PER_RANK = 5 };

int mpi_tag(const MpiHeader *header, int phase) {
  return TAG_HEADER + 1 + 2 * (int)(header->id % TAG_OPERATIONS) + phase;
}

static int neighbour(const MpiGroup *group, const MpiHeader *header, int side) {
  return (int)((group->rank + side * header->argument + group->size) % group->size);
}

bool mpi_operation_connects(const MpiGroup *group, const MpiHeader *header, int rank) {
  if (rank == group->rank) return false;
  if (header->kind != KIND_SHIFT) return true;
  return rank == neighbour(group, header, 1) || rank == neighbour(group, header, -1);
}

/* ---------------------------------------------------------------- streams of each kind */

/* const is cast away: MPI only reads what a stream sends. */
static char *readable(const void *data) {
  char *bytes = NULL;
  memcpy(&bytes, &data, sizeof bytes);
  return bytes;
}

static MpiStream plain(const MpiOperation *operation, int peer, bool receives, char *data, size_t bytes) {
  return (MpiStream){.peer = peer,
                     .tag = mpi_tag(&operation->header, 0),
                     .receives = receives,
                     .data = data,
                     .bytes = bytes,
                     .piece = MPI_MESSAGE_BYTES};
}

static void add_headers(const MpiGroup *group, MpiOperation *operation) {
  for (int i = 1; i < group->size; i++) {
    const int peer = (group->rank + i) % group->size;
    if (!mpi_operation_connects(group, &operation->header, peer)) continue;
    MpiStream stream = plain(operation, peer, false, (char *)&operation->header, sizeof operation->header);
    stream.tag = TAG_HEADER;
    mpi_stream_add(operation, stream);
    operation->awaited += 1;
  }
}

static void add_shift(const MpiGroup *group, MpiOperation *operation, const void *send, void *receive) {
  const MpiHeader *header = &operation->header;
  const size_t bytes = header->amount;
  mpi_stream_add(operation, plain(operation, neighbour(group, header, 1), false, readable(send), bytes));
  mpi_stream_add(operation, plain(operation, neighbour(group, header, -1), true, receive, bytes));
}

static void add_all_gather(const MpiGroup *group, MpiOperation *operation, const void *send, char *receive) {
  const size_t bytes = operation->header.amount;
  if (bytes == 0) return;
  memcpy(receive + (size_t)group->rank * bytes, send, bytes);
  for (int i = 1; i < group->size; i++) {
    const int peer = (group->rank + i) % group->size;
    mpi_stream_add(operation, plain(operation, peer, false, readable(send), bytes));
    mpi_stream_add(operation, plain(operation, peer, true, receive + (size_t)peer * bytes, bytes));
  }
}

static void add_gather_parts(const MpiGroup *group, MpiOperation *operation, char *buffer) {
  const MpiHeader *header = &operation->header;
  int64_t own = 0;
  int64_t own_end = 0;
  comm_part((int64_t)header->amount, group->rank, group->size, &own, &own_end);
  for (int i = 1; i < group->size; i++) {
    const int peer = (group->rank + i) % group->size;
    int64_t begin = 0;
    int64_t end = 0;
    comm_part((int64_t)header->amount, peer, group->size, &begin, &end);
    mpi_stream_add(operation, plain(operation, peer, false, buffer + (size_t)own * header->width,
                                    (size_t)(own_end - own) * header->width));
    mpi_stream_add(operation, plain(operation, peer, true, buffer + (size_t)begin * header->width,
                                    (size_t)(end - begin) * header->width));
  }
}

/* A binomial tree: counted from the root, rank r receives from r without its lowest set bit and sends to r
 * with a bit below that set. */
static void add_broadcast(const MpiGroup *group, MpiOperation *operation, char *buffer) {
  const MpiHeader *header = &operation->header;
  const int size = group->size;
  const int root = (int)header->argument;
  const int place = (group->rank - root + size) % size;
  int bit = 1;
  while (bit < size && (place & bit) == 0) bit *= 2;
  const int from = operation->stream_count;
  if (place != 0) {
    MpiStream stream = plain(operation, (place - bit + root) % size, true, buffer, header->amount);
    stream.piece = BROADCAST_PIECE;
    mpi_stream_add(operation, stream);
  }
  for (bit /= 2; bit > 0; bit /= 2) {
    if (place + bit >= size) continue;
    MpiStream stream = plain(operation, (place + bit + root) % size, false, buffer, header->amount);
    stream.piece = BROADCAST_PIECE;
    if (place != 0) {
      stream.rule = STREAM_AFTER;
      stream.after = from;
    }
    mpi_stream_add(operation, stream);
  }
}

static Status add_streams(MpiGroup *group, MpiOperation *operation, const void *send, void *buffer,
                          Error *error) {
  add_headers(group, operation);
  switch ((MpiKind)operation->header.kind) {
  case KIND_SHIFT:
    add_shift(group, operation, send, buffer);
    break;
  case KIND_BROADCAST:
    add_broadcast(group, operation, buffer);
    break;
  case KIND_ALL_GATHER:
    add_all_gather(group, operation, send, buffer);
    break;
  case KIND_GATHER_PARTS:
    add_gather_parts(group, operation, buffer);
    break;
  case KIND_ALL_REDUCE:
  case KIND_REDUCE_SCATTER:
    return mpi_reduce_create(group, operation, buffer, error);
  case KIND_NONE:
  case KIND_BARRIER: /* the headers are all there is to them */
  case KIND_SPLIT:
    break;
  }
  return STATUS_OK;
}

/* ---------------------------------------------------------------- life */

void mpi_operation_free(MpiOperation *operation) {
  if (operation == NULL) return;
  free(operation->joined);
  free(operation->streams);
  free(operation->requests);
  free(operation->indices);
  free(operation->statuses);
  free(operation);
}

/* An operation with room for as many streams as there can be. NULL: no memory. */
static MpiOperation *operation_alloc(int size) {
  MpiOperation *operation = calloc(1, sizeof *operation);
  if (operation == NULL) return NULL;
  const size_t streams = (size_t)size * STREAMS_PER_RANK;
  operation->joined = calloc((size_t)size, sizeof *operation->joined);
  operation->streams = calloc(streams, sizeof *operation->streams);
  operation->requests = malloc(2 * streams * sizeof(MPI_Request));
  operation->indices = calloc(2 * streams, sizeof *operation->indices);
  operation->statuses = calloc(2 * streams, sizeof *operation->statuses);
  if (operation->joined == NULL || operation->streams == NULL || operation->requests == NULL ||
      operation->indices == NULL || operation->statuses == NULL) {
    mpi_operation_free(operation);
    return NULL;
  }
  for (size_t i = 0; i < 2 * streams; i++) operation->requests[i] = MPI_REQUEST_NULL;
  return operation;
}

Status mpi_operation_create(MpiGroup *group, MpiHeader header, const void *send, void *buffer,
                            MpiOperation **out, Error *error) {
  MpiOperation *operation = operation_alloc(group->size);
  if (operation == NULL) return fail(error, STATUS_SYSTEM, "no memory for a collective operation");
  operation->header = header;
  operation->header.id = group->next_id;
  operation->ready_at = clock_seconds();
  const Status status = add_streams(group, operation, send, buffer, error);
  if (status != STATUS_OK) {
    mpi_operation_free(operation);
    return status;
  }
  MpiOperation **link = &group->operations;
  while (*link != NULL) link = &(*link)->next;
  *link = operation;
  group->next_id += 1;
  *out = operation;
  return STATUS_OK;
}

void mpi_operation_remove(MpiGroup *group, MpiOperation *operation) {
  MpiOperation **link = &group->operations;
  while (*link != operation) link = &(*link)->next;
  *link = operation->next;
  mpi_reduce_release(group, operation);
  mpi_operation_free(operation);
}

Status mpi_operation_advance(MpiGroup *group, MpiOperation *operation, bool *moved, Error *error) {
  if (operation->complete) return STATUS_OK;
  TRY(mpi_streams_test(operation, moved, error));
  TRY(mpi_reduce_advance(group, operation, moved, error));
  TRY(mpi_streams_post(group, operation, moved, error));
  operation->complete =
      operation->awaited == 0 && operation->sum.done == operation->sum.pieces && mpi_streams_done(operation);
  return STATUS_OK;
}

#endif
