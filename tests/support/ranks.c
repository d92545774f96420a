/* Runs a test's function on several ranks. */
#include "tests/support/ranks.h"

#include <pthread.h>

enum { MOST_RANKS = 64 };

typedef struct RankThread {
  pthread_t thread;
  Comm *world;
  int ring;
  int threads;
  TestDevice device;
  TestRankMain main;
  void *context;
  Status status;
  Error error;
} RankThread;

static void *rank_thread(void *argument) {
  RankThread *self = argument;
  TestRank rank = {.world = self->world, .data_rank = self->world->rank / self->ring};
  self->status = test_device_create(self->device, self->threads, &rank.device, &self->error);
  if (self->status == STATUS_OK) self->status = comm_use_device(rank.world, rank.device, &self->error);
  if (self->status == STATUS_OK)
    self->status = comm_split(rank.world, rank.data_rank, &rank.ring, &self->error);
  if (self->status == STATUS_OK) self->status = self->main(&rank, self->context, &self->error);
  if (self->status != STATUS_OK) comm_abort(self->world, &self->error);
  comm_destroy(rank.ring);
  comm_leave_device(rank.world);
  device_destroy(rank.device);
  comm_destroy(rank.world);
  return NULL;
}

Status run_ranks(int ring, int data, int threads, TestRankMain main, void *context, Error *error) {
  return run_ranks_on(TEST_CPU, ring, data, threads, main, context, error);
}

Status run_ranks_on(TestDevice device, int ring, int data, int threads, TestRankMain main, void *context,
                    Error *error) {
  const int count = ring * data;
  RankThread ranks[MOST_RANKS];
  Comm *comms[MOST_RANKS];
  if (count > MOST_RANKS) return fail(error, STATUS_INTERNAL, "a test asks for %d ranks", count);
  TRY(comm_local_create(count, comms, error));
  for (int i = 0; i < count; i++) {
    ranks[i] = (RankThread){.world = comms[i],
                            .ring = ring,
                            .threads = threads,
                            .device = device,
                            .main = main,
                            .context = context};
    const int code = pthread_create(&ranks[i].thread, NULL, rank_thread, &ranks[i]);
    if (code != 0) return fail_errno(error, STATUS_SYSTEM, code, "cannot start rank %d of a test", i);
  }
  Status status = STATUS_OK;
  for (int i = 0; i < count; i++) {
    (void)pthread_join(ranks[i].thread, NULL);
    if (status == STATUS_OK && ranks[i].status != STATUS_OK) {
      status = fail(error, ranks[i].status, "%s", ranks[i].error.text);
    }
  }
  return status;
}
