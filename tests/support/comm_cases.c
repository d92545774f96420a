/* What every transport must do: every collective against its definition, the order of reduction, operations
 * under way at once, groups, failure, and which wait is counted as what. */
#include "tests/support/comm_cases.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kernels/base/clock.h"

#define REQUIRE(condition, what)                                                                             \
  do {                                                                                                       \
    if (!(condition)) return fail(error, STATUS_INTERNAL, "%s (line %d)", what, __LINE__);                   \
  } while (0)

/* As REQUIRE, where something is released at `done`. */
#define REQUIRE_GOTO(condition, what)                                                                        \
  do {                                                                                                       \
    if (!(condition)) {                                                                                      \
      status = fail(error, STATUS_INTERNAL, "%s (line %d)", what, __LINE__);                                 \
      goto done;                                                                                             \
    }                                                                                                        \
  } while (0)

static void sleep_seconds(double seconds) {
  const struct timespec time = {.tv_sec = (time_t)seconds,
                                .tv_nsec = (long)((seconds - (double)(time_t)seconds) * 1e9)};
  (void)nanosleep(&time, NULL);
}

/* Computes for a while, polling. */
static void compute(Comm *comm, double seconds) {
  const double end = clock_seconds() + seconds;
  while (clock_seconds() < end) comm_poll(comm);
}

static int rank_before(const Comm *comm, int distance) {
  return (comm->rank - distance + comm->size) % comm->size;
}

/* ---------------------------------------------------------------- shifts */

/* A byte that tells where it comes from. */
static unsigned char mark(int rank, size_t place) {
  return (unsigned char)((size_t)rank * 37 + place * 7 + place / 251);
}

static Status shift_once(Comm *comm, int distance, size_t bytes, Error *error) {
  Status status = STATUS_OK;
  unsigned char *send = malloc(bytes + 1);
  unsigned char *receive = calloc(bytes + 1, 1);
  REQUIRE_GOTO(send != NULL && receive != NULL, "memory");
  for (size_t i = 0; i < bytes; i++) send[i] = mark(comm->rank, i);
  receive[bytes] = 0xA5;
  CommRequest request = {0};
  TRY_GOTO(comm_shift_start(comm, COMM_KEYS_VALUES, distance, send, receive, bytes, &request, error), done);
  TRY_GOTO(comm_wait(comm, &request, error), done);
  REQUIRE_GOTO(request.kind == 0 && request.id == 0, "a request is cleared by its wait");
  const int from = rank_before(comm, distance);
  for (size_t i = 0; i < bytes; i++) REQUIRE_GOTO(receive[i] == mark(from, i), "a byte of a shift");
  REQUIRE_GOTO(receive[bytes] == 0xA5, "the byte behind a shift");
done:
  free(send);
  free(receive);
  return status;
}

/* Two lengths are above what one MPI message carries here (32 MiB), and above what is sent without asking. */
static Status shift_lengths(TestRank *rank, void *context, Error *error) {
  (void)context;
  static const size_t lengths[] = {0, 1, 7, 1000, 4097, 65537, 1234567, 5000001};
  for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
    TRY(shift_once(rank->world, 1, lengths[i], error));
  }
  if (rank->world->size == 2) TRY(shift_once(rank->world, 1, (size_t)70 * 1000 * 1000 + 13, error));
  return STATUS_OK;
}

static Status shift_distances(TestRank *rank, void *context, Error *error) {
  (void)context;
  Comm *comm = rank->world;
  enum { BYTES = 8000 };
  const CommCounter before = comm->counters[COMM_KEYS_VALUES];
  const CommCounter other = comm->counters[COMM_WEIGHTS];
  for (int distance = 1; distance < comm->size; distance++) TRY(shift_once(comm, distance, BYTES, error));
  const CommCounter after = comm->counters[COMM_KEYS_VALUES];
  REQUIRE(after.messages - before.messages == comm->size - 1, "messages counted");
  REQUIRE(after.bytes - before.bytes == (comm->size - 1) * (int64_t)BYTES, "bytes counted");
  REQUIRE(comm->counters[COMM_WEIGHTS].messages == other.messages, "the other label is not counted");
  Error refused = {0};
  CommRequest request = {0};
  REQUIRE(comm_shift_start(comm, COMM_WEIGHTS, comm->size, NULL, NULL, 0, &request, &refused) ==
              STATUS_INTERNAL,
          "a distance beyond the group");
  return STATUS_OK;
}

/* Ranks arrive at different times, some polling meanwhile, over many rounds with two messages under way. */
static Status shift_uneven(TestRank *rank, void *context, Error *error) {
  (void)context;
  Comm *comm = rank->world;
  enum { ROUNDS = 12, WORDS = 30001 };
  Status status = STATUS_OK;
  int32_t *buffers = malloc(4 * WORDS * sizeof *buffers);
  REQUIRE(buffers != NULL, "memory");
  for (int round = 0; round < ROUNDS; round++) {
    CommRequest requests[2] = {{0}};
    for (int i = 0; i < 2 * WORDS; i++) buffers[i] = comm->rank * 1000 + round + i;
    for (int j = 0; j < 2; j++) {
      TRY_GOTO(comm_shift_start(comm, j == 0 ? COMM_KEYS_VALUES : COMM_KEY_VALUE_GRADIENTS,
                                1 + (round + j) % (comm->size - 1), buffers + j * WORDS,
                                buffers + (2 + j) * WORDS, WORDS * sizeof *buffers, &requests[j], error),
               done);
    }
    if ((comm->rank + round) % 3 == 0) compute(comm, 1e-3);
    for (int j = 1; j >= 0; j--) {
      TRY_GOTO(comm_wait(comm, &requests[j], error), done);
      const int from = rank_before(comm, 1 + (round + j) % (comm->size - 1));
      for (int i = 0; i < WORDS; i++) {
        REQUIRE_GOTO(buffers[(2 + j) * WORDS + i] == from * 1000 + round + j * WORDS + i,
                     "a word of a round");
      }
    }
  }
done:
  free(buffers);
  return status;
}

/* ---------------------------------------------------------------- many at once, two groups */

static Status overlapping(TestRank *rank, void *context, Error *error) {
  (void)context;
  Comm *comm = rank->world;
  int send[2] = {comm->rank, 100 + comm->rank};
  int receive[2] = {-1, -1};
  double sum = comm->rank;
  CommRequest requests[3] = {{0}};
  const int second = comm->size > 2 ? 2 : 1;
  TRY(comm_shift_start(comm, COMM_KEYS_VALUES, 1, &send[0], &receive[0], sizeof(int), &requests[0], error));
  TRY(comm_all_reduce_start(comm, COMM_CONTROL, COMM_F64, COMM_SUM, &sum, 1, &requests[1], error));
  TRY(comm_shift_start(comm, COMM_KEY_VALUE_GRADIENTS, second, &send[1], &receive[1], sizeof(int),
                       &requests[2], error));
  for (int i = 2; i >= 0; i--) TRY(comm_wait(comm, &requests[i], error));
  REQUIRE(receive[0] == rank_before(comm, 1), "first shift");
  REQUIRE(receive[1] == 100 + rank_before(comm, second), "second shift");
  REQUIRE(sum == 0.5 * comm->size * (comm->size - 1), "sum");
  return STATUS_OK;
}

/* Reductions of several sizes in the world, interleaved with shifts in the ring; odd ranks of the world wait
 * for them in the opposite order, across groups too. */
static Status two_groups(TestRank *rank, void *context, Error *error) {
  (void)context;
  enum { COUNT = 6, WORDS = 200003 };
  Status status = STATUS_OK;
  Comm *world = rank->world;
  Comm *ring = rank->ring;
  float *values = malloc((size_t)COUNT * WORDS * sizeof *values);
  int32_t *moved = malloc((size_t)2 * COUNT * WORDS * sizeof *moved);
  CommRequest sums[COUNT] = {{0}};
  CommRequest shifts[COUNT] = {{0}};
  REQUIRE_GOTO(values != NULL && moved != NULL, "memory");
  for (int i = 0; i < COUNT * WORDS; i++) {
    values[i] = (float)(i % 1000 + world->rank);
    moved[i] = ring->rank * 7 + i;
  }
  for (int j = 0; j < COUNT; j++) {
    TRY_GOTO(comm_reduce_scatter_start(world, COMM_GRADIENTS, COMM_F32, COMM_SUM, values + j * WORDS,
                                       WORDS - j * 30001, &sums[j], error),
             done);
    if (ring->size == 1) continue;
    TRY_GOTO(comm_shift_start(ring, COMM_KEYS_VALUES, 1, moved + j * WORDS, moved + (COUNT + j) * WORDS,
                              WORDS * sizeof *moved, &shifts[j], error),
             done);
  }
  for (int j = 0; j < COUNT; j++) {
    const int k = world->rank % 2 == 0 ? j : COUNT - 1 - j;
    TRY_GOTO(
        comm_wait(world->rank % 2 == 0 ? world : ring, world->rank % 2 == 0 ? &sums[k] : &shifts[k], error),
        done);
    TRY_GOTO(
        comm_wait(world->rank % 2 == 0 ? ring : world, world->rank % 2 == 0 ? &shifts[k] : &sums[k], error),
        done);
  }
  for (int j = 0; j < COUNT; j++) {
    int64_t begin = 0;
    int64_t end = 0;
    comm_part(WORDS - j * 30001, world->rank, world->size, &begin, &end);
    for (int64_t i = begin; i < end; i++) {
      const int base = (int)((j * WORDS + i) % 1000);
      const int expected = base * world->size + world->size * (world->size - 1) / 2;
      REQUIRE_GOTO(values[j * WORDS + i] == (float)expected, "a sum among shifts");
    }
    for (int i = 0; ring->size > 1 && i < WORDS; i++) {
      REQUIRE_GOTO(moved[(COUNT + j) * WORDS + i] == rank_before(ring, 1) * 7 + j * WORDS + i,
                   "a shift among sums");
    }
  }
done:
  free(values);
  free(moved);
  return status;
}

/* ---------------------------------------------------------------- reductions */

/* Values whose float sum depends on the order. */
static double value_of(CommType type, int rank, int64_t i) {
  if (type == COMM_I64) return (double)((i * 31 + rank * 17) % 1009 - 500);
  const double size = (i + rank) % 3 == 0 ? 1e6 : 1.0;
  return ((i + rank) % 2 == 0 ? size : -size) / (double)(1 + (i * 7 + rank * 13) % 101);
}

static void store(CommType type, void *buffer, int64_t i, double value) {
  if (type == COMM_F32) ((float *)buffer)[i] = (float)value;
  if (type == COMM_F64) ((double *)buffer)[i] = value;
  if (type == COMM_I64) ((int64_t *)buffer)[i] = (int64_t)value;
}

/* The reduction over `size` ranks in their order, in the arithmetic of the type. */
static double expected_value(CommType type, CommReduction reduction, int size, int64_t i) {
  double result = value_of(type, 0, i);
  if (type == COMM_F32) result = (double)(float)result;
  for (int rank = 1; rank < size; rank++) {
    const double x = type == COMM_F32 ? (double)(float)value_of(type, rank, i) : value_of(type, rank, i);
    if (reduction == COMM_MAX) {
      result = x > result ? x : result;
    } else {
      result = type == COMM_F32 ? (double)((float)result + (float)x) : result + x;
    }
  }
  return result;
}

static bool is_expected(CommType type, CommReduction reduction, int size, int64_t i, const void *buffer) {
  double wanted = 0.0;
  store(type, &wanted, 0, expected_value(type, reduction, size, i));
  const size_t width = type == COMM_F32 ? sizeof(float) : sizeof(double);
  return memcmp(&wanted, (const char *)buffer + (size_t)i * width, width) == 0;
}

/* all-reduce, then reduce-scatter, then gather of the parts: all give the same bits. */
static Status reduce_one(Comm *comm, CommType type, CommReduction reduction, int64_t elements, Error *error) {
  Status status = STATUS_OK;
  const size_t width = type == COMM_F32 ? sizeof(float) : sizeof(double);
  CommRequest request = {0};
  char *buffer = calloc((size_t)elements + 1, width);
  REQUIRE_GOTO(buffer != NULL, "memory");
  memset(buffer + (size_t)elements * width, 0x5A, width);
  for (int64_t i = 0; i < elements; i++) store(type, buffer, i, value_of(type, comm->rank, i));
  TRY_GOTO(comm_all_reduce(comm, type, reduction, buffer, elements, error), done);
  for (int64_t i = 0; i < elements; i++) {
    REQUIRE_GOTO(is_expected(type, reduction, comm->size, i, buffer), "an all-reduce in the order of ranks");
  }
  int64_t begin = 0;
  int64_t end = 0;
  comm_part(elements, comm->rank, comm->size, &begin, &end);
  for (int64_t i = 0; i < elements; i++) store(type, buffer, i, value_of(type, comm->rank, i));
  TRY_GOTO(
      comm_reduce_scatter_start(comm, COMM_GRADIENTS, type, reduction, buffer, elements, &request, error),
      done);
  TRY_GOTO(comm_wait(comm, &request, error), done);
  for (int64_t i = begin; i < end; i++) {
    REQUIRE_GOTO(is_expected(type, reduction, comm->size, i, buffer),
                 "a reduce-scatter in the order of ranks");
  }
  memset(buffer, 0, (size_t)begin * width);
  memset(buffer + (size_t)end * width, 0, (size_t)(elements - end) * width);
  TRY_GOTO(comm_gather_parts_start(comm, COMM_WEIGHTS, buffer, elements, width, &request, error), done);
  TRY_GOTO(comm_wait(comm, &request, error), done);
  for (int64_t i = 0; i < elements; i++) {
    REQUIRE_GOTO(is_expected(type, reduction, comm->size, i, buffer), "a gathered part");
  }
  for (size_t i = 0; i < width; i++) {
    REQUIRE_GOTO(buffer[(size_t)elements * width + i] == 0x5A, "what lies behind a reduction");
  }
done:
  free(buffer);
  return status;
}

static Status reductions(TestRank *rank, void *context, Error *error) {
  (void)context;
  static const int64_t lengths[] = {0, 1, 3, 5, 1000, 10007, 70001};
  for (int type = COMM_F32; type <= COMM_I64; type++) {
    for (int reduction = COMM_SUM; reduction <= COMM_MAX; reduction++) {
      for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        TRY(reduce_one(rank->world, (CommType)type, (CommReduction)reduction, lengths[i], error));
      }
    }
  }
  /* Several pieces for each part. */
  TRY(reduce_one(rank->world, COMM_F32, COMM_SUM, 1500007, error));
  return rank->world->size == 2 ? reduce_one(rank->world, COMM_F64, COMM_SUM, 1200001, error) : STATUS_OK;
}

/* ---------------------------------------------------------------- gathering, broadcast, barrier */

static Status gathering(TestRank *rank, void *context, Error *error) {
  (void)context;
  Comm *comm = rank->world;
  static const size_t rows[] = {1, 8, 3001, 400003};
  for (size_t j = 0; j < sizeof rows / sizeof rows[0]; j++) {
    Status status = STATUS_OK;
    unsigned char *own = malloc(rows[j]);
    unsigned char *all = calloc((size_t)comm->size, rows[j]);
    REQUIRE_GOTO(own != NULL && all != NULL, "memory");
    for (size_t i = 0; i < rows[j]; i++) own[i] = mark(comm->rank, i);
    TRY_GOTO(comm_all_gather(comm, own, all, rows[j], error), done);
    for (int r = 0; r < comm->size; r++) {
      for (size_t i = 0; i < rows[j]; i++) {
        REQUIRE_GOTO(all[(size_t)r * rows[j] + i] == mark(r, i), "a gathered row");
      }
    }
  done:
    free(own);
    free(all);
    TRY(status);
  }
  return STATUS_OK;
}

static Status broadcasts(TestRank *rank, void *context, Error *error) {
  (void)context;
  Comm *comm = rank->world;
  enum { BYTES = 2500001 };
  Status status = STATUS_OK;
  unsigned char *data = malloc(BYTES);
  REQUIRE(data != NULL, "memory");
  for (int root = 0; root < comm->size; root++) {
    const size_t bytes = root == comm->size - 1 ? BYTES : 5;
    for (size_t i = 0; i < bytes; i++) data[i] = comm->rank == root ? mark(root, i) : 0;
    TRY_GOTO(comm_broadcast(comm, root, data, bytes, error), done);
    for (size_t i = 0; i < bytes; i++) REQUIRE_GOTO(data[i] == mark(root, i), "a broadcast byte");
  }
done:
  free(data);
  return status;
}

/* Nobody leaves the barrier before the last one has come. Ranks of one machine share the clock. */
static Status barriers(TestRank *rank, void *context, Error *error) {
  (void)context;
  Comm *comm = rank->world;
  for (int late = 0; late < comm->size; late++) {
    if (comm->rank == late) sleep_seconds(2e-3);
    double came = clock_seconds();
    TRY(comm_barrier(comm, error));
    const double left = clock_seconds();
    TRY(comm_broadcast(comm, late, &came, sizeof came, error));
    REQUIRE(left >= came, "a rank left the barrier before the last had come");
  }
  return STATUS_OK;
}

/* ---------------------------------------------------------------- groups */

static Status splits(TestRank *rank, void *context, Error *error) {
  (void)context;
  Comm *world = rank->world;
  Comm *half = NULL;
  TRY(comm_split(world, world->rank % 2, &half, error));
  int64_t sum = world->rank;
  Status status = STATUS_OK;
  REQUIRE_GOTO(half->rank == world->rank / 2, "rank by the order of the old ranks");
  TRY_GOTO(comm_all_reduce(half, COMM_I64, COMM_SUM, &sum, 1, error), done);
  const int64_t n = half->size;
  REQUIRE_GOTO(n == (world->size + 1 - world->rank % 2) / 2, "size of a group");
  REQUIRE_GOTO(sum == n * (n - 1) + n * (world->rank % 2), "a sum within a group");
done:
  comm_destroy(half);
  return status;
}

/* ---------------------------------------------------------------- what a wait is counted as */

/* Rank 0 starts late: the others wait for a rank, rank 0 waits for nobody. *wrong names what was not so. */
static Status late_start_once(Comm *comm, bool shift, double late, const char **wrong, Error *error) {
  int send = comm->rank;
  int receive = -1;
  double sum = 1.0;
  CommRequest request = {0};
  TRY(comm_barrier(comm, error));
  const CommWaits before = comm->waits;
  if (comm->rank == 0) sleep_seconds(late);
  if (shift) {
    TRY(comm_shift_start(comm, COMM_KEYS_VALUES, 1, &send, &receive, sizeof send, &request, error));
  } else {
    TRY(comm_all_reduce_start(comm, COMM_CONTROL, COMM_F64, COMM_SUM, &sum, 1, &request, error));
  }
  TRY(comm_wait(comm, &request, error));
  const double skew = comm->waits.skew - before.skew;
  const double exposed = comm->waits.exposed - before.exposed;
  const bool depends = !shift || comm->rank == 1 || comm->rank == comm->size - 1;
  if (exposed > 0.5 * late) *wrong = "waiting for a late rank is counted as waiting for data";
  if (comm->rank == 0) {
    if (skew > 0.5 * late) *wrong = "the late rank is said to have waited for others";
  } else if (depends && (skew < 0.8 * late || skew > 3.0 * late)) {
    *wrong = "waiting for a late rank is not counted as skew";
  }
  return STATUS_OK;
}

/* A rank that the machine lets wait for a processor spoils the measurement, so it is made again, longer.
 * Ranks by far more than processors would always spoil it. */
static Status late_start(TestRank *rank, void *context, Error *error) {
  (void)context;
  enum { ATTEMPTS = 6, MOST_RANKS = 4 };
  if (rank->world->size > MOST_RANKS) return STATUS_OK;
  for (int kind = 0; kind < 2; kind++) {
    const char *wrong = NULL;
    int64_t any = 1;
    double late = 0.06;
    for (int attempt = 0; any != 0 && attempt < ATTEMPTS; attempt++) {
      wrong = NULL;
      TRY(late_start_once(rank->world, kind == 1, late, &wrong, error));
      late *= 1.5;
      any = wrong != NULL;
      TRY(comm_all_reduce(rank->world, COMM_I64, COMM_MAX, &any, 1, error));
    }
    REQUIRE(any == 0, wrong == NULL ? "another rank counts a wait wrongly" : wrong);
  }
  return STATUS_OK;
}

/* ---------------------------------------------------------------- failure */

Status comm_case_failure(TestRank *rank, void *informed, Error *error) {
  Comm *world = rank->world;
  if (world->rank == 2) return fail(error, STATUS_DATA, "shard x is damaged");
  double value = 1.0;
  Status status = STATUS_OK;
  if (world->rank == 3) {
    int send = 0;
    int receive = 0;
    CommRequest request = {0};
    status = comm_shift_start(rank->ring, COMM_KEYS_VALUES, 1, &send, &receive, sizeof send, &request, error);
    if (status == STATUS_OK) status = comm_wait(rank->ring, &request, error);
  } else {
    status = comm_all_reduce(world, COMM_F64, COMM_SUM, &value, 1, error);
  }
  REQUIRE(status == STATUS_DATA, "the status of the failed rank");
  REQUIRE(strcmp(error->text, "rank 2: shard x is damaged") == 0, "the cause with its rank");
  Error again = {0};
  REQUIRE(comm_barrier(rank->ring, &again) == STATUS_DATA, "a later call fails too");
  REQUIRE(strcmp(again.text, error->text) == 0, "a later call gives the same cause");
  ((int *)informed)[world->rank] = 1;
  return status;
}

Status comm_case_disagreement(TestRank *rank, void *context, Error *error) {
  (void)context;
  double value[2] = {0};
  return comm_all_reduce(rank->world, COMM_F64, COMM_SUM, value, rank->world->rank == 0 ? 1 : 2, error);
}

/* ---------------------------------------------------------------- the list */

const CommCase comm_cases[] = {
    {.name = "shifts of all lengths", .main = shift_lengths, .least = 2},
    {.name = "shifts by all distances", .main = shift_distances, .least = 2},
    {.name = "shifts of uneven ranks", .main = shift_uneven, .least = 2},
    {.name = "operations waited for in another order", .main = overlapping, .least = 2},
    {.name = "two groups at once", .main = two_groups, .least = 1},
    {.name = "reductions", .main = reductions, .least = 1},
    {.name = "all-gather", .main = gathering, .least = 1},
    {.name = "broadcast", .main = broadcasts, .least = 1},
    {.name = "barrier", .main = barriers, .least = 1},
    {.name = "split", .main = splits, .least = 1},
    {.name = "a late rank", .main = late_start, .least = 2},
    {.name = NULL},
};

Status comm_cases_run(TestRank *rank, void *context, Error *error) {
  (void)context;
  for (const CommCase *item = comm_cases; item->name != NULL; item++) {
    if (rank->world->size < item->least) continue;
    Error reason = {0};
    const Status status = item->main(rank, NULL, &reason);
    if (status != STATUS_OK) return fail(error, status, "%s: %s", item->name, reason.text);
  }
  return STATUS_OK;
}
