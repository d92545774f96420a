/* What ranks send each other, by transport: ranks as threads of this process, or the processes that mpirun
 * started.
 *
 * A ring hop: every rank sends a message to the next. An all-reduce: every rank gets the sum of all buffers.
 * As threads, held against memory: each rank reads and writes its buffer once. As processes, which may be on
 * several machines, against nothing: what a rank sends at least, which is the message, or 2 (R - 1) / R of
 * the buffer (nccl-tests' bus bandwidth). */
#include <math.h>
#include <stdio.h>

#include "kernels/base/clock.h"
#include "kernels/comm/comm.h"
#include "tests/bench/memory.h"
#include "train/grid.h"

enum { LEAST_RANKS = 2, MOST_RANKS = 8, MOST_ROUNDS = 1000 };

/* Bytes of a message. */
static const int64_t sizes[] = {(int64_t)1 << 16, (int64_t)1 << 20, (int64_t)1 << 24, (int64_t)1 << 26};
static const int64_t quick_sizes[] = {(int64_t)1 << 10};

typedef struct Rounds {
  Config config;
  bool reduction;
  bool processes;
  size_t bytes;
  int64_t count;  /* rounds in a repetition */
  double seconds; /* of all of them, for the slowest rank */
} Rounds;

static Status hop(const Rounds *rounds, Comm *ring, void *send, void *receive, Error *error) {
  CommRequest request = {0};
  TRY(comm_shift_start(ring, COMM_KEYS_VALUES, 1, send, receive, rounds->bytes, &request, error));
  return comm_wait(ring, &request, error);
}

static Status reduce(const Rounds *rounds, Comm *ring, void *buffer, Error *error) {
  const int64_t elements = (int64_t)(rounds->bytes / sizeof(float));
  CommRequest request = {0};
  TRY(comm_reduce_scatter_start(ring, COMM_GRADIENTS, COMM_F32, COMM_SUM, buffer, elements, &request, error));
  TRY(comm_wait(ring, &request, error));
  TRY(comm_gather_parts_start(ring, COMM_WEIGHTS, buffer, elements, sizeof(float), &request, error));
  return comm_wait(ring, &request, error);
}

static Status one_round(const Rounds *rounds, Comm *ring, void *send, void *receive, Error *error) {
  return rounds->reduction ? reduce(rounds, ring, send, error) : hop(rounds, ring, send, receive, error);
}

static Status time_rounds(Rounds *rounds, Rank *rank, void *send, void *receive, Error *error) {
  uint32_t word = 0;
  TRY(one_round(rounds, rank->ring, send, receive, error));
  device_read(rank->device, &word, send, sizeof word);
  TRY(comm_barrier(rank->ring, error));
  const double start = clock_seconds();
  for (int64_t i = 0; i < rounds->count; i++) TRY(one_round(rounds, rank->ring, send, receive, error));
  device_read(rank->device, &word, receive, sizeof word);
  double seconds = clock_seconds() - start;
  TRY(comm_all_reduce(rank->ring, COMM_F64, COMM_MAX, &seconds, 1, error));
  if (rounds->processes || rank->ring->rank == 0) rounds->seconds = seconds;
  return device_check(rank->device, error);
}

/* The life of one rank. */
static Status run_rank(Rank *rank, void *context, Error *error) {
  Rounds *rounds = context;
  void *send = NULL;
  void *receive = NULL;
  Status status = STATUS_OK;
  TRY_GOTO(device_alloc(rank->device, rounds->bytes, "the benchmark", &send, error), done);
  TRY_GOTO(device_alloc(rank->device, rounds->bytes, "the benchmark", &receive, error), done);
  status = time_rounds(rounds, rank, send, receive, error);
done:
  if (status != STATUS_OK) rank_abort(rank, error);
  device_free(rank->device, receive);
  device_free(rank->device, send);
  return status;
}

static double repeat(Bench *bench, void *context) {
  Rounds *rounds = context;
  rounds->seconds = NAN;
  (void)grid_run(&rounds->config, bench->processes, run_rank, rounds, &bench->error);
  return rounds->seconds / (double)rounds->count;
}

static void measure(Bench *bench, Rounds *rounds) {
  const bool processes = bench->processes != NULL;
  const double ranks = (double)rounds->config.parallelism.ring;
  const double bytes = (double)rounds->bytes;
  Case c;
  if (!bench_begin(bench, &c, ELEMENT_F32, processes ? LIMIT_NONE : LIMIT_MEMORY, "%s %s %.0f ranks %lld KiB",
                   rounds->reduction ? "all-reduce" : "ring hop", processes ? "mpi" : "local", ranks,
                   (long long)rounds->bytes / 1024)) {
    return;
  }
  c.work = 2 * ranks * bytes;
  if (processes) c.work = rounds->reduction ? 2 * (ranks - 1) / ranks * bytes : bytes;
  rounds->count = 1;
  const double once = repeat(bench, rounds);
  if (once < bench->sample) rounds->count = (int64_t)(bench->sample / once) + 1;
  if (rounds->count > MOST_ROUNDS) rounds->count = MOST_ROUNDS;
  bench_repeat(bench, &c, repeat, rounds);
  bench_release(bench);
}

static int64_t ranks_of(const Bench *bench) {
  if (bench->processes != NULL) return bench->processes->size;
  if (bench->threads < LEAST_RANKS) return LEAST_RANKS;
  return bench->threads < MOST_RANKS ? bench->threads : MOST_RANKS;
}

void bench_comm(Bench *bench) {
  Rounds rounds = {
      .config = {.device = bench->cuda ? DEVICE_KIND_CUDA : DEVICE_KIND_CPU,
                 .parallelism = {.ring = ranks_of(bench), .data = 1, .timeout = 60, .threads = 1}},
      .processes = bench->processes != NULL};
  const int64_t *list = bench->quick ? quick_sizes : sizes;
  const size_t count = (bench->quick ? sizeof quick_sizes : sizeof sizes) / sizeof sizes[0];
  for (int reduction = 0; reduction < 2; reduction++) {
    rounds.reduction = reduction != 0;
    for (size_t i = 0; i < count; i++) {
      rounds.bytes = (size_t)list[i];
      measure(bench, &rounds);
    }
  }
}
