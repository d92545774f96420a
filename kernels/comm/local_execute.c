/* The local transport's work: moving the data of an operation at which the ranks have arrived. In host memory
 * it is done on return; between devices it is put into their queues, each rank's part into its own. */
#include <stdlib.h>
#include <string.h>

#include "kernels/comm/combine.h"
#include "kernels/comm/local_state.h"

LocalGroup *local_group_create(LocalHub *hub, int size) {
  LocalGroup *group = calloc(1, sizeof *group);
  if (group == NULL) return NULL;
  *group = (LocalGroup){.hub = hub, .next = hub->first, .size = size, .members = size};
  hub->first = group;
  hub->groups += 1;
  return group;
}

/* ---------------------------------------------------------------- one rank's part */

/* What is put into the part's queue from now on begins when rank `from` had arrived. */
static void after_arrival(const LocalPart *part, const LocalPart *from) {
  if (part->device != NULL) part->device->table->queues->wait(part->device, part->queue, from->ready);
}

static void after_arrivals(const LocalPart *part, int size, const LocalOperation *operation) {
  for (int rank = 0; rank < size; rank++) after_arrival(part, &operation->parts[rank]);
}

/* Copies to memory of the part's rank. */
static void copy(const LocalPart *part, void *to, const void *from, size_t bytes) {
  if (part->device == NULL) {
    memcpy(to, from, bytes);
  } else {
    part->device->table->queues->copy(part->device, part->queue, to, from, bytes);
  }
}

static void finish(const LocalPart *part) {
  if (part->device != NULL) part->device->table->queues->record(part->device, part->queue, part->done);
}

/* ---------------------------------------------------------------- reductions */

/* Adds bytes [begin, end) of the buffers of all ranks in the order of ranks, a cache-sized piece at a time,
 * and copies the result to the buffers of the ranks from first_rank to last_rank. Host memory. */
static void reduce_on_host(int size, LocalOperation *operation, size_t begin, size_t end, int first_rank,
                           int last_rank) {
  enum { PIECE_BYTES = 16384 };
  const LocalSignature *signature = &operation->signature;
  union {
    float f32[PIECE_BYTES / sizeof(float)];
    double f64[PIECE_BYTES / sizeof(double)];
    int64_t i64[PIECE_BYTES / sizeof(int64_t)];
  } sum;
  if (size == 1) return; /* the sum of one is there */
  for (size_t at = begin; at < end; at += PIECE_BYTES) {
    const size_t bytes = end - at < PIECE_BYTES ? end - at : PIECE_BYTES;
    memcpy(&sum, (const char *)operation->parts[0].receive + at, bytes);
    for (int rank = 1; rank < size; rank++) {
      comm_combine(signature->type, signature->reduction, &sum,
                   (const char *)operation->parts[rank].receive + at, bytes / signature->width);
    }
    for (int rank = first_rank; rank <= last_rank; rank++) {
      memcpy((char *)operation->parts[rank].receive + at, &sum, bytes);
    }
  }
}

/* The same sum of bytes [begin, end), of floats, to the buffer of one rank, in its queue. */
static void sum_on_device(int size, LocalOperation *operation, size_t begin, size_t end, int rank) {
  const LocalPart *part = &operation->parts[rank];
  const size_t first = begin / sizeof(float);
  const float *sources[DEVICE_SOURCES];
  float *to = part->receive;
  for (int i = 0; i < size; i++) {
    const float *buffer = operation->parts[i].receive;
    sources[i] = buffer + first;
  }
  after_arrivals(part, size, operation);
  if (size > 1) {
    part->device->table->queues->sum(part->device, part->queue, size, sources,
                                     (int64_t)((end - begin) / sizeof(float)), to + first);
  }
  finish(part);
}

/* The bytes of a rank's part. */
static void part_bytes(const LocalSignature *signature, int rank, int size, size_t *begin, size_t *end) {
  int64_t first = 0;
  int64_t last = 0;
  comm_part((int64_t)signature->bytes, rank, size, &first, &last);
  *begin = (size_t)first * signature->width;
  *end = (size_t)last * signature->width;
}

static void reduce_scatter(int size, LocalOperation *operation) {
  for (int rank = 0; rank < size; rank++) {
    size_t begin = 0;
    size_t end = 0;
    part_bytes(&operation->signature, rank, size, &begin, &end);
    if (operation->parts[rank].device != NULL) {
      sum_on_device(size, operation, begin, end, rank);
    } else {
      reduce_on_host(size, operation, begin, end, rank, rank);
    }
  }
}

/* ---------------------------------------------------------------- copies */

static void gather_parts(int size, LocalOperation *operation) {
  for (int to = 0; to < size; to++) {
    const LocalPart *part = &operation->parts[to];
    after_arrivals(part, size, operation);
    for (int from = 0; from < size; from++) {
      size_t begin = 0;
      size_t end = 0;
      if (to == from) continue;
      part_bytes(&operation->signature, from, size, &begin, &end);
      copy(part, (char *)part->receive + begin, (const char *)operation->parts[from].receive + begin,
           end - begin);
    }
    finish(part);
  }
}

static void gather(int size, LocalOperation *operation) {
  const size_t bytes = operation->signature.bytes;
  for (int to = 0; to < size; to++) {
    for (int from = 0; from < size; from++) {
      memcpy((char *)operation->parts[to].receive + (size_t)from * bytes, operation->parts[from].send, bytes);
    }
  }
}

static void broadcast(int size, LocalOperation *operation) {
  const int root = operation->signature.argument;
  for (int rank = 0; rank < size; rank++) {
    if (rank == root) continue;
    memcpy(operation->parts[rank].receive, operation->parts[root].send, operation->signature.bytes);
  }
}

/* Makes one group per color; a place whose group stays NULL found no memory. Runs under the lock. */
static void split(LocalHub *hub, int size, LocalOperation *operation) {
  for (int rank = 0; rank < size; rank++) {
    LocalPlace *place = operation->parts[rank].receive;
    int members = 0;
    for (int other = 0; other < size; other++) {
      const LocalPlace *peer = operation->parts[other].receive;
      if (peer->color != place->color) continue;
      if (other < rank && peer->group != NULL) place->group = peer->group;
      if (other < rank) place->rank += 1;
      members += 1;
    }
    if (place->rank == 0) place->group = local_group_create(hub, members);
  }
}

/* ---------------------------------------------------------------- an operation */

/* Moves the data of an operation for all ranks. */
static void move_data(int size, LocalOperation *operation) {
  const LocalSignature *signature = &operation->signature;
  switch (signature->kind) {
  case LOCAL_REDUCE:
    reduce_on_host(size, operation, 0, signature->bytes * signature->width, 0, size - 1);
    break;
  case LOCAL_REDUCE_SCATTER:
    reduce_scatter(size, operation);
    break;
  case LOCAL_GATHER:
    gather(size, operation);
    break;
  case LOCAL_GATHER_PARTS:
    gather_parts(size, operation);
    break;
  case LOCAL_BROADCAST:
    broadcast(size, operation);
    break;
  case LOCAL_NONE:
  case LOCAL_SHIFT:
  case LOCAL_BARRIER:
  case LOCAL_SPLIT:
    break;
  }
}

void local_execute(LocalHub *hub, int size, LocalOperation *operation) {
  if (operation->signature.kind == LOCAL_SPLIT) {
    split(hub, size, operation);
  } else if (operation->signature.kind != LOCAL_BARRIER) {
    hub->copies += 1;
    pthread_mutex_unlock(&hub->mutex);
    move_data(size, operation);
    pthread_mutex_lock(&hub->mutex);
    hub->copies -= 1;
  }
  for (int rank = 0; rank < size; rank++) {
    operation->parts[rank].sent = true;
    operation->parts[rank].received = true;
  }
}

void local_execute_shift(LocalHub *hub, LocalOperation *operation, LocalPart *from, LocalPart *to) {
  hub->copies += 1;
  pthread_mutex_unlock(&hub->mutex);
  after_arrival(to, from);
  after_arrival(to, to);
  copy(to, to->receive, from->send, operation->signature.bytes);
  finish(to);
  pthread_mutex_lock(&hub->mutex);
  hub->copies -= 1;
  from->sent = true;
  to->received = true;
}
