/* The MPI transport: start and end of MPI in this process, and the table of operations. */
#include "kernels/comm/mpi.h"

#include <unistd.h>

#if RINGGPT_MPI

#include <signal.h>
#include <stdlib.h>
#include <time.h>

#include "kernels/base/clock.h"
#include "kernels/comm/combine.h"
#include "kernels/comm/mpi_state.h"

/* Most calls of comm_poll only read the clock: a large message gains nothing from more. */
#define POLL_SECONDS 50e-6

static MpiGroup *group_of(const Comm *comm) {
  return comm->state;
}

/* ---------------------------------------------------------------- operations */

static Status start(Comm *comm, MpiHeader header, const void *send, void *buffer, CommRequest *request,
                    Error *error) {
  MpiGroup *group = group_of(comm);
  MpiHub *hub = group->hub;
  MpiOperation *operation = NULL;
  const double begin = clock_seconds();
  TRY(mpi_alive(hub, error));
  TRY(mpi_operation_create(group, header, send, buffer, &operation, error));
  *request = (CommRequest){.id = operation->header.id, .kind = header.kind};
  if (mpi_group_match(group, &hub->fault) == STATUS_OK) mpi_progress(hub);
  mpi_life_give(hub, hub->clock);
  comm->waits.exposed += clock_seconds() - begin;
  return STATUS_OK; /* what else goes wrong is for the wait */
}

static Status mpi_shift_start(Comm *comm, CommLabel label, int distance, const void *send, void *receive,
                              size_t bytes, CommRequest *request, Error *error) {
  const MpiHeader header = {
      .kind = KIND_SHIFT, .label = (int32_t)label, .argument = distance, .amount = bytes};
  return start(comm, header, send, receive, request, error);
}

static MpiHeader reduction_header(MpiKind kind, CommLabel label, CommType type, CommReduction reduction,
                                  int64_t elements) {
  return (MpiHeader){.kind = (int32_t)kind,
                     .label = (int32_t)label,
                     .type = (int32_t)type,
                     .reduction = (int32_t)reduction,
                     .amount = (uint64_t)elements,
                     .width = comm_width(type)};
}

static Status mpi_all_reduce_start(Comm *comm, CommLabel label, CommType type, CommReduction reduction,
                                   void *buffer, int64_t elements, CommRequest *request, Error *error) {
  return start(comm, reduction_header(KIND_ALL_REDUCE, label, type, reduction, elements), NULL, buffer,
               request, error);
}

static Status mpi_reduce_scatter_start(Comm *comm, CommLabel label, CommType type, CommReduction reduction,
                                       void *buffer, int64_t elements, CommRequest *request, Error *error) {
  return start(comm, reduction_header(KIND_REDUCE_SCATTER, label, type, reduction, elements), NULL, buffer,
               request, error);
}

static Status mpi_gather_parts_start(Comm *comm, CommLabel label, void *buffer, int64_t elements,
                                     size_t width, CommRequest *request, Error *error) {
  const MpiHeader header = {
      .kind = KIND_GATHER_PARTS, .label = (int32_t)label, .amount = (uint64_t)elements, .width = width};
  return start(comm, header, NULL, buffer, request, error);
}

static Status mpi_all_gather_start(Comm *comm, const void *send, void *receive, size_t bytes,
                                   CommRequest *request, Error *error) {
  const MpiHeader header = {.kind = KIND_ALL_GATHER, .label = COMM_CONTROL, .amount = bytes};
  return start(comm, header, send, receive, request, error);
}

static Status mpi_broadcast_start(Comm *comm, int root, void *buffer, size_t bytes, CommRequest *request,
                                  Error *error) {
  const MpiHeader header = {.kind = KIND_BROADCAST, .label = COMM_CONTROL, .argument = root, .amount = bytes};
  return start(comm, header, NULL, buffer, request, error);
}

static Status mpi_barrier_start(Comm *comm, CommRequest *request, Error *error) {
  const MpiHeader header = {.kind = KIND_BARRIER, .label = COMM_CONTROL};
  return start(comm, header, NULL, NULL, request, error);
}

static Status mpi_wait(Comm *comm, CommRequest *request, Error *error) {
  TRY(mpi_await(group_of(comm), request->id, &comm->waits, error));
  *request = (CommRequest){0};
  return STATUS_OK;
}

static void mpi_poll(Comm *comm) {
  MpiHub *hub = group_of(comm)->hub;
  const double begin = clock_seconds();
  if (begin - hub->moved_at < POLL_SECONDS) return;
  mpi_progress(hub);
  mpi_life_give(hub, hub->clock);
  comm->waits.exposed += hub->moved_at - begin;
}

static bool mpi_group_ended(Comm *comm) {
  return mpi_ended(group_of(comm)->hub);
}

static void mpi_abort(Comm *comm, const Error *cause) {
  mpi_alarm_raise(group_of(comm)->hub, cause);
}

/* ---------------------------------------------------------------- groups */

static const CommTable mpi_table;

/* The handle of a group over `mpi`, which it owns from then on. */
static Status handle_create(MpiHub *hub, MPI_Comm mpi, Comm **out, Error *error) {
  MpiGroup *group = NULL;
  *out = NULL;
  TRY(mpi_group_create(hub, mpi, &group, error));
  Comm *comm = calloc(1, sizeof *comm);
  if (comm == NULL) {
    mpi_group_destroy(group);
    return fail(error, STATUS_SYSTEM, "no memory for a group of ranks");
  }
  *comm = (Comm){.table = &mpi_table, .rank = group->rank, .size = group->size, .state = group};
  *out = comm;
  return STATUS_OK;
}

/* MPI_Comm_split blocks, so it is entered only when all ranks have come: until then this is an operation like
 * any other, and a rank that fails or hangs is noticed. */
static Status mpi_split(Comm *comm, int color, Comm **out, Error *error) {
  MpiGroup *group = group_of(comm);
  CommRequest request = {0};
  *out = NULL;
  TRY(start(comm, (MpiHeader){.kind = KIND_SPLIT, .label = COMM_CONTROL}, NULL, NULL, &request, error));
  TRY(mpi_wait(comm, &request, error));
  MPI_Comm mpi = MPI_COMM_NULL;
  TRY(mpi_check(MPI_Comm_split(group->mpi, color, comm->rank, &mpi), "making a group", error));
  return handle_create(group->hub, mpi, out, error);
}

static void mpi_destroy(Comm *comm) {
  mpi_group_destroy(group_of(comm));
  free(comm);
}

static const CommTable mpi_table = {
    .name = "mpi",
    .shift_start = mpi_shift_start,
    .all_reduce_start = mpi_all_reduce_start,
    .reduce_scatter_start = mpi_reduce_scatter_start,
    .gather_parts_start = mpi_gather_parts_start,
    .all_gather_start = mpi_all_gather_start,
    .broadcast_start = mpi_broadcast_start,
    .barrier_start = mpi_barrier_start,
    .wait = mpi_wait,
    .poll = mpi_poll,
    .ended = mpi_group_ended,
    .split = mpi_split,
    .abort = mpi_abort,
    .destroy = mpi_destroy,
};

/* ---------------------------------------------------------------- life */

static void hub_destroy(MpiHub *hub) {
  if (hub == NULL) return;
  free(hub->telling);
  free(hub->answered);
  free(hub->signs);
  free(hub);
}

/* The arrays by rank. */
static Status hub_alloc(MpiHub *hub, Error *error) {
  const size_t size = (size_t)hub->size;
  hub->telling = malloc(size * sizeof(MPI_Request));
  hub->answered = calloc(size, sizeof *hub->answered);
  hub->signs = calloc(size, sizeof *hub->signs);
  if (hub->telling == NULL || hub->answered == NULL || hub->signs == NULL) {
    return fail(error, STATUS_SYSTEM, "no memory for MPI");
  }
  for (size_t rank = 0; rank < size; rank++) {
    hub->telling[rank] = MPI_REQUEST_NULL;
    hub->signs[rank].request = MPI_REQUEST_NULL;
  }
  return STATUS_OK;
}

/* The hub, with its communicator for alarms and signs of life. */
static Status hub_create(MpiHub **out, Error *error) {
  Status status = STATUS_OK;
  MpiHub *hub = calloc(1, sizeof *hub);
  if (hub == NULL) return fail(error, STATUS_SYSTEM, "no memory for MPI");
  hub->hearing = MPI_REQUEST_NULL;
  hub->hearing_life = MPI_REQUEST_NULL;
  hub->moved_at = clock_seconds();
  hub->woke_at = hub->moved_at - SPEAK_SECONDS;
  hub->control = MPI_COMM_NULL;
  TRY_GOTO(mpi_check(MPI_Comm_dup(MPI_COMM_WORLD, &hub->control), "starting", error), failed);
  TRY_GOTO(mpi_check(MPI_Comm_rank(hub->control, &hub->rank), "starting", error), failed);
  TRY_GOTO(mpi_check(MPI_Comm_size(hub->control, &hub->size), "starting", error), failed);
  TRY_GOTO(hub_alloc(hub, error), failed);
  TRY_GOTO(mpi_alarm_listen(hub, error), failed);
  TRY_GOTO(mpi_life_listen(hub, error), failed);
  *out = hub;
  return STATUS_OK;
failed:
  hub_destroy(hub);
  return status;
}

/* MPI starts threads of its own, which inherit the mask of signals: with all of them blocked, signals come to
 * the program's threads alone. */
static Status start_mpi(int *provided, Error *error) {
  sigset_t all;
  sigset_t before;
  /* Over TCP, Open MPI would let two large messages of opposite directions take turns: measured, a hop of the
     ring took twice as long. In pieces of this size they cross. Other MPIs do not read it. */
  (void)setenv("OMPI_MCA_btl_tcp_rdma_pipeline_frag_size", "262144", 0);
  (void)sigfillset(&all);
  (void)pthread_sigmask(SIG_BLOCK, &all, &before);
  const Status status =
      mpi_check(MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, provided), "starting", error);
  (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
  return status;
}

Status comm_mpi_start(Comm **world, Error *error) {
  *world = NULL;
  int provided = 0;
  int before = 0;
  (void)MPI_Initialized(&before);
  if (before != 0) return fail(error, STATUS_INTERNAL, "MPI is started twice in one process");
  TRY(start_mpi(&provided, error));
  if (provided < MPI_THREAD_FUNNELED) {
    return fail(error, STATUS_SYSTEM, "this MPI does not allow a process to have threads");
  }
  TRY(mpi_check(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN), "starting", error));
  TRY(mpi_check(MPI_Comm_set_errhandler(MPI_COMM_SELF, MPI_ERRORS_RETURN), "starting", error));
  MpiHub *hub = NULL;
  MPI_Comm mpi = MPI_COMM_NULL;
  TRY(hub_create(&hub, error));
  Status status = STATUS_OK;
  TRY_GOTO(mpi_check(MPI_Comm_dup(MPI_COMM_WORLD, &mpi), "starting", error), failed);
  TRY_GOTO(handle_create(hub, mpi, world, error), failed);
  return STATUS_OK;
failed:
  hub_destroy(hub);
  return status;
}

void comm_mpi_set_timeout(Comm *world, double seconds) {
  group_of(world)->hub->timeout = seconds;
}

void comm_mpi_end(Comm *world) {
  if (world == NULL) return;
  MpiHub *hub = group_of(world)->hub;
  mpi_destroy(world);
  if (!mpi_ended(hub)) {
    mpi_life_end(hub);
    mpi_alarm_deafen(hub);
    (void)MPI_Comm_free(&hub->control);
    (void)MPI_Finalize();
  }
  hub_destroy(hub);
}

/* A signal does not shorten it: a launcher that ends the program sends one first. */
static void rest(double seconds) {
  const double end = clock_seconds() + seconds;
  const struct timespec moment = {.tv_nsec = 50000000};
  while (clock_seconds() < end) (void)nanosleep(&moment, NULL);
}

bool comm_mpi_speaks(const Comm *world) {
  const MpiHub *hub = group_of(world)->hub;
  int before = 0;
  for (int rank = 0; rank < hub->rank; rank++) before += hub->answered[rank];
  /* Ranks that have not answered have a turn together; one that was stopped comes two turns later. */
  const int turns = before + (before < hub->rank ? 1 : 0) + (hub->late ? 2 : 0);
  rest(turns * SPEAK_SECONDS);
  return true;
}

void comm_mpi_kill(Comm *world, Status status) {
  (void)world;
  (void)MPI_Abort(MPI_COMM_WORLD, (int)status);
  _exit((int)status);
}

#else

Status comm_mpi_start(Comm **world, Error *error) {
  *world = NULL;
  return fail(
      error, STATUS_CONFIG,
      "this build has no MPI: build it where pkg-config finds one, or run all ranks as threads of one "
      "process");
}

void comm_mpi_set_timeout(Comm *world, double seconds) {
  (void)world;
  (void)seconds;
}

void comm_mpi_end(Comm *world) {
  (void)world;
}

bool comm_mpi_speaks(const Comm *world) {
  (void)world;
  return true;
}

void comm_mpi_kill(Comm *world, Status status) {
  (void)world;
  _exit((int)status);
}

#endif
