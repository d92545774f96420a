/* The local transport: ranks are threads of one process.
 *
 * Every operation of a group has a number: the n-th call of each rank belongs together. A rank that arrives
 * leaves its buffers in the operation. A shift is copied by whichever of its two ranks arrives second, any
 * other operation is carried out by the rank that arrives last, so nothing runs in the background and nobody
 * waits before comm_wait. Copies run outside the lock; an abort waits for them, so that afterwards no thread
 * touches the buffers of another.
 *
 * Memory of a device that works on its own (comm_use_device) is moved by that device: a rank marks its
 * compute queue when it arrives, whoever carries the operation out puts the copies behind these marks into
 * the queue of the rank that receives, and comm_wait lets the rank's compute queue go on behind them. No
 * thread waits for a device there. */
#include <stdlib.h>

#include "kernels/base/clock.h"
#include "kernels/comm/combine.h"
#include "kernels/comm/local_state.h"

static LocalGroup *group_of(const Comm *comm) {
  return ((const LocalMember *)comm->state)->group;
}

/* ---------------------------------------------------------------- groups and handles */

static void operation_free(const LocalGroup *group, LocalOperation *operation) {
  for (int rank = 0; rank < group->size; rank++) {
    const LocalPart *part = &operation->parts[rank];
    if (part->queues == NULL) continue;
    part->queues->event_destroy(part->ready);
    part->queues->event_destroy(part->done);
  }
  free(operation);
}

/* With the lock held: true when the hub has to go as well. */
static bool group_release(LocalGroup *group) {
  group->members -= 1;
  if (group->members > 0) return false;
  LocalHub *hub = group->hub;
  while (group->operations != NULL) {
    LocalOperation *operation = group->operations;
    group->operations = operation->next;
    operation_free(group, operation);
  }
  LocalGroup **link = &hub->first;
  while (*link != group) link = &(*link)->next;
  *link = group->next;
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
  LocalGroup *group = local_group_create(hub, size);
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

/* ---------------------------------------------------------------- joining and waiting */

/* With the lock held: returns when no thread and no device copies any more. */
static void wait_for_copies(LocalHub *hub) {
  while (hub->copies > 0) pthread_cond_wait(&hub->changed, &hub->mutex);
  for (const LocalGroup *group = hub->first; group != NULL; group = group->next) {
    for (const LocalOperation *operation = group->operations; operation != NULL;
         operation = operation->next) {
      for (int rank = 0; rank < group->size; rank++) {
        const LocalPart *part = &operation->parts[rank];
        if (part->done != NULL) part->queues->event_finish(part->done);
      }
    }
  }
}

/* With the lock held: reports why the program aborted, once nothing is copied any more. */
static Status aborted(LocalHub *hub, Error *error) {
  wait_for_copies(hub);
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
  if (take) local_execute_shift(group->hub, operation, from, own);
  if (give) local_execute_shift(group->hub, operation, own, to);
}

/* The device whose memory an operation moves; NULL: the host's. */
static Device *device_of(const Comm *comm, CommLabel label) {
  return label == COMM_CONTROL ? NULL : comm->device;
}

/* Marks where the rank's computation stands. */
static Status part_mark(LocalPart *part, Device *device, CommLabel label, Error *error) {
  if (device == NULL) return STATUS_OK;
  const DeviceQueues *queues = device->table->queues;
  const bool ring = label == COMM_KEYS_VALUES || label == COMM_KEY_VALUE_GRADIENTS;
  part->device = device;
  part->queues = queues;
  part->queue = ring ? QUEUE_RING : QUEUE_REDUCTION;
  TRY(queues->event_create(device, &part->ready, error));
  TRY(queues->event_create(device, &part->done, error));
  queues->record(device, QUEUE_COMPUTE, part->ready);
  return STATUS_OK;
}

static Status local_post(Comm *comm, CommLabel label, LocalSignature signature, const void *send,
                         void *receive, CommRequest *request, Error *error) {
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
  TRY_GOTO(part_mark(own, device_of(comm, label), label, error), done);
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
    local_execute(hub, group->size, operation);
  }
  if (own->device == NULL) comm->waits.exposed += clock_seconds() - begin;
  pthread_cond_broadcast(&hub->changed);
done:
  pthread_mutex_unlock(&hub->mutex);
  return status;
}

/* Lets what the rank computes from now on begin when its result is there and its buffers have been read. */
static void follow(const LocalGroup *group, const LocalOperation *operation, int rank) {
  const LocalPart *own = &operation->parts[rank];
  if (own->device == NULL) return;
  const DeviceQueues *queues = own->device->table->queues;
  const bool shift = operation->signature.kind == LOCAL_SHIFT;
  const int to = (rank + operation->signature.argument) % group->size;
  for (int i = 0; i < group->size; i++) {
    if (shift && i != rank && i != to) continue;
    queues->wait(own->device, QUEUE_COMPUTE, operation->parts[i].done);
  }
}

static void operation_leave(LocalGroup *group, LocalOperation *operation) {
  operation->left += 1;
  if (operation->left < group->size) return;
  LocalOperation **link = &group->operations;
  while (*link != operation) link = &(*link)->next;
  *link = operation->next;
  operation_free(group, operation);
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
    /* What a device waits for, it measures itself: the host is ahead of it. */
    if (own->device == NULL) count_wait(comm, operation, begin);
    follow(group, operation, comm->rank);
    operation_leave(group, operation);
    *request = (CommRequest){0};
  } else {
    status = aborted(hub, error);
  }
  pthread_mutex_unlock(&hub->mutex);
  return status;
}

static bool local_ended(Comm *comm) {
  LocalHub *hub = group_of(comm)->hub;
  pthread_mutex_lock(&hub->mutex);
  const bool ended = hub->cause.status != STATUS_OK;
  pthread_mutex_unlock(&hub->mutex);
  return ended;
}

static void local_abort(Comm *comm, const Error *cause) {
  LocalHub *hub = group_of(comm)->hub;
  pthread_mutex_lock(&hub->mutex);
  if (hub->cause.status == STATUS_OK) {
    (void)fail(&hub->cause, cause->status, "rank %d: %s", comm->rank, cause->text);
  }
  pthread_cond_broadcast(&hub->changed);
  wait_for_copies(hub);
  pthread_mutex_unlock(&hub->mutex);
}

/* ---------------------------------------------------------------- the table */

static Status local_shift_start(Comm *comm, CommLabel label, int distance, const void *send, void *receive,
                                size_t bytes, CommRequest *request, Error *error) {
  const LocalSignature signature = {.kind = LOCAL_SHIFT, .argument = distance, .bytes = bytes};
  return local_post(comm, label, signature, send, receive, request, error);
}

static Status post_reduction(Comm *comm, CommLabel label, LocalKind kind, CommType type,
                             CommReduction reduction, void *buffer, int64_t elements, CommRequest *request,
                             Error *error) {
  const LocalSignature signature = {.kind = kind,
                                    .type = type,
                                    .reduction = reduction,
                                    .bytes = (size_t)elements,
                                    .width = comm_width(type)};
  return local_post(comm, label, signature, buffer, buffer, request, error);
}

/* The sums that devices are asked for are those of gradients. */
static Status check_device_sum(const Comm *comm, CommLabel label, CommType type, CommReduction reduction,
                               Error *error) {
  if (device_of(comm, label) == NULL) return STATUS_OK;
  if (type != COMM_F32 || reduction != COMM_SUM) {
    return fail(error, STATUS_INTERNAL, "devices add floats, nothing else");
  }
  if (comm->size > DEVICE_SOURCES) {
    return fail(error, STATUS_CONFIG, "%d ranks on the devices of one process: at most %d can be", comm->size,
                DEVICE_SOURCES);
  }
  return STATUS_OK;
}

static Status local_all_reduce_start(Comm *comm, CommLabel label, CommType type, CommReduction reduction,
                                     void *buffer, int64_t elements, CommRequest *request, Error *error) {
  if (device_of(comm, label) != NULL) return fail(error, STATUS_INTERNAL, "all-reduce of device memory");
  return post_reduction(comm, label, LOCAL_REDUCE, type, reduction, buffer, elements, request, error);
}

static Status local_reduce_scatter_start(Comm *comm, CommLabel label, CommType type, CommReduction reduction,
                                         void *buffer, int64_t elements, CommRequest *request, Error *error) {
  TRY(check_device_sum(comm, label, type, reduction, error));
  return post_reduction(comm, label, LOCAL_REDUCE_SCATTER, type, reduction, buffer, elements, request, error);
}

static Status local_gather_parts_start(Comm *comm, CommLabel label, void *buffer, int64_t elements,
                                       size_t width, CommRequest *request, Error *error) {
  const LocalSignature signature = {.kind = LOCAL_GATHER_PARTS, .bytes = (size_t)elements, .width = width};
  return local_post(comm, label, signature, buffer, buffer, request, error);
}

static Status local_all_gather_start(Comm *comm, const void *send, void *receive, size_t bytes,
                                     CommRequest *request, Error *error) {
  const LocalSignature signature = {.kind = LOCAL_GATHER, .bytes = bytes};
  return local_post(comm, COMM_CONTROL, signature, send, receive, request, error);
}

static Status local_broadcast_start(Comm *comm, int root, void *buffer, size_t bytes, CommRequest *request,
                                    Error *error) {
  const LocalSignature signature = {.kind = LOCAL_BROADCAST, .argument = root, .bytes = bytes};
  return local_post(comm, COMM_CONTROL, signature, buffer, buffer, request, error);
}

static Status local_barrier_start(Comm *comm, CommRequest *request, Error *error) {
  return local_post(comm, COMM_CONTROL, (LocalSignature){.kind = LOCAL_BARRIER}, NULL, NULL, request, error);
}

static Status local_split(Comm *comm, int color, Comm **out, Error *error) {
  *out = NULL;
  LocalPlace place = {.color = color};
  CommRequest request = {0};
  TRY(local_post(comm, COMM_CONTROL, (LocalSignature){.kind = LOCAL_SPLIT}, &place, &place, &request, error));
  TRY(local_wait(comm, &request, error));
  if (place.group != NULL) *out = handle_create(place.group, place.rank);
  if (*out != NULL) {
    if (comm->mover == NULL) (*out)->device = comm->device;
    return STATUS_OK;
  }
  LocalHub *hub = group_of(comm)->hub;
  pthread_mutex_lock(&hub->mutex);
  /* The group of `comm` keeps the hub alive. */
  if (place.group != NULL) (void)group_release(place.group);
  pthread_mutex_unlock(&hub->mutex);
  return fail(error, STATUS_SYSTEM, "no memory for a group of ranks");
}

static const CommTable local_table = {
    .name = "local",
    .moves_device_memory = true,
    .shift_start = local_shift_start,
    .all_reduce_start = local_all_reduce_start,
    .reduce_scatter_start = local_reduce_scatter_start,
    .gather_parts_start = local_gather_parts_start,
    .all_gather_start = local_all_gather_start,
    .broadcast_start = local_broadcast_start,
    .barrier_start = local_barrier_start,
    .wait = local_wait,
    .ended = local_ended,
    .split = local_split,
    .abort = local_abort,
    .destroy = local_destroy,
};
