/* The local transport: ranks are threads of one process.
 *
 * Every operation of a group has a number: the n-th call of each rank belongs together. A rank that arrives
 * leaves its buffers in the operation. A shift is copied by whichever of its two ranks arrives second, any
 * other operation is carried out by the rank that arrives last, so nothing runs in the background and nobody
 * waits before comm_wait. Copies run outside the lock; an abort waits for them, so that afterwards no thread
 * touches the buffers of another. */
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/clock.h"
#include "kernels/comm/combine.h"
#include "kernels/comm/comm.h"

typedef enum LocalKind {
  LOCAL_NONE,
  LOCAL_SHIFT,
  LOCAL_REDUCE, /* all-reduce */
  LOCAL_REDUCE_SCATTER,
  LOCAL_GATHER, /* all-gather of rows */
  LOCAL_GATHER_PARTS,
  LOCAL_BROADCAST,
  LOCAL_BARRIER,
  LOCAL_SPLIT
} LocalKind;

/* What all groups of one program share. */
typedef struct LocalHub {
  pthread_mutex_t mutex;
  pthread_cond_t changed; /* something finished, or the program aborted */
  int groups;             /* groups alive */
  int copies;             /* copies under way outside the lock */
  Error cause;            /* why the program aborted; status 0 as long as it has not */
} LocalHub;

/* What every rank must agree on in one operation. */
typedef struct LocalSignature {
  LocalKind kind;
  CommType type;
  CommReduction reduction;
  int argument; /* distance of a shift, root of a broadcast */
  size_t bytes; /* bytes, or elements of what is cut in parts */
  size_t width; /* bytes of an element of what is cut in parts */
} LocalSignature;

/* One rank's part in an operation. */
typedef struct LocalPart {
  const void *send;
  void *receive;
  double posted_at; /* clock_seconds, once posted */
  bool posted;
  bool sent;     /* its data has been taken */
  bool received; /* its result is there */
} LocalPart;

typedef struct LocalOperation {
  struct LocalOperation *next;
  uint64_t id;
  LocalSignature signature;
  int arrived;
  int left; /* ranks whose wait is over: the last one frees the operation */
  LocalPart parts[];
} LocalOperation;

typedef struct LocalGroup {
  LocalHub *hub;
  LocalOperation *operations; /* under way */
  int size;
  int members; /* handles alive */
} LocalGroup;

/* The state of one rank's handle. */
typedef struct LocalMember {
  LocalGroup *group;
  uint64_t next_id;
} LocalMember;

/* A rank's place in a group made by a split: sent as a color, received as group and rank. */
typedef struct LocalPlace {
  int color;
  LocalGroup *group;
  int rank;
} LocalPlace;

static LocalGroup *group_of(const Comm *comm) {
  return ((const LocalMember *)comm->state)->group;
}

/* ---------------------------------------------------------------- groups and handles */

static LocalGroup *group_create(LocalHub *hub, int size) {
  LocalGroup *group = calloc(1, sizeof *group);
  if (group == NULL) return NULL;
  *group = (LocalGroup){.hub = hub, .size = size, .members = size};
  hub->groups += 1;
  return group;
}

/* With the lock held: true when the hub has to go as well. */
static bool group_release(LocalGroup *group) {
  group->members -= 1;
  if (group->members > 0) return false;
  LocalHub *hub = group->hub;
  while (group->operations != NULL) {
    LocalOperation *operation = group->operations;
    group->operations = operation->next;
    free(operation);
  }
  free(group);
  hub->groups -= 1;
  return hub->groups == 0;
}

static void hub_destroy(LocalHub *hub) {
  pthread_cond_destroy(&hub->changed);
  pthread_mutex_destroy(&hub->mutex);
  free(hub);
}

static const CommTable local_table;

static Comm *handle_create(LocalGroup *group, int rank) {
  Comm *comm = calloc(1, sizeof *comm);
  LocalMember *member = calloc(1, sizeof *member);
  if (comm == NULL || member == NULL) {
    free(comm);
    free(member);
    return NULL;
  }
  *member = (LocalMember){.group = group, .next_id = 1};
  *comm = (Comm){.table = &local_table, .rank = rank, .size = group->size, .state = member};
  return comm;
}

static void local_destroy(Comm *comm) {
  LocalGroup *group = group_of(comm);
  LocalHub *hub = group->hub;
  pthread_mutex_lock(&hub->mutex);
  const bool last = group_release(group);
  pthread_mutex_unlock(&hub->mutex);
  if (last) hub_destroy(hub);
  free(comm->state);
  free(comm);
}

Status comm_local_create(int size, Comm *comms[], Error *error) {
  if (size < 1) return fail(error, STATUS_INTERNAL, "a group of %d ranks", size);
  for (int rank = 0; rank < size; rank++) comms[rank] = NULL;
  LocalHub *hub = calloc(1, sizeof *hub);
  if (hub == NULL) return fail(error, STATUS_SYSTEM, "no memory for a group of %d ranks", size);
  pthread_mutex_init(&hub->mutex, NULL);
  pthread_cond_init(&hub->changed, NULL);
  LocalGroup *group = group_create(hub, size);
  int made = 0;
  while (group != NULL && made < size) {
    comms[made] = handle_create(group, made);
    if (comms[made] == NULL) break;
    made++;
  }
  if (made == size) return STATUS_OK;
  for (int rank = 0; rank < made; rank++) {
    free(comms[rank]->state);
    free(comms[rank]);
    comms[rank] = NULL;
  }
  free(group);
  hub_destroy(hub);
  return fail(error, STATUS_SYSTEM, "no memory for a group of %d ranks", size);
}

/* ---------------------------------------------------------------- carrying out an operation */

/* Adds bytes [begin, end) of the buffers of all ranks in the order of ranks, a cache-sized piece at a time,
 * and copies the result to the buffers of the ranks from first_rank to last_rank. */
static void execute_reduce(int size, LocalOperation *operation, size_t begin, size_t end, int first_rank,
                           int last_rank) {
  enum { PIECE_BYTES = 16384 };
  const LocalSignature *signature = &operation->signature;
  union {
    float f32[PIECE_BYTES / sizeof(float)];
    double f64[PIECE_BYTES / sizeof(double)];
    int64_t i64[PIECE_BYTES / sizeof(int64_t)];
  } sum;
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

/* The bytes of a rank's part. */
static void part_bytes(const LocalSignature *signature, int rank, int size, size_t *begin, size_t *end) {
  int64_t first = 0;
  int64_t last = 0;
  comm_part((int64_t)signature->bytes, rank, size, &first, &last);
  *begin = (size_t)first * signature->width;
  *end = (size_t)last * signature->width;
}

static void execute_reduce_scatter(int size, LocalOperation *operation) {
  for (int rank = 0; rank < size; rank++) {
    size_t begin = 0;
    size_t end = 0;
    part_bytes(&operation->signature, rank, size, &begin, &end);
    execute_reduce(size, operation, begin, end, rank, rank);
  }
}

static void execute_gather_parts(int size, LocalOperation *operation) {
  for (int from = 0; from < size; from++) {
    size_t begin = 0;
    size_t end = 0;
    part_bytes(&operation->signature, from, size, &begin, &end);
    for (int to = 0; to < size; to++) {
      if (to == from) continue;
      memcpy((char *)operation->parts[to].receive + begin,
             (const char *)operation->parts[from].receive + begin, end - begin);
    }
  }
}

static void execute_gather(int size, LocalOperation *operation) {
  const size_t bytes = operation->signature.bytes;
  for (int to = 0; to < size; to++) {
    for (int from = 0; from < size; from++) {
      memcpy((char *)operation->parts[to].receive + (size_t)from * bytes, operation->parts[from].send, bytes);
    }
  }
}

static void execute_broadcast(int size, LocalOperation *operation) {
  const int root = operation->signature.argument;
  for (int rank = 0; rank < size; rank++) {
    if (rank == root) continue;
    memcpy(operation->parts[rank].receive, operation->parts[root].send, operation->signature.bytes);
  }
}

/* Makes one group per color; a place whose group stays NULL found no memory. Runs under the lock. */
static void execute_split(LocalHub *hub, int size, LocalOperation *operation) {
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
    if (place->rank == 0) place->group = group_create(hub, members);
  }
}

/* Moves the data of an operation for all ranks. */
static void execute_data(int size, LocalOperation *operation) {
  const LocalSignature *signature = &operation->signature;
  switch (signature->kind) {
  case LOCAL_REDUCE:
    execute_reduce(size, operation, 0, signature->bytes * signature->width, 0, size - 1);
    break;
  case LOCAL_REDUCE_SCATTER:
    execute_reduce_scatter(size, operation);
    break;
  case LOCAL_GATHER:
    execute_gather(size, operation);
    break;
  case LOCAL_GATHER_PARTS:
    execute_gather_parts(size, operation);
    break;
  case LOCAL_BROADCAST:
    execute_broadcast(size, operation);
    break;
  case LOCAL_NONE:
  case LOCAL_SHIFT:
  case LOCAL_BARRIER:
  case LOCAL_SPLIT:
    break;
  }
}

/* Called with the lock held, which it gives up for copies of data. */
static void execute(LocalHub *hub, int size, LocalOperation *operation) {
  if (operation->signature.kind == LOCAL_SPLIT) {
    execute_split(hub, size, operation);
  } else if (operation->signature.kind != LOCAL_BARRIER) {
    hub->copies += 1;
    pthread_mutex_unlock(&hub->mutex);
    execute_data(size, operation);
    pthread_mutex_lock(&hub->mutex);
    hub->copies -= 1;
  }
  for (int rank = 0; rank < size; rank++) {
    operation->parts[rank].sent = true;
    operation->parts[rank].received = true;
  }
}

/* Copies what one rank of a shift sends to the rank that receives it. Lock as in execute. */
static void execute_shift(LocalHub *hub, LocalOperation *operation, LocalPart *from, LocalPart *to) {
  hub->copies += 1;
  pthread_mutex_unlock(&hub->mutex);
  memcpy(to->receive, from->send, operation->signature.bytes);
  pthread_mutex_lock(&hub->mutex);
  hub->copies -= 1;
  from->sent = true;
  to->received = true;
}

/* ---------------------------------------------------------------- joining and waiting */

/* With the lock held: reports why the program aborted, once no thread copies any more. */
static Status aborted(LocalHub *hub, Error *error) {
  while (hub->copies > 0) pthread_cond_wait(&hub->changed, &hub->mutex);
  return fail(error, hub->cause.status, "%s", hub->cause.text);
}

static LocalOperation *operation_find(LocalGroup *group, uint64_t id) {
  LocalOperation *operation = group->operations;
  while (operation != NULL && operation->id != id) operation = operation->next;
  return operation;
}

/* The operation with this number: found, or made by the first rank that arrives. */
static Status operation_join(LocalGroup *group, uint64_t id, const LocalSignature *signature,
                             LocalOperation **out, Error *error) {
  LocalOperation *operation = operation_find(group, id);
  if (operation == NULL) {
    operation = calloc(1, sizeof *operation + (size_t)group->size * sizeof operation->parts[0]);
    if (operation == NULL) return fail(error, STATUS_SYSTEM, "no memory for a collective operation");
    operation->id = id;
    operation->signature = *signature;
    operation->next = group->operations;
    group->operations = operation;
  }
  const LocalSignature *first = &operation->signature;
  if (first->kind != signature->kind || first->type != signature->type ||
      first->reduction != signature->reduction || first->argument != signature->argument ||
      first->bytes != signature->bytes || first->width != signature->width) {
    return fail(error, STATUS_INTERNAL, "ranks disagree about collective operation %llu of their group",
                (unsigned long long)id);
  }
  *out = operation;
  return STATUS_OK;
}

static void shift_arrive(LocalGroup *group, LocalOperation *operation, int rank) {
  const int size = group->size;
  const int distance = operation->signature.argument;
  LocalPart *own = &operation->parts[rank];
  LocalPart *from = &operation->parts[(rank - distance + size) % size];
  LocalPart *to = &operation->parts[(rank + distance) % size];
  /* Both neighbours are looked at before the lock is given up: whoever posts later sees this rank. */
  const bool take = from->posted;
  const bool give = to->posted;
  if (take) execute_shift(group->hub, operation, from, own);
  if (give) execute_shift(group->hub, operation, own, to);
}

static Status local_post(Comm *comm, LocalSignature signature, const void *send, void *receive,
                         CommRequest *request, Error *error) {
  LocalMember *member = comm->state;
  LocalGroup *group = member->group;
  LocalHub *hub = group->hub;
  LocalOperation *operation = NULL;
  Status status = STATUS_OK;
  pthread_mutex_lock(&hub->mutex);
  if (hub->cause.status != STATUS_OK) {
    status = aborted(hub, error);
    goto done;
  }
  TRY_GOTO(operation_join(group, member->next_id, &signature, &operation, error), done);
  LocalPart *own = &operation->parts[comm->rank];
  own->send = send;
  own->receive = receive;
  own->posted_at = clock_seconds();
  own->posted = true;
  operation->arrived += 1;
  *request = (CommRequest){.id = member->next_id, .kind = (int)signature.kind};
  member->next_id += 1;
  /* Nothing runs in the background: what this rank copies here costs it this time. */
  const double begin = clock_seconds();
  if (signature.kind == LOCAL_SHIFT) {
    shift_arrive(group, operation, comm->rank);
  } else if (operation->arrived == group->size) {
    execute(hub, group->size, operation);
  }
  comm->waits.exposed += clock_seconds() - begin;
  pthread_cond_broadcast(&hub->changed);
done:
  pthread_mutex_unlock(&hub->mutex);
  return status;
}

static void operation_leave(LocalGroup *group, LocalOperation *operation) {
  operation->left += 1;
  if (operation->left < group->size) return;
  LocalOperation **link = &group->operations;
  while (*link != operation) link = &(*link)->next;
  *link = operation->next;
  free(operation);
}

/* When the last rank that the own part depends on began the operation, which all of them have. */
static double ready_at(const LocalGroup *group, const LocalOperation *operation, int rank) {
  double latest = 0.0;
  if (operation->signature.kind == LOCAL_SHIFT) {
    const int size = group->size;
    const int distance = operation->signature.argument;
    const double from = operation->parts[(rank - distance + size) % size].posted_at;
    const double to = operation->parts[(rank + distance) % size].posted_at;
    return from > to ? from : to;
  }
  for (int i = 0; i < group->size; i++) {
    if (operation->parts[i].posted_at > latest) latest = operation->parts[i].posted_at;
  }
  return latest;
}

/* Counts a wait that began at `begin` and is over. */
static void count_wait(Comm *comm, const LocalOperation *operation, double begin) {
  const double end = clock_seconds();
  const double ready = ready_at(group_of(comm), operation, comm->rank);
  const double skew = ready <= begin ? 0.0 : (ready < end ? ready : end) - begin;
  comm->waits.skew += skew;
  comm->waits.exposed += end - begin - skew;
}

static Status local_wait(Comm *comm, CommRequest *request, Error *error) {
  LocalGroup *group = group_of(comm);
  LocalHub *hub = group->hub;
  Status status = STATUS_OK;
  const double begin = clock_seconds();
  pthread_mutex_lock(&hub->mutex);
  LocalOperation *operation = operation_find(group, request->id);
  const LocalPart *own = &operation->parts[comm->rank];
  while (hub->cause.status == STATUS_OK && !(own->sent && own->received)) {
    pthread_cond_wait(&hub->changed, &hub->mutex);
  }
  /* What is complete counts, also when a rank has failed since: all ranks then agree on how far they came. */
  if (own->sent && own->received) {
    count_wait(comm, operation, begin);
    operation_leave(group, operation);
    *request = (CommRequest){0};
  } else {
    status = aborted(hub, error);
  }
  pthread_mutex_unlock(&hub->mutex);
  return status;
}

static void local_abort(Comm *comm, const Error *cause) {
  LocalHub *hub = group_of(comm)->hub;
  pthread_mutex_lock(&hub->mutex);
  if (hub->cause.status == STATUS_OK) {
    (void)fail(&hub->cause, cause->status, "rank %d: %s", comm->rank, cause->text);
  }
  pthread_cond_broadcast(&hub->changed);
  while (hub->copies > 0) pthread_cond_wait(&hub->changed, &hub->mutex);
  pthread_mutex_unlock(&hub->mutex);
}

/* ---------------------------------------------------------------- the table */

static Status local_shift_start(Comm *comm, CommLabel label, int distance, const void *send, void *receive,
                                size_t bytes, CommRequest *request, Error *error) {
  (void)label;
  const LocalSignature signature = {.kind = LOCAL_SHIFT, .argument = distance, .bytes = bytes};
  return local_post(comm, signature, send, receive, request, error);
}

static Status post_reduction(Comm *comm, LocalKind kind, CommType type, CommReduction reduction, void *buffer,
                             int64_t elements, CommRequest *request, Error *error) {
  const LocalSignature signature = {.kind = kind,
                                    .type = type,
                                    .reduction = reduction,
                                    .bytes = (size_t)elements,
                                    .width = comm_width(type)};
  return local_post(comm, signature, buffer, buffer, request, error);
}

static Status local_all_reduce_start(Comm *comm, CommLabel label, CommType type, CommReduction reduction,
                                     void *buffer, int64_t elements, CommRequest *request, Error *error) {
  (void)label;
  return post_reduction(comm, LOCAL_REDUCE, type, reduction, buffer, elements, request, error);
}

static Status local_reduce_scatter_start(Comm *comm, CommLabel label, CommType type, CommReduction reduction,
                                         void *buffer, int64_t elements, CommRequest *request, Error *error) {
  (void)label;
  return post_reduction(comm, LOCAL_REDUCE_SCATTER, type, reduction, buffer, elements, request, error);
}

static Status local_gather_parts_start(Comm *comm, CommLabel label, void *buffer, int64_t elements,
                                       size_t width, CommRequest *request, Error *error) {
  (void)label;
  const LocalSignature signature = {.kind = LOCAL_GATHER_PARTS, .bytes = (size_t)elements, .width = width};
  return local_post(comm, signature, buffer, buffer, request, error);
}

static Status local_all_gather_start(Comm *comm, const void *send, void *receive, size_t bytes,
                                     CommRequest *request, Error *error) {
  const LocalSignature signature = {.kind = LOCAL_GATHER, .bytes = bytes};
  return local_post(comm, signature, send, receive, request, error);
}

static Status local_broadcast_start(Comm *comm, int root, void *buffer, size_t bytes, CommRequest *request,
                                    Error *error) {
  const LocalSignature signature = {.kind = LOCAL_BROADCAST, .argument = root, .bytes = bytes};
  return local_post(comm, signature, buffer, buffer, request, error);
}

static Status local_barrier_start(Comm *comm, CommRequest *request, Error *error) {
  return local_post(comm, (LocalSignature){.kind = LOCAL_BARRIER}, NULL, NULL, request, error);
}

static Status local_split(Comm *comm, int color, Comm **out, Error *error) {
  *out = NULL;
  LocalPlace place = {.color = color};
  CommRequest request = {0};
  TRY(local_post(comm, (LocalSignature){.kind = LOCAL_SPLIT}, &place, &place, &request, error));
  TRY(local_wait(comm, &request, error));
  if (place.group != NULL) *out = handle_create(place.group, place.rank);
  if (*out != NULL) return STATUS_OK;
  LocalHub *hub = group_of(comm)->hub;
  pthread_mutex_lock(&hub->mutex);
  /* The group of `comm` keeps the hub alive. */
  if (place.group != NULL) (void)group_release(place.group);
  pthread_mutex_unlock(&hub->mutex);
  return fail(error, STATUS_SYSTEM, "no memory for a group of ranks");
}

static const CommTable local_table = {
    .name = "local",
    .shift_start = local_shift_start,
    .all_reduce_start = local_all_reduce_start,
    .reduce_scatter_start = local_reduce_scatter_start,
    .gather_parts_start = local_gather_parts_start,
    .all_gather_start = local_all_gather_start,
    .broadcast_start = local_broadcast_start,
    .barrier_start = local_barrier_start,
    .wait = local_wait,
    .split = local_split,
    .abort = local_abort,
    .destroy = local_destroy,
};
