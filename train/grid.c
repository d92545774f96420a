/* The grid of ranks: starts them as threads of this process. */
#include "train/grid.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "kernels/base/memory.h"

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

static Status run_rank(RankThread *self) {
  const int ring = (int)self->config->parallelism.ring;
  Rank rank = {.world = self->world,
               .data_rank = self->world->rank / ring,
               .data_size = (int)self->config->parallelism.data};
  const int64_t cores = sysconf(_SC_NPROCESSORS_ONLN);
  Status status = STATUS_OK;
  TRY_GOTO(config_check_world(self->config, self->world->size, &self->error), done);
  TRY_GOTO(comm_split(rank.world, rank.data_rank, &rank.ring, &self->error), done);
  TRY_GOTO(device_create((int)config_threads(self->config, cores), &rank.device, &self->error), done);
  status = self->rank_main(&rank, self->context, &self->error);
done:
  /* Before anything is released: no other rank may still read this rank's buffers. */
  if (status != STATUS_OK && status != STATUS_STOPPED) comm_abort(self->world, &self->error);
  device_destroy(rank.device);
  comm_destroy(rank.ring);
  comm_destroy(rank.world);
  return status;
}

static void *rank_thread(void *argument) {
  RankThread *self = argument;
  self->status = run_rank(self);
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

static Status check_threads(const Config *config, Error *error) {
  const int64_t cores = sysconf(_SC_NPROCESSORS_ONLN);
  if (config->parallelism.threads <= cores) return STATUS_OK;
  return fail(error, STATUS_CONFIG, "parallelism.threads=%lld: this machine has %lld cores",
              (long long)config->parallelism.threads, (long long)cores);
}

Status grid_run(const Config *config, RankMain rank_main, void *context, Error *error) {
  const int count = (int)config_ranks(config);
  Status status = STATUS_OK;
  void *ranks_memory = NULL;
  void *comms_memory = NULL;
  TRY_GOTO(check_threads(config, error), done);
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
