/* The grid of ranks: as threads of this process, or this process as one of them. */
#include "train/grid.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "kernels/base/memory.h"
#include "kernels/comm/mpi.h"
#include "train/agreement.h"
#include "train/rank_device.h"

/* Room for what attention keeps on the stack, whatever the limit of the shell. OpenMP's further threads take
 * that limit (or OMP_STACKSIZE); they need 256 KiB. */
#define RANK_STACK_BYTES ((size_t)16 << 20)

typedef struct RankThread {
  pthread_t thread;
  bool started;
  const Config *config;
  Comm *world;
  RankMain rank_main;
  void *context;
  Status status;
  Error error;
} RankThread;

void rank_abort(Rank *rank, const Error *cause) {
  comm_abort(rank->world, cause);
  /* What moves device memory in the ring, if anything, hears of it here. */
  if (rank->ring != NULL) comm_poll(rank->ring);
}

/* Life of one rank. `world` stays the caller's. */
static Status run_rank(const Config *config, Comm *world, RankMain rank_main, void *context, Error *error) {
  const int ring = (int)config->parallelism.ring;
  Rank rank = {.world = world, .data_rank = world->rank / ring, .data_size = (int)config->parallelism.data};
  Status status = STATUS_OK;
  TRY_GOTO(config_check_world(config, world->size, error), done);
  TRY_GOTO(agreement_config(world, config, error), done);
  TRY_GOTO(rank_device_create(config, &rank, error), done);
  TRY_GOTO(agreement_device(world, rank.device, error), done);
  TRY_GOTO(comm_split(world, rank.data_rank, &rank.ring, error), done);
  TRY_GOTO(rank_device_join(config, &rank, error), done);
  status = rank_main(&rank, context, error);
done:
  /* Before anything is released: no other rank may still read this rank's buffers. */
  if (status != STATUS_OK && status != STATUS_STOPPED) rank_abort(&rank, error);
  comm_destroy(rank.ring);
  comm_leave_device(world);
  device_destroy(rank.device);
  return status;
}

static void *rank_thread(void *argument) {
  RankThread *self = argument;
  self->status = run_rank(self->config, self->world, self->rank_main, self->context, &self->error);
  comm_destroy(self->world);
  return NULL;
}

static Status start_ranks(RankThread *ranks, int count, Error *error) {
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, RANK_STACK_BYTES);
  Status status = STATUS_OK;
  for (int i = 0; i < count && status == STATUS_OK; i++) {
    const int code = pthread_create(&ranks[i].thread, &attributes, rank_thread, &ranks[i]);
    ranks[i].started = code == 0;
    if (code != 0) status = fail_errno(error, STATUS_SYSTEM, code, "cannot start the thread of rank %d", i);
  }
  pthread_attr_destroy(&attributes);
  return status;
}

/* The ranks that could not be started would be waited for: tell the others. */
static void give_up(RankThread *ranks, int count, const Error *cause) {
  for (int i = 0; i < count; i++) {
    if (ranks[i].started) continue;
    comm_abort(ranks[i].world, cause);
    comm_destroy(ranks[i].world);
  }
}

static Status join_ranks(RankThread *ranks, int count, Error *error) {
  Status status = STATUS_OK;
  for (int i = 0; i < count; i++) {
    if (!ranks[i].started) continue;
    (void)pthread_join(ranks[i].thread, NULL);
    if (status == STATUS_OK && ranks[i].status != STATUS_OK) {
      status = fail(error, ranks[i].status, "%s", ranks[i].error.text);
    }
  }
  return status;
}

/* Every rank a thread of this process. */
static Status run_threads(const Config *config, RankMain rank_main, void *context, Error *error) {
  const int count = (int)config_ranks(config);
  Status status = STATUS_OK;
  void *ranks_memory = NULL;
  void *comms_memory = NULL;
  TRY_GOTO(memory_alloc((size_t)count, sizeof(RankThread), "ranks", &ranks_memory, error), done);
  TRY_GOTO(memory_alloc((size_t)count, sizeof(Comm *), "ranks", &comms_memory, error), done);
  RankThread *ranks = ranks_memory;
  Comm **comms = comms_memory;
  TRY_GOTO(comm_local_create(count, comms, error), done);
  for (int i = 0; i < count; i++) {
    ranks[i] = (RankThread){.config = config, .world = comms[i], .rank_main = rank_main, .context = context};
  }
  status = start_ranks(ranks, count, error);
  if (status != STATUS_OK) give_up(ranks, count, error);
  const Status joined = join_ranks(ranks, count, error);
  if (status == STATUS_OK) status = joined;
done:
  free(comms_memory);
  free(ranks_memory);
  return status;
}

Status grid_run(const Config *config, Comm *processes, RankMain rank_main, void *context, Error *error) {
  const TransportKind transport = config->parallelism.transport;
  const bool several = processes != NULL && processes->size > 1;
  if (transport == TRANSPORT_MPI && processes == NULL) {
    return fail(error, STATUS_CONFIG,
                "parallelism.transport=mpi: start the program by a launcher, as mpirun -n %lld ringgpt ...",
                (long long)config_ranks(config));
  }
  if (transport == TRANSPORT_LOCAL && several) {
    return fail(error, STATUS_CONFIG,
                "parallelism.transport=local: all ranks are threads of one process, but %d processes were "
                "started",
                processes->size);
  }
  if (!several && transport != TRANSPORT_MPI) return run_threads(config, rank_main, context, error);
  comm_mpi_set_timeout(processes, config->parallelism.timeout);
  return run_rank(config, processes, rank_main, context, error);
}
