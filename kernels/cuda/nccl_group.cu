/* The mover over NCCL, its communicators: joining them, putting messages into queues, failures and the end.
 *
 * Communicators do not block: a call that has more to do says ncclInProgress and goes on in a thread of NCCL,
 * and until ncclCommGetAsyncError says otherwise nothing else may be asked of the communicator, nor anything
 * be put behind it in its queue. So a rank never sits in NCCL where it could not be told of a failure. */
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/nccl_internal.h"

static_assert(sizeof(ncclUniqueId) == NCCL_ID_BYTES, "the size of NCCL's ids");

/* Blocks that NCCL may occupy beside attention. Its streams have the higher priority, so that they get in
 * before attention's next blocks; but each is a multiprocessor, or most of one, that attention lacks as long
 * as it waits for the neighbour: a few are enough for the fastest link of a ring, and both communicators
 * together find room at the same time, without which ranks could wait for each other crosswise. */
#define RING_BLOCKS 8
#define REDUCTION_BLOCKS 16

/* What ranks exchange to be connected, in bytes. */
#define CONNECT_BYTES 256

/* How long the others of a group are waited for at its end, in seconds: ranks that have failed do not come.
 */
#define FAREWELL_SECONDS 5.0

static const DeviceQueue moving_queues[] = {QUEUE_RING, QUEUE_REDUCTION};

int nccl_enter(const NcclMover *nccl) {
  int previous = nccl->cuda->index;
  (void)cudaGetDevice(&previous);
  if (previous != nccl->cuda->index) (void)cudaSetDevice(nccl->cuda->index);
  return previous;
}

void nccl_leave(const NcclMover *nccl, int previous) {
  if (previous != nccl->cuda->index) (void)cudaSetDevice(previous);
}

/* ---------------------------------------------------------------- failures */

/* Whose fault it is: another rank's or the way's to it, the machine's, the configuration's (two ranks on a
 * GPU) or the program's. */
static Status status_of(ncclResult_t code) {
  switch (code) {
  case ncclRemoteError:
    return STATUS_IO;
  case ncclUnhandledCudaError:
  case ncclSystemError:
    return STATUS_SYSTEM;
  case ncclInvalidUsage:
    return STATUS_CONFIG;
  default:
    return STATUS_INTERNAL;
  }
}

/* NCCL's words on its last failure, as a part of one line; of the thread or, with NULL, of none in
 * particular. */
static void last_words(char *text, size_t bytes) {
  const char *said = ncclGetLastError(NULL);
  (void)snprintf(text, bytes, "%s", said != NULL ? said : "");
  for (char *at = text; *at != '\0'; at++) {
    if (*at == '\n') *at = ' ';
  }
}

/* Both at once: the one may wait for the other in the device, by way of the compute queue. */
static void give_up(NcclMover *nccl) {
  const int previous = nccl_enter(nccl);
  (void)ncclGroupStart();
  for (const DeviceQueue queue : moving_queues) {
    if (nccl->comms[queue] != NULL) (void)ncclCommAbort(nccl->comms[queue]);
    nccl->comms[queue] = NULL;
  }
  (void)ncclGroupEnd();
  nccl_leave(nccl, previous);
}

static Status first_failure(const NcclMover *nccl, Error *error) {
  return fail(error, nccl->failure.status, "%s", nccl->failure.text);
}

Status nccl_fail(NcclMover *nccl, ncclResult_t code, const char *what, Error *error) {
  if (nccl->failure.status == STATUS_OK) {
    char words[512];
    last_words(words, sizeof words);
    (void)fail(&nccl->failure, status_of(code), "rank %d of %d: NCCL: %s: %s%s%s", nccl->rank, nccl->size,
               what, ncclGetErrorString(code), words[0] != '\0' ? ": " : "", words);
    give_up(nccl);
  }
  return first_failure(nccl, error);
}

/* Whether the communicator of a queue is still at what it was asked for last. */
static Status is_busy(NcclMover *nccl, DeviceQueue queue, bool *busy, Error *error) {
  ncclResult_t state = ncclSuccess;
  *busy = false;
  if (nccl->failure.status != STATUS_OK) return first_failure(nccl, error);
  if (nccl->comms[queue] == NULL) return STATUS_OK;
  ncclResult_t code = ncclCommGetAsyncError(nccl->comms[queue], &state);
  if (code == ncclSuccess) code = state;
  *busy = code == ncclInProgress;
  if (code == ncclSuccess || code == ncclInProgress) return STATUS_OK;
  return nccl_fail(nccl, code, queue == QUEUE_RING ? "the ring" : "the reduction", error);
}

Status nccl_check(CommMover *mover, Error *error) {
  NcclMover *nccl = nccl_mover(mover);
  for (const DeviceQueue queue : moving_queues) {
    bool busy = false;
    TRY(is_busy(nccl, queue, &busy, error));
  }
  return STATUS_OK;
}

void nccl_abort(CommMover *mover) {
  NcclMover *nccl = nccl_mover(mover);
  if (nccl->failure.status != STATUS_OK) return;
  (void)fail(&nccl->failure, STATUS_INTERNAL, "rank %d of %d: NCCL: the group was given up", nccl->rank,
             nccl->size);
  give_up(nccl);
}

/* ---------------------------------------------------------------- messages */

static void note(NcclGroup *group, ncclResult_t code) {
  const bool good = code == ncclSuccess || code == ncclInProgress;
  if (!good && group->code == ncclSuccess) group->code = code;
}

void nccl_begin(NcclMover *nccl, DeviceQueue queue, NcclGroup *group) {
  *group = NcclGroup{nccl, queue, ncclSuccess, nccl_enter(nccl)};
  note(group, ncclGroupStart());
}

void nccl_send(NcclGroup *group, int rank, const void *from, size_t bytes) {
  const NcclMover *nccl = group->nccl;
  if (bytes == 0) return;
  note(group,
       ncclSend(from, bytes, ncclUint8, rank, nccl->comms[group->queue], nccl->cuda->streams[group->queue]));
}

void nccl_receive(NcclGroup *group, int rank, void *to, size_t bytes) {
  const NcclMover *nccl = group->nccl;
  if (bytes == 0) return;
  note(group,
       ncclRecv(to, bytes, ncclUint8, rank, nccl->comms[group->queue], nccl->cuda->streams[group->queue]));
}

Status nccl_end(NcclGroup *group, Error *error) {
  note(group, ncclGroupEnd());
  nccl_leave(group->nccl, group->previous);
  if (group->code == ncclSuccess) return STATUS_OK;
  return nccl_fail(group->nccl, group->code, "starting messages", error);
}

Status nccl_settle(NcclMover *nccl, DeviceQueue queue, Error *error) {
  bool busy = true;
  for (;;) {
    TRY(is_busy(nccl, queue, &busy, error));
    if (!busy) return STATUS_OK;
    device_poll(nccl_device(nccl));
    (void)sched_yield(); /* microseconds, once ranks are connected */
  }
}

/* Whether all that a queue was given has been done. A failure of the GPU is its device's to tell. */
static bool is_idle(const NcclMover *nccl, DeviceQueue queue) {
  const int previous = nccl_enter(nccl);
  const bool idle = cudaStreamQuery(nccl->cuda->streams[queue]) != cudaErrorNotReady;
  (void)cudaGetLastError(); /* not ready is no failure */
  nccl_leave(nccl, previous);
  return idle;
}

/* ---------------------------------------------------------------- making */

/* Begins to join the communicator of a queue. */
static Status join(NcclMover *nccl, DeviceQueue queue, Error *error) {
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  ncclUniqueId id;
  memcpy(&id, nccl->ids.bytes[queue], sizeof id);
  config.blocking = 0;
  config.maxCTAs = queue == QUEUE_RING ? RING_BLOCKS : REDUCTION_BLOCKS;
  const int previous = nccl_enter(nccl);
  const ncclResult_t code = ncclCommInitRankConfig(&nccl->comms[queue], nccl->size, id, nccl->rank, &config);
  nccl_leave(nccl, previous);
  if (code == ncclSuccess || code == ncclInProgress) return STATUS_OK;
  return nccl_fail(nccl, code, "joining the group", error);
}

/* A few bytes to the ranks 1 to `distances` further and from those before: the first bytes of the scratch
 * memory, and those behind. */
static Status connect(NcclMover *nccl, DeviceQueue queue, int distances, Error *error) {
  char *memory = (char *)nccl->scratch;
  NcclGroup group;
  nccl_begin(nccl, queue, &group);
  for (int distance = 1; distance <= distances; distance++) {
    nccl_send(&group, (nccl->rank + distance) % nccl->size, memory, CONNECT_BYTES);
    nccl_receive(&group, (nccl->rank - distance + nccl->size) % nccl->size,
                 memory + (size_t)distance * CONNECT_BYTES, CONNECT_BYTES);
  }
  return nccl_end(&group, error);
}

/* Begins what the stage is for. In the ring mostly neighbours meet; sums are of all with all. */
static Status enter_stage(NcclMover *nccl, NcclStage stage, Error *error) {
  nccl->stage = stage;
  switch (stage) {
  case NCCL_JOIN_RING:
    return join(nccl, QUEUE_RING, error);
  case NCCL_JOIN_REDUCTION:
    return join(nccl, QUEUE_REDUCTION, error);
  case NCCL_CONNECT_RING:
    return connect(nccl, QUEUE_RING, 1, error);
  case NCCL_CONNECT_REDUCTION:
    return connect(nccl, QUEUE_REDUCTION, nccl->size - 1, error);
  case NCCL_READY:
    break;
  }
  return STATUS_OK;
}

static Status advance(CommMover *mover, bool *done, Error *error) {
  NcclMover *nccl = nccl_mover(mover);
  *done = nccl->stage == NCCL_READY;
  TRY(nccl_check(mover, error));
  if (*done) return STATUS_OK;
  const bool ring = nccl->stage == NCCL_JOIN_RING || nccl->stage == NCCL_CONNECT_RING;
  bool busy = false;
  const DeviceQueue queue = ring ? QUEUE_RING : QUEUE_REDUCTION;
  TRY(is_busy(nccl, queue, &busy, error));
  if (!busy && is_idle(nccl, queue)) TRY(enter_stage(nccl, (NcclStage)(nccl->stage + 1), error));
  *done = nccl->stage == NCCL_READY;
  return STATUS_OK;
}

static Status create(Device *device, int rank, int size, const NcclIds *ids, CommMover **out, Error *error) {
  void *scratch = NULL;
  *out = NULL;
  NcclMover *nccl = (NcclMover *)calloc(1, sizeof *nccl);
  if (nccl == NULL) return fail(error, STATUS_SYSTEM, "NCCL: the machine has no memory left");
  nccl->mover.table = &nccl_table;
  nccl->cuda = cuda_device(device);
  nccl->rank = rank;
  nccl->size = size;
  nccl->ids = *ids;
  Status status = device->table->queues->event_create(device, &nccl->ready, error);
  if (status == STATUS_OK) {
    status = device_alloc(device, NCCL_SCRATCH_FLOATS * sizeof(float), "sums over ranks", &scratch, error);
    nccl->scratch = (float *)scratch;
  }
  if (status == STATUS_OK) status = enter_stage(nccl, NCCL_JOIN_RING, error);
  if (status != STATUS_OK) {
    nccl_destroy(&nccl->mover);
    return status;
  }
  *out = &nccl->mover;
  return STATUS_OK;
}

/* ---------------------------------------------------------------- the end */

/* Waits until the work of a queue has been done, however it ends. False where that takes longer than `until`.
 */
static bool is_drained(const NcclMover *nccl, DeviceQueue queue, double until) {
  while (!is_idle(nccl, queue)) {
    if (clock_seconds() > until) return false;
    (void)sched_yield();
  }
  return true;
}

/* The same for what a communicator was asked for. False also where it fails. */
static bool is_quiet(NcclMover *nccl, DeviceQueue queue, double until) {
  Error ignored = {};
  bool busy = true;
  while (busy) {
    if (clock_seconds() > until || is_busy(nccl, queue, &busy, &ignored) != STATUS_OK) return false;
    (void)sched_yield();
  }
  return true;
}

/* Leaves one communicator in good order, with all other ranks. */
static bool leave(NcclMover *nccl, DeviceQueue queue, double until) {
  if (!is_quiet(nccl, queue, until) || !is_drained(nccl, queue, until)) return false;
  const ncclResult_t code = ncclCommFinalize(nccl->comms[queue]);
  if (code != ncclSuccess && code != ncclInProgress) return false;
  if (!is_quiet(nccl, queue, until)) return false;
  (void)ncclCommDestroy(nccl->comms[queue]);
  nccl->comms[queue] = NULL;
  return true;
}

/* Leaves both, or gives up what is left of them: then what is under way still comes out of the queues. */
static void leave_all(NcclMover *nccl) {
  double until = clock_seconds() + FAREWELL_SECONDS;
  bool good = nccl->stage == NCCL_READY && nccl->failure.status == STATUS_OK;
  for (const DeviceQueue queue : moving_queues) good = good && leave(nccl, queue, until);
  if (good) return;
  nccl_abort(&nccl->mover);
  until = clock_seconds() + FAREWELL_SECONDS;
  for (const DeviceQueue queue : moving_queues) (void)is_drained(nccl, queue, until);
}

void nccl_destroy(CommMover *mover) {
  NcclMover *nccl = nccl_mover(mover);
  Device *device = nccl_device(nccl);
  const DeviceQueues *queues = device->table->queues;
  leave_all(nccl);
  device_free(device, nccl->scratch);
  for (int64_t i = 0; i < nccl->request_count; i++) queues->event_destroy(nccl->requests[i].done);
  queues->event_destroy(nccl->ready);
  free(nccl->requests);
  free(nccl);
}

/* ---------------------------------------------------------------- the shared object's one symbol */

static Status library_version(int *version, Error *error) {
  const ncclResult_t code = ncclGetVersion(version);
  if (code == ncclSuccess) return STATUS_OK;
  return fail(error, STATUS_SYSTEM, "NCCL: its version: %s", ncclGetErrorString(code));
}

static Status make_ids(NcclIds *ids, Error *error) {
  memset(ids, 0, sizeof *ids);
  for (const DeviceQueue queue : moving_queues) {
    ncclUniqueId id;
    const ncclResult_t code = ncclGetUniqueId(&id);
    if (code != ncclSuccess) {
      char words[512];
      last_words(words, sizeof words);
      return fail(error, status_of(code), "NCCL: an id for the group: %s: %s", ncclGetErrorString(code),
                  words);
    }
    memcpy(ids->bytes[queue], &id, sizeof id);
  }
  return STATUS_OK;
}

static const NcclPlugin plugin = {
    NCCL_PLUGIN_VERSION, CUDA_PLUGIN_TABLE_BYTES, library_version, make_ids, create, advance};

__attribute__((visibility("default"))) const NcclPlugin *ringgpt_nccl_plugin(void) {
  return &plugin;
}
