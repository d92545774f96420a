/* Threads of a rank: the cores shared out, OMP_NUM_THREADS, what is refused, and the new start with passive
 * waiting. */
#include "train/threads.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/expect.h"
#include "tests/support/unit.h"

/* ---------------------------------------------------------------- arithmetic */

/* Cores [first, last] of a host. */
static ThreadsPlace place(uint64_t host, int first, int last) {
  ThreadsPlace result = {.host = host};
  for (int core = first; core <= last; core++) result.cores[core / 64] |= UINT64_C(1) << (core % 64);
  return result;
}

static void test_cores_are_shared_out(void **state) {
  (void)state;
  ThreadsPlace places[12];
  for (int count = 1; count <= 12; count++) {
    for (int i = 0; i < count; i++) places[i] = place(7, 0, 11);
    const int expected = 12 / count;
    for (int i = 0; i < count; i++) assert_int_equal(threads_share(places, count, i), expected);
  }
  assert_int_equal(threads_cores(&places[0]), 12);
}

/* A share is a sum of fractions: 49 cores that 49 ranks share are one core each, although 49 x (1 / 49) is
 * less than 1 in floating point, and so for every number. */
static void test_fractions_add_up(void **state) {
  (void)state;
  static ThreadsPlace places[200];
  for (int count = 1; count <= 200; count++) {
    for (int i = 0; i < count; i++) places[i] = place(7, 100, 100 + 3 * count - 1);
    assert_int_equal(threads_share(places, count, count - 1), 3);
  }
}

static void test_bound_ranks_and_other_hosts(void **state) {
  (void)state;
  const ThreadsPlace bound[] = {place(1, 0, 3), place(1, 4, 7), place(2, 0, 7), place(2, 0, 1)};
  assert_int_equal(threads_share(bound, 4, 0), 4);
  assert_int_equal(threads_share(bound, 4, 1), 4);
  assert_int_equal(threads_share(bound, 4, 2), 7); /* 6 alone and 2 by halves */
  assert_int_equal(threads_share(bound, 4, 3), 1);
  const ThreadsPlace crowd[] = {place(1, 1023, 1023), place(1, 1023, 1023)};
  assert_int_equal(threads_share(crowd, 2, 1), 1); /* never none */
}

static void test_crowded_cores(void **state) {
  (void)state;
  const ThreadsPlace free_ranks[] = {place(1, 0, 1), place(1, 0, 1), place(2, 0, 1)};
  assert_false(threads_crowded(free_ranks, (const int64_t[]){1, 1, 2}, 3, 0));
  assert_false(threads_crowded(free_ranks, (const int64_t[]){1, 1, 2}, 3, 2));
  assert_true(threads_crowded(free_ranks, (const int64_t[]){1, 2, 2}, 3, 0));
  assert_false(threads_crowded(free_ranks, (const int64_t[]){1, 2, 2}, 3, 2));
  const ThreadsPlace bound[] = {place(1, 0, 1), place(1, 2, 3)};
  assert_false(threads_crowded(bound, (const int64_t[]){2, 2}, 2, 1));
  assert_true(threads_crowded(bound, (const int64_t[]){2, 3}, 2, 1));
  const ThreadsPlace thirds[] = {place(1, 0, 2), place(1, 0, 2), place(1, 0, 2)};
  assert_false(threads_crowded(thirds, (const int64_t[]){1, 1, 1}, 3, 1));
}

/* ---------------------------------------------------------------- ranks */

/* The threads of the only rank of a world. */
static Status one_rank(int64_t configured, const char *environment, int *threads, bool *shared,
                       Error *error) {
  Config config = {.parallelism = {.ring = 1, .data = 1, .threads = configured}};
  Comm *world = NULL;
  *error = (Error){0};
  expect_ok(comm_local_create(1, &world, error), error);
  if (environment != NULL) {
    assert_int_equal(setenv("OMP_NUM_THREADS", environment, 1), 0);
  } else {
    assert_int_equal(unsetenv("OMP_NUM_THREADS"), 0);
  }
  const Status status = threads_of_rank(&config, world, threads, shared, error);
  assert_int_equal(unsetenv("OMP_NUM_THREADS"), 0);
  comm_destroy(world);
  return status;
}

#if defined(_OPENMP)

static int usable_cores(void) {
  cpu_set_t set;
  assert_int_equal(sched_getaffinity(0, sizeof set, &set), 0);
  return CPU_COUNT(&set);
}

static void test_configured_or_from_the_environment(void **state) {
  (void)state;
  Error error;
  int threads = 0;
  bool shared = true;
  expect_ok(one_rank(0, NULL, &threads, &shared, &error), &error);
  assert_int_equal(threads, usable_cores());
  assert_false(shared);
  const char *const ones[] = {"1", "1,4", " 1 ,2"};
  for (int i = 0; i < 3; i++) {
    expect_ok(one_rank(0, ones[i], &threads, &shared, &error), &error);
    assert_int_equal(threads, 1);
  }
  expect_ok(one_rank(0, "", &threads, &shared, &error), &error);
  assert_int_equal(threads, usable_cores());
  /* The configuration goes first: not even a bad value of the environment is looked at. */
  expect_ok(one_rank(1, "many", &threads, &shared, &error), &error);
  assert_int_equal(threads, 1);
}

static void test_bad_numbers_are_refused(void **state) {
  (void)state;
  const char *const bad[] = {"many", "0", "-2", "2x", ",2", "99999999999999999999"};
  Error error;
  int threads = 0;
  bool shared = false;
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
    assert_int_equal(one_rank(0, bad[i], &threads, &shared, &error), STATUS_CONFIG);
    assert_non_null(strstr(error.text, "OMP_NUM_THREADS="));
    assert_non_null(strstr(error.text, bad[i]));
  }
}

static void test_more_threads_than_cores_are_refused(void **state) {
  (void)state;
  char text[32];
  char expected[96];
  Error error;
  int threads = 0;
  bool shared = false;
  const int cores = usable_cores();
  const char *const plural = cores == 1 ? "" : "s";
  (void)snprintf(text, sizeof text, "%d", cores + 1);
  assert_int_equal(one_rank(cores + 1, NULL, &threads, &shared, &error), STATUS_CONFIG);
  (void)snprintf(expected, sizeof expected, "parallelism.threads=%d: this process may use %d core%s",
                 cores + 1, cores, plural);
  assert_string_equal(error.text, expected);
  assert_int_equal(one_rank(0, text, &threads, &shared, &error), STATUS_CONFIG);
  (void)snprintf(expected, sizeof expected, "OMP_NUM_THREADS=%d: this process may use %d core%s", cores + 1,
                 cores, plural);
  assert_string_equal(error.text, expected);
  expect_ok(one_rank(cores, NULL, &threads, &shared, &error), &error);
  assert_int_equal(threads, cores);
}

#else

static void test_one_thread_without_openmp(void **state) {
  (void)state;
  Error error;
  int threads = 0;
  bool shared = true;
  expect_ok(one_rank(4096, "4096", &threads, &shared, &error), &error);
  assert_int_equal(threads, 1);
  assert_false(shared);
}

#endif

/* ---------------------------------------------------------------- waiting */

enum { STARTED_ANEW = 3, STARTED_AGAIN_AND_AGAIN = 4, NOT_STARTED = 5 };

/* What a new start of this program ends with: it must not start itself once more. */
static int started_anew(char *const argv[]) {
  const char *policy = getenv("OMP_WAIT_POLICY");
  threads_wait_passively(4096, argv);
  return policy != NULL && strcmp(policy, "passive") == 0 ? STARTED_ANEW : STARTED_AGAIN_AND_AGAIN;
}

typedef struct Launch {
  const char *name; /* of a launcher's variable; NULL: no launcher */
  const char *value;
  int64_t configured;
  const char *environment; /* OMP_NUM_THREADS */
  const char *policy;      /* OMP_WAIT_POLICY */
} Launch;

/* How a process of a launcher goes on. */
static int launch(const Launch *start) {
  char program[] = "test_threads";
  char argument[] = "started-anew";
  char *const argv[] = {program, argument, NULL};
  const pid_t child = fork();
  if (child == 0) {
    (void)unsetenv("OMP_WAIT_POLICY");
    (void)unsetenv("GOMP_SPINCOUNT");
    (void)unsetenv("OMP_NUM_THREADS");
    (void)unsetenv("OMPI_COMM_WORLD_LOCAL_SIZE");
    (void)unsetenv("MPI_LOCALNRANKS");
    (void)unsetenv("SLURM_STEP_TASKS_PER_NODE");
    if (start->name != NULL) (void)setenv(start->name, start->value, 1);
    if (start->environment != NULL) (void)setenv("OMP_NUM_THREADS", start->environment, 1);
    if (start->policy != NULL) (void)setenv("OMP_WAIT_POLICY", start->policy, 1);
    threads_wait_passively(start->configured, argv);
    _exit(NOT_STARTED);
  }
  int status = -1;
  assert_int_equal(waitpid(child, &status, 0), child);
  assert_true(WIFEXITED(status));
  return WEXITSTATUS(status);
}

static void test_crowded_ranks_start_anew(void **state) {
  (void)state;
  const Launch crowded[] = {
      {.name = "OMPI_COMM_WORLD_LOCAL_SIZE", .value = "4096", .configured = 2},
      {.name = "MPI_LOCALNRANKS", .value = "4096", .environment = "2"},
      {.name = "SLURM_STEP_TASKS_PER_NODE", .value = "4096(x2),1", .configured = 2, .environment = "1"},
  };
  for (size_t i = 0; i < sizeof crowded / sizeof crowded[0]; i++) {
    assert_int_equal(launch(&crowded[i]), STARTED_ANEW);
  }
}

static void test_others_go_on(void **state) {
  (void)state;
  const Launch others[] = {
      {.configured = 4096},                                                    /* no launcher */
      {.name = "MPI_LOCALNRANKS", .value = "4096"},                            /* their shares */
      {.name = "MPI_LOCALNRANKS", .value = "4096", .configured = 1},           /* no teams */
      {.name = "MPI_LOCALNRANKS", .value = "4096", .environment = "nonsense"}, /* refused later */
      {.name = "MPI_LOCALNRANKS", .value = "4096", .configured = 2, .policy = "active"},
      {.name = "MPI_LOCALNRANKS", .value = "0", .configured = 2},
  };
  for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
    assert_int_equal(launch(&others[i]), NOT_STARTED);
  }
}

int main(int argc, char **argv) {
  if (argc > 1 && strcmp(argv[1], "started-anew") == 0) return started_anew(argv);
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_cores_are_shared_out),
    cmocka_unit_test(test_fractions_add_up),
    cmocka_unit_test(test_bound_ranks_and_other_hosts),
    cmocka_unit_test(test_crowded_cores),
#if defined(_OPENMP)
    cmocka_unit_test(test_configured_or_from_the_environment),
    cmocka_unit_test(test_bad_numbers_are_refused),
    cmocka_unit_test(test_more_threads_than_cores_are_refused),
#else
    cmocka_unit_test(test_one_thread_without_openmp),
#endif
    cmocka_unit_test(test_crowded_ranks_start_anew),
    cmocka_unit_test(test_others_go_on),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
