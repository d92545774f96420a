/* The MPI transport: the cases that every transport must pass, over ranks that are processes, and what only
 * processes can do: die, hang, and end a program together.
 *
 *   test_comm_mpi                    the tests; they start the next line by mpirun
 *   test_comm_mpi --case NAME RING   one rank of a case, in rings of RING
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "kernels/base/clock.h"
#include "kernels/comm/mpi.h"
#include "tests/support/comm_cases.h"
#include "tests/support/expect.h"
#include "tests/support/launch.h"
#include "tests/support/temp_dir.h"
#include "tests/support/unit.h"

#if RINGGPT_MPI

/* ---------------------------------------------------------------- one rank */

/* Where ranks write what they say, all to the same file: mpirun drops what is on its way when it ends them.
 */
#define WORDS "RINGGPT_TEST_WORDS"

static int count_text(const char *text, const char *wanted) {
  int count = 0;
  for (const char *at = strstr(text, wanted); at != NULL; at = strstr(at + 1, wanted)) count += 1;
  return count;
}

/* Until `count` ranks have said `wanted`, or a time that a correct program does not need has gone by. */
static void wait_for_words(const char *wanted, int count) {
  const double end = clock_seconds() + 5.0;
  const struct timespec moment = {.tv_nsec = 10000000};
  int said = 0;
  while (said < count && clock_seconds() < end) {
    char *words = temp_file_read_text(getenv(WORDS));
    said = count_text(words, wanted);
    free(words);
    (void)nanosleep(&moment, NULL);
  }
}

/* Rank 0 ends the program as soon as it has heard of the failure: not before the others had a say here. */
static Status case_failure(TestRank *rank, void *context, Error *error) {
  (void)context;
  int informed[4] = {0};
  const Status status = comm_case_failure(rank, informed, error);
  if (informed[rank->world->rank] == 1) {
    printf("informed %d\n", rank->world->rank);
    wait_for_words("informed", 3);
  }
  return status;
}

/* Rank 1 dies while the others wait for it. */
static Status case_killed(TestRank *rank, void *context, Error *error) {
  (void)context;
  if (rank->world->rank == 1) (void)raise(SIGKILL);
  return comm_barrier(rank->world, error);
}

static void stop_here(void) {
  printf("stopped %ld\n", (long)getpid());
  (void)raise(SIGSTOP);
}

/* Rank 1 hangs before it joins the others. */
static Status case_stopped(TestRank *rank, void *context, Error *error) {
  (void)context;
  int send = 0;
  int receive = 0;
  CommRequest request = {0};
  comm_mpi_set_timeout(rank->world, 1.0);
  TRY(comm_barrier(rank->world, error));
  if (rank->world->rank == 1) stop_here();
  TRY(comm_shift_start(rank->world, COMM_KEYS_VALUES, 1, &send, &receive, sizeof send, &request, error));
  return comm_wait(rank->world, &request, error);
}

/* Rank 1 hangs after it has joined, with most of its data still to send. */
static Status case_stopped_later(TestRank *rank, void *context, Error *error) {
  (void)context;
  enum { ELEMENTS = 8 << 20 };
  static float values[ELEMENTS];
  CommRequest request = {0};
  comm_mpi_set_timeout(rank->world, 1.0);
  TRY(comm_barrier(rank->world, error));
  TRY(comm_reduce_scatter_start(rank->world, COMM_GRADIENTS, COMM_F32, COMM_SUM, values, ELEMENTS, &request,
                                error));
  if (rank->world->rank == 1) stop_here();
  return comm_wait(rank->world, &request, error);
}

static Status shift_once(Comm *comm, CommRequest *request, Error *error) {
  static int send[4];
  static int receive[4];
  return comm_shift_start(comm, COMM_KEYS_VALUES, 1, send, receive, sizeof send, request, error);
}

/* What the transport sees of a long computation. */
static void compute(Comm *comm, double seconds) {
  const double end = clock_seconds() + seconds;
  const struct timespec moment = {.tv_nsec = 2000000};
  while (clock_seconds() < end) {
    comm_poll(comm);
    (void)nanosleep(&moment, NULL);
  }
}

/* Rank 0 computes for longer than the timeout. Ranks 1 and 3 wait for it in the first shift, and rank 2,
 * which has done with that, for them in the second. Then it computes on, while the others look at no message.
 */
static Status case_computing(TestRank *rank, void *context, Error *error) {
  (void)context;
  const struct timespec while_away = {.tv_sec = 1};
  Comm *world = rank->world;
  comm_mpi_set_timeout(world, 1.5);
  TRY(comm_barrier(world, error));
  if (world->rank == 0) compute(world, 4.0);
  for (int i = 0; i < 2; i++) {
    CommRequest request = {0};
    TRY(shift_once(world, &request, error));
    TRY(comm_wait(world, &request, error));
  }
  if (world->rank == 0) {
    compute(world, 1.0);
  } else {
    (void)nanosleep(&while_away, NULL);
  }
  return STATUS_OK;
}

/* Rank 1 hangs and rank 2 computes: rank 0, which waits for rank 1 alone, gives up. */
static Status case_stopped_beside(TestRank *rank, void *context, Error *error) {
  (void)context;
  CommRequest request = {0};
  comm_mpi_set_timeout(rank->world, 1.0);
  TRY(comm_barrier(rank->world, error));
  if (rank->world->rank == 1) stop_here();
  if (rank->world->rank == 2) compute(rank->world, 6.0);
  TRY(shift_once(rank->world, &request, error));
  return comm_wait(rank->world, &request, error);
}

/* All have computed, and then wait for each other in different groups. */
static Status case_deadlock(TestRank *rank, void *context, Error *error) {
  (void)context;
  comm_mpi_set_timeout(rank->world, 1.0);
  TRY(comm_barrier(rank->world, error));
  compute(rank->world, 0.6);
  return comm_barrier(rank->world->rank == 0 ? rank->world : rank->ring, error);
}

/* A rank fails before it waits for what it started: nothing lands in its buffers after its comm_abort, though
 * the others go on sending for a moment. */
static Status case_buffers(TestRank *rank, void *context, Error *error) {
  (void)context;
  Comm *world = rank->world;
  enum { BYTES = 8 << 20 };
  CommRequest request = {0};
  static unsigned char send[BYTES];
  unsigned char *receive = malloc(BYTES);
  if (receive == NULL) return fail(error, STATUS_SYSTEM, "memory");
  memset(send, 1, sizeof send);
  memset(receive, 2, BYTES);
  Status status = comm_barrier(world, error);
  if (status == STATUS_OK) {
    status = comm_shift_start(world, COMM_KEYS_VALUES, 1, send, receive, BYTES, &request, error);
  }
  if (status == STATUS_OK && world->rank == 0) status = fail(error, STATUS_IO, "the disk is full");
  if (status == STATUS_OK) status = comm_wait(world, &request, error);
  if (status == STATUS_OK) status = comm_barrier(world, error);
  comm_abort(world, error);
  memset(receive, 3, BYTES);
  const struct timespec moment = {.tv_nsec = 100000000};
  (void)nanosleep(&moment, NULL);
  for (size_t i = 0; i < BYTES; i++) {
    if (receive[i] != 3) printf("a buffer was written to\n");
  }
  free(receive);
  return status;
}

static const CommCase own_cases[] = {
    {.name = "all", .main = comm_cases_run},
    {.name = "failure", .main = case_failure},
    {.name = "disagreement", .main = comm_case_disagreement},
    {.name = "killed", .main = case_killed},
    {.name = "stopped", .main = case_stopped},
    {.name = "stopped later", .main = case_stopped_later},
    {.name = "stopped beside", .main = case_stopped_beside},
    {.name = "computing", .main = case_computing},
    {.name = "deadlock", .main = case_deadlock},
    {.name = "buffers", .main = case_buffers},
    {.name = NULL},
};

static bool speak_to_file(void) {
  const char *path = getenv(WORDS);
  const int file = path != NULL ? open(path, O_WRONLY | O_APPEND) : -1;
  if (file < 0) return false;
  const bool done = dup2(file, STDOUT_FILENO) >= 0 && dup2(file, STDERR_FILENO) >= 0;
  (void)close(file);
  return done && setvbuf(stdout, NULL, _IOLBF, BUFSIZ) == 0;
}

/* The life of a rank, ended as the program ends its own. */
static int rank_main(const char *name, const char *ring_text) {
  Error error = {0};
  TestRank rank = {0};
  const int ring = (int)strtol(ring_text, NULL, 10);
  const CommCase *item = own_cases;
  while (item->name != NULL && strcmp(item->name, name) != 0) item++;
  if (item->name == NULL || !comm_mpi_launched() || ring < 1 || !speak_to_file()) return 99;
  Status status = comm_mpi_start(&rank.world, &error);
  if (status != STATUS_OK) {
    fprintf(stderr, "%s\n", error.text);
    return (int)status;
  }
  Comm *twice = NULL;
  Error refused = {0};
  if (comm_mpi_start(&twice, &refused) != STATUS_INTERNAL || twice != NULL) {
    status = fail(&error, STATUS_INTERNAL, "MPI was started twice");
  }
  rank.data_rank = rank.world->rank / ring;
  if (status == STATUS_OK) status = comm_split(rank.world, rank.data_rank, &rank.ring, &error);
  if (status == STATUS_OK) status = item->main(&rank, NULL, &error);
  if (status != STATUS_OK) comm_abort(rank.world, &error);
  comm_destroy(rank.ring);
  if (status != STATUS_OK) {
    if (comm_mpi_speaks(rank.world)) fprintf(stderr, "ended by: %s\n", error.text);
    comm_mpi_kill(rank.world, status);
  }
  comm_mpi_end(rank.world);
  return 0;
}

/* ---------------------------------------------------------------- mpirun */

typedef struct Run {
  int status; /* exit status of mpirun, or 1000 + the signal that ended it */
  double seconds;
  char output[32768]; /* standard output and error of all ranks and mpirun; the rest is lost */
} Run;

static pid_t start(int ranks, int ring, const char *name, const char *network, const char *words,
                   int *output) {
  int ends[2];
  char self[4096];
  char rank_text[16];
  char ring_text[16];
  const ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
  assert_true(length > 0);
  self[length] = '\0';
  (void)snprintf(rank_text, sizeof rank_text, "%d", ranks);
  (void)snprintf(ring_text, sizeof ring_text, "%d", ring);
  assert_int_equal(pipe(ends), 0);
  const pid_t child = fork();
  assert_true(child >= 0);
  if (child == 0) {
    (void)dup2(ends[1], STDOUT_FILENO);
    (void)dup2(ends[1], STDERR_FILENO);
    (void)close(ends[0]);
    (void)close(ends[1]);
    launch_prepare_mpirun(network);
    (void)setenv(WORDS, words, 1);
    (void)execlp("mpirun", "mpirun", "-n", rank_text, self, "--case", name, ring_text, (char *)NULL);
    _exit(127);
  }
  (void)close(ends[1]);
  *output = ends[0];
  return child;
}

/* Reads until the other side closes or the time is over; false then. */
static bool read_all(int descriptor, double end, char *text, size_t room) {
  size_t used = 0;
  char chunk[4096];
  for (;;) {
    struct pollfd wanted = {.fd = descriptor, .events = POLLIN};
    const double left = end - clock_seconds();
    if (left <= 0.0) return false;
    if (poll(&wanted, 1, (int)(left * 1e3) + 1) <= 0) continue;
    const ssize_t got = read(descriptor, chunk, sizeof chunk);
    if (got <= 0) return got == 0;
    for (ssize_t i = 0; i < got && used + 1 < room; i++) text[used++] = chunk[i];
    text[used] = '\0';
  }
}

#define TIME_LIMIT 60.0

/* Adds what ranks have written to the output of mpirun. */
static void add_words(const char *words, char *text, size_t room) {
  char *written = temp_file_read_text(words);
  const size_t used = strlen(text);
  (void)snprintf(text + used, room - used, "%s", written);
  free(written);
}

/* Runs a case to its end. */
static void run(int ranks, int ring, const char *name, const char *network, Run *out) {
  TempDir directory = temp_dir_create();
  const char *words = temp_dir_path(&directory, "words");
  int output = -1;
  int status = 0;
  const double begin = clock_seconds();
  out->output[0] = '\0';
  temp_file_write_text(words, "");
  const pid_t child = start(ranks, ring, name, network, words, &output);
  const bool ended = read_all(output, begin + TIME_LIMIT, out->output, sizeof out->output);
  if (!ended) (void)kill(child, SIGTERM); /* mpirun takes its ranks with it */
  while (waitpid(child, &status, 0) < 0) assert_int_equal(errno, EINTR);
  (void)close(output);
  out->seconds = clock_seconds() - begin;
  out->status = WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
  add_words(words, out->output, sizeof out->output);
  temp_dir_remove(&directory);
  if (!ended) fail_msg("\"%s\" on %d ranks did not end: %s", name, ranks, out->output);
}

static void expect_good(int ranks, int ring, const char *name, const char *network) {
  Run *out = malloc(sizeof *out);
  assert_non_null(out);
  run(ranks, ring, name, network, out);
  if (out->status != 0) fail_msg("%d ranks: status %d: %s", ranks, out->status, out->output);
  free(out);
}

static void expect_run(int ranks, int ring, const char *network) {
  expect_good(ranks, ring, "all", network);
}

/* The first of the texts that the output lacks, or NULL. */
static const char *lacking(const char *output, const char *const texts[]) {
  for (int i = 0; texts[i] != NULL; i++) {
    if (strstr(output, texts[i]) == NULL) return texts[i];
  }
  return NULL;
}

/* A case ends with `status` within `seconds`, and its output has each of the texts. */
static Run *expect_end(int ranks, int ring, const char *name, int status, double seconds,
                       const char *const texts[]) {
  Run *out = malloc(sizeof *out);
  assert_non_null(out);
  run(ranks, ring, name, "self,vader,tcp", out);
  const char *missing = lacking(out->output, texts);
  if (out->status == status && out->seconds < seconds && missing == NULL) return out;
  print_error("\"%s\": status %d (wanted %d) after %.1f s, without \"%s\": %s\n", name, out->status, status,
              out->seconds, missing != NULL ? missing : "", out->output);
  free(out);
  fail_msg("see above");
  return NULL;
}

/* ---------------------------------------------------------------- tests */

static void test_cases(void **state) {
  (void)state;
  for (int ranks = 1; ranks <= 8; ranks++) expect_run(ranks, ranks, "self,vader,tcp");
}

static void test_rings(void **state) {
  (void)state;
  expect_run(6, 3, "self,vader,tcp");
  expect_run(4, 1, "self,vader,tcp");
}

/* Without shared memory between the ranks, as on several machines. */
static void test_network(void **state) {
  (void)state;
  expect_run(4, 2, "self,tcp");
}

static void test_failure(void **state) {
  (void)state;
  Run *out = expect_end(
      4, 2, "failure", STATUS_DATA, 10.0,
      (const char *const[]){"informed 0", "informed 1", "informed 3", "rank 2: shard x is damaged", NULL});
  const int spoken = count_text(out->output, "ended by:");
  free(out);
  assert_int_equal(spoken, 1);
}

static void test_disagreement(void **state) {
  (void)state;
  free(expect_end(2, 2, "disagreement", STATUS_INTERNAL, 10.0,
                  (const char *const[]){"ranks disagree about collective operation",
                                        "an all-reduce (1 elements)", "an all-reduce (2 elements)", NULL}));
}

static void test_killed(void **state) {
  (void)state;
  free(expect_end(3, 3, "killed", 128 + SIGKILL, 10.0, (const char *const[]){NULL}));
}

/* Whether a process has ended; it is ended if not. */
static bool is_gone(const char *output) {
  const char *at = strstr(output, "stopped ");
  assert_non_null(at);
  const pid_t pid = (pid_t)strtol(at + strlen("stopped "), NULL, 10);
  assert_true(pid > 1);
  for (int i = 0; i < 100; i++) {
    if (kill(pid, 0) != 0) return true;
    const struct timespec moment = {.tv_nsec = 20000000};
    (void)nanosleep(&moment, NULL);
  }
  (void)kill(pid, SIGKILL);
  return false;
}

/* `text` as rank 0 gives it, and the stopped rank ended with the others. */
static void check_stopped(const char *name, int ranks, const char *text) {
  Run *out = expect_end(ranks, ranks, name, STATUS_SYSTEM, 15.0, (const char *const[]){text, NULL});
  const bool gone = is_gone(out->output);
  free(out);
  assert_true(gone);
}

static void test_stopped(void **state) {
  (void)state;
  check_stopped("stopped", 3,
                "waited 1 s for a shift of keys and values by 1 rank (4 bytes): rank 1 has not joined it");
  check_stopped("stopped later", 3,
                "waited 1 s for a reduce-scatter of gradients (8388608 elements): all have "
                "joined; the data of rank 1 do not arrive");
  check_stopped("stopped beside", 4, "ended by: rank 0 waited 1 s for a shift");
}

/* Nobody gives up while a rank computes. */
static void test_computing(void **state) {
  (void)state;
  expect_good(4, 4, "computing", "self,vader,tcp");
}

static void test_deadlock(void **state) {
  (void)state;
  free(expect_end(2, 2, "deadlock", STATUS_SYSTEM, 10.0,
                  (const char *const[]){"waited 1 s for a barrier: rank", NULL}));
}

static void test_buffers(void **state) {
  (void)state;
  Run *out =
      expect_end(3, 3, "buffers", STATUS_IO, 10.0, (const char *const[]){"ended by: the disk is full", NULL});
  const int written = count_text(out->output, "a buffer was written to");
  free(out);
  assert_int_equal(written, 0);
}

static void test_not_launched(void **state) {
  (void)state;
  static const char *const names[] = {"OMPI_COMM_WORLD_SIZE", "PMI_RANK", "PMIX_RANK"};
  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
    assert_null(getenv(names[i]));
    assert_false(comm_mpi_launched());
    assert_int_equal(setenv(names[i], "1", 1), 0);
    assert_true(comm_mpi_launched());
    assert_int_equal(unsetenv(names[i]), 0);
  }
}

int main(int argc, char **argv) {
  if (argc == 4 && strcmp(argv[1], "--case") == 0) return rank_main(argv[2], argv[3]);
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_cases),        cmocka_unit_test(test_rings),
      cmocka_unit_test(test_network),      cmocka_unit_test(test_failure),
      cmocka_unit_test(test_disagreement), cmocka_unit_test(test_killed),
      cmocka_unit_test(test_stopped),      cmocka_unit_test(test_buffers),
      cmocka_unit_test(test_not_launched), cmocka_unit_test(test_computing),
      cmocka_unit_test(test_deadlock),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}

#else

static void test_without_mpi(void **state) {
  (void)state;
  Comm *world = NULL;
  Error error = {0};
  expect_error(comm_mpi_start(&world, &error), &error, STATUS_CONFIG, "this build has no MPI");
  assert_null(world);
  print_message("SKIPPED: this build has no MPI, so its transport is not tested\n");
}

/* One process of a launcher is as good as none; of several the first speaks. */
static void test_launched(void **state) {
  (void)state;
  assert_false(comm_mpi_launched());
  assert_int_equal(setenv("OMPI_COMM_WORLD_SIZE", "1", 1), 0);
  assert_int_equal(setenv("OMPI_COMM_WORLD_RANK", "0", 1), 0);
  assert_false(comm_mpi_launched());
  assert_int_equal(setenv("OMPI_COMM_WORLD_SIZE", "3", 1), 0);
  assert_true(comm_mpi_launched());
  assert_true(comm_mpi_launch_speaks());
  assert_int_equal(setenv("OMPI_COMM_WORLD_RANK", "2", 1), 0);
  assert_false(comm_mpi_launch_speaks());
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_without_mpi), cmocka_unit_test(test_launched)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}

#endif
