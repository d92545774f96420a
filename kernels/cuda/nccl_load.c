/* Gives groups of ranks their mover over NCCL: see the header. */
#include "kernels/cuda/nccl_load.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "kernels/base/clock.h"
#include "kernels/comm/mover.h"
#include "kernels/cuda/nccl_plugin.h"
#include "kernels/cuda/object.h"

static Status load(const NcclPlugin **out, Error *error) {
  CudaObject object = {.variable = "RINGGPT_NCCL",
                       .file = "ringgpt-nccl.so",
                       .symbol = NCCL_PLUGIN_SYMBOL,
                       .lacking = "no NCCL"};
  const NcclPlugin *(*plugin)(void) = NULL;
  TRY(cuda_object_load(&object, (void **)&plugin, error));
  *out = plugin();
  return cuda_object_check(&object, (*out)->version, NCCL_PLUGIN_VERSION, (*out)->table_bytes, error);
}

/* ---------------------------------------------------------------- the version */

/* From 2.28.3 to 2.28.8 an abort is reported not to end what is under way. */
enum { FAULTY_FIRST = 22803, FAULTY_LAST = 22808 };

Status cuda_nccl_version(NcclVersion *version, Error *error) {
  const NcclPlugin *plugin = NULL;
  int number = 0;
  *version = (NcclVersion){0};
  TRY(load(&plugin, error));
  TRY(plugin->library_version(&number, error));
  (void)snprintf(version->text, sizeof version->text, "NCCL %d.%d.%d", number / 10000, number / 100 % 100,
                 number % 100);
  if (number >= FAULTY_FIRST && number <= FAULTY_LAST) {
    version->warning =
        "of NCCL 2.28.3 to 2.28.8 it is reported that an abort can hang: a run in which a rank "
        "fails may have to be ended by hand; 2.28.9 is the next without it";
  }
  return STATUS_OK;
}

/* ---------------------------------------------------------------- making movers together */

/* How long a rank looks after its own part before it hears of the others, and how often it looks, in seconds:
 * a failure of one rank ends the others' waiting this much later. */
#define TELL_SECONDS 0.02
#define LOOK_SECONDS 0.001

/* A failure's place in the order in which failures are to be told: the larger comes first, 0 is none. A lost
 * connection mostly follows from what another rank says. */
static int64_t weight_of(const Comm *comm, const Error *own) {
  if (own->status == STATUS_OK) return 0;
  return comm->size - comm->rank + (own->status == STATUS_IO ? 0 : comm->size);
}

/* Tells all ranks how far this one is: `own` is its failure, if there is one. *all: every rank is done. Fails
 * on all ranks alike where one has failed, with the words of the first of them. */
static Status tell(Comm *comm, const Error *own, bool done, bool *all, Error *error) {
  int64_t states[2] = {weight_of(comm, own), done ? 0 : 1};
  TRY(comm_all_reduce(comm, COMM_I64, COMM_MAX, states, 2, error));
  *all = states[1] == 0;
  if (states[0] == 0) return STATUS_OK;
  Error first = *own;
  TRY(comm_broadcast(comm, (int)((2 * comm->size - states[0]) % comm->size), &first, sizeof first, error));
  return fail(error, first.status, "%s", first.text);
}

static void pause_between_looks(void) {
  const struct timespec pause = {.tv_nsec = (long)(LOOK_SECONDS * 1e9)};
  (void)nanosleep(&pause, NULL);
}

/* Takes the making of this rank's mover further, for a while. */
static bool advance(const NcclPlugin *plugin, CommMover *mover, Error *own) {
  bool done = false;
  const double begin = clock_seconds();
  while (own->status == STATUS_OK && !done && clock_seconds() - begin < TELL_SECONDS) {
    if (plugin->advance(mover, &done, own) == STATUS_OK && !done) pause_between_looks();
  }
  return done;
}

/* Until the movers of all ranks can be used. `own` is a failure that this rank already has. */
static Status make_ready(Comm *comm, const NcclPlugin *plugin, CommMover *mover, Error *own, Error *error) {
  bool all = false;
  while (!all) {
    const bool done = advance(plugin, mover, own);
    TRY(tell(comm, own, done, &all, error));
  }
  return STATUS_OK;
}

/* What each rank can find out by itself; rank 0 makes the ids. */
static Status prepare(const Comm *comm, const Device *device, const NcclPlugin **plugin, NcclIds *ids,
                      Error *error) {
  if (strcmp(device->table->kind, "cuda") != 0) {
    return fail(error, STATUS_CONFIG, "NCCL moves memory of CUDA devices, not of a %s device",
                device->table->kind);
  }
  TRY(load(plugin, error));
  return comm->rank == 0 ? (*plugin)->make_ids(ids, error) : STATUS_OK;
}

Status cuda_nccl_attach(Comm *comm, Device *device, Error *error) {
  const NcclPlugin *plugin = NULL;
  CommMover *mover = NULL;
  NcclIds ids;
  Error own = {0};
  bool all = false;
  if (comm->size == 1) return comm_use_device(comm, device, error);
  memset(&ids, 0, sizeof ids);
  (void)prepare(comm, device, &plugin, &ids, &own);
  TRY(tell(comm, &own, true, &all, error));
  if (plugin == NULL) return own.status; /* told to all, as `error` is */
  TRY(comm_broadcast(comm, 0, &ids, sizeof ids, error));
  (void)plugin->create(device, comm->rank, comm->size, &ids, &mover, &own);
  const Status status = make_ready(comm, plugin, mover, &own, error);
  if (status == STATUS_OK) {
    comm_attach_mover(comm, device, mover);
  } else if (mover != NULL) {
    mover->table->abort(mover);
    mover->table->destroy(mover);
  }
  return status;
}
