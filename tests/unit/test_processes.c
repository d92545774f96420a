/* The program over MPI: ranks that are processes give the bits of ranks that are threads, stop and go on
 * alike, and end together, with one message, when one of them fails, dies or hangs. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tests/support/grids.h"
#include "tests/support/launch.h"
#include "tests/support/temp_dir.h"
#include "tests/support/training.h"
#include "tests/support/unit.h"

#define MOST_OVERRIDES 24

/* Overrides, a list ended by NULL, with the grid in front. */
typedef struct Overrides {
  char grid[2][48];
  const char *list[MOST_OVERRIDES];
} Overrides;

static void overrides_make(Overrides *out, int ring, int data, const char *const others[]) {
  int count = 0;
  (void)snprintf(out->grid[0], sizeof out->grid[0], "parallelism.ring=%d", ring);
  (void)snprintf(out->grid[1], sizeof out->grid[1], "parallelism.data=%d", data);
  out->list[count++] = out->grid[0];
  out->list[count++] = out->grid[1];
  for (int i = 0; others[i] != NULL && count < MOST_OVERRIDES - 1; i++) out->list[count++] = others[i];
  out->list[count] = NULL;
}

/* Runs to the end, as threads (processes 0) or over mpirun. */
static void run(const Config *config, const Overrides *overrides, int processes, int expected) {
  char errors[CONFIG_TEXT_BYTES + 16];
  (void)snprintf(errors, sizeof errors, "%s.errors", config->run.dir);
  const Launch launch = {
      .config = config, .overrides = overrides->list, .processes = processes, .errors = errors};
  const int status = launch_finish(launch_start(&launch));
  if (status == expected) return;
  char *text = temp_file_read_text(errors);
  fail_msg("%s: status %d, expected %d: %s", config->run.dir, status, expected, text);
}

static void same_metrics(const Config *a, const Config *b) {
  const Metrics left = training_read_metrics(a);
  const Metrics right = training_read_metrics(b);
  assert_true(left.count > 0);
  assert_memory_equal(&left, &right, sizeof left);
}

/* ---------------------------------------------------------------- the same bits */

static void check_grid(const char *directory, int ring, int data) {
  static const char *const others[] = {"train.steps=4", "checkpoint.every=0", NULL};
  char names[2][64];
  Overrides overrides;
  overrides_make(&overrides, ring, data, others);
  (void)snprintf(names[0], sizeof names[0], "threads-%d-%d", ring, data);
  (void)snprintf(names[1], sizeof names[1], "processes-%d-%d", ring, data);
  const Config threads = training_config(directory, names[0], overrides.list);
  const Config processes = training_config(directory, names[1], overrides.list);
  run(&threads, &overrides, 0, STATUS_OK);
  run(&processes, &overrides, ring * data, STATUS_OK);
  same_metrics(&threads, &processes);
  training_same_state(&threads, &processes, 4);
}

static void test_same_bits(void **state) {
  const char *directory = training_directory(state);
  const int most = test_wants_small() ? 4 : 16; /* processes */
  for (int ring = 1; ring <= 8; ring++) {
    for (int data = 1; data <= 2; data++) {
      /* One process is a run of threads. */
      if (ring * data > 1 && ring * data <= most) check_grid(directory, ring, data);
    }
  }
}

/* The results of an evaluation, as JSON: the same text. */
static void test_evaluation(void **state) {
  const char *directory = training_directory(state);
  static const char *const others[] = {"train.steps=2", "checkpoint.every=0", NULL};
  Overrides overrides;
  overrides_make(&overrides, 2, 2, others);
  const Config config = training_config(directory, "evaluated", overrides.list);
  run(&config, &overrides, 4, STATUS_OK);
  char *checkpoint = training_checkpoint(&config, 2, "");
  char *texts[2] = {NULL};
  for (int i = 0; i < 2; i++) {
    char *json = training_path(directory, i == 0 ? "threads.json" : "processes.json");
    const char *const arguments[] = {"parallelism.ring=2",
                                     "parallelism.data=2",
                                     "--checkpoint",
                                     checkpoint,
                                     "--context",
                                     "64,300",
                                     "--json",
                                     json,
                                     NULL};
    const Launch launch = {
        .command = "eval", .config = &config, .overrides = arguments, .processes = i == 0 ? 0 : 4};
    assert_int_equal(launch_finish(launch_start(&launch)), STATUS_OK);
    texts[i] = temp_file_read_text(json);
    free(json);
  }
  assert_string_equal(texts[0], texts[1]);
  assert_non_null(strstr(texts[0], "perplexity"));
  free(texts[0]);
  free(texts[1]);
  free(checkpoint);
}

/* One run that changes its transport and its grid at every resume: the exact next samples, and losses that
 * differ from those of a run on one grid by rounding alone. */
static void test_changing_grids(void **state) {
  const struct {
    int ring, data, processes;
    const char *steps;
  } parts[] = {{2, 1, 0, "train.steps=5"},
               {2, 2, 4, "train.steps=10"},
               {3, 1, 0, "train.steps=15"},
               {4, 1, 4, "train.steps=20"}};
  const char *directory = training_directory(state);
  const char *const same[] = {"parallelism.ring=1", "train.dropout=0.1", "scheduler.name=constant", NULL};
  const Config whole = training_config(directory, "unchanged", same);
  const Metrics expected = training_metrics(&whole);
  const Config config = training_config(directory, "changing", same);
  for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
    const char *const others[] = {"train.dropout=0.1", "scheduler.name=constant", parts[i].steps, NULL};
    Overrides overrides;
    overrides_make(&overrides, parts[i].ring, parts[i].data, others);
    run(&config, &overrides, parts[i].processes, STATUS_OK);
  }
  const Metrics got = training_read_metrics(&config);
  assert_int_equal(got.count, 20);
  grids_check_metrics("a run that changes its grid", &got, &expected);
}

/* ---------------------------------------------------------------- stopping and dying */

static const char *const LONG_RUN[] = {"train.steps=40", "checkpoint.every=5", NULL};

static Config undisturbed(const char *directory, Overrides *overrides) {
  overrides_make(overrides, 3, 1, LONG_RUN);
  const Config config = training_config(directory, "undisturbed", overrides->list);
  char *path = training_checkpoint(&config, 40, "manifest.json");
  if (access(path, R_OK) != 0) run(&config, overrides, 0, STATUS_OK);
  free(path);
  return config;
}

/* A signal to one rank that is not the first: all save at the same step, and the same command goes on. */
static void test_stop_of_one_rank(void **state) {
  const char *directory = training_directory(state);
  Overrides overrides;
  const Config whole = undisturbed(directory, &overrides);
  const Config config = training_config(directory, "stopped", overrides.list);
  const pid_t child = launch_start(&(Launch){.config = &config, .overrides = overrides.list, .processes = 3});
  launch_wait_for_steps(&config, child, 6);
  assert_int_equal(kill(launch_rank_pid(&config, 2), SIGTERM), 0);
  assert_int_equal(launch_finish(child), STATUS_STOPPED);
  const int64_t done = training_read_metrics(&config).count;
  assert_in_range(done, 6, 39);
  run(&config, &overrides, 3, STATUS_OK);
  same_metrics(&whole, &config);
  training_same_state(&whole, &config, 40);
}

/* mpirun hands SIGUSR1 on to every rank, at nearly the same time. */
static void test_stop_of_mpirun(void **state) {
  const char *directory = training_directory(state);
  Overrides overrides;
  const Config whole = undisturbed(directory, &overrides);
  const Config config = training_config(directory, "stopped-mpirun", overrides.list);
  const pid_t child = launch_start(&(Launch){.config = &config, .overrides = overrides.list, .processes = 3});
  launch_wait_for_steps(&config, child, 6);
  assert_int_equal(kill(child, SIGUSR1), 0);
  assert_int_equal(launch_finish(child), STATUS_STOPPED);
  const int64_t done = training_read_metrics(&config).count;
  assert_in_range(done, 6, 39);
  char *checkpoint = training_checkpoint(&config, done, "manifest.json");
  assert_int_equal(access(checkpoint, R_OK), 0);
  free(checkpoint);
  run(&config, &overrides, 3, STATUS_OK);
  training_same_state(&whole, &config, 40);
}

/* Once told to end, mpirun reads no more of what the ranks show, sends them SIGTERM a while later, and as
 * much later kills them: by then they have saved. */
static void test_end_of_mpirun(void **state) {
  const char *directory = training_directory(state);
  static const char *const others[] = {"train.steps=1000000", "checkpoint.every=0", NULL};
  Overrides overrides;
  overrides_make(&overrides, 2, 1, others);
  const Config config = training_config(directory, "ended-mpirun", overrides.list);
  char *log = training_path(config.run.dir, "log.txt");
  (void)setenv("OMPI_MCA_odls_base_sigkill_timeout", "3", 1);
  const pid_t child = launch_start(&(Launch){.config = &config, .overrides = overrides.list, .processes = 2});
  (void)unsetenv("OMPI_MCA_odls_base_sigkill_timeout");
  for (int i = 0; i < 2000 && access(log, R_OK) != 0; i++) launch_sleep_ms(5);
  launch_sleep_ms(500);
  assert_int_equal(kill(child, SIGTERM), 0);
  assert_int_not_equal(launch_finish(child), STATUS_OK);
  char *text = temp_file_read_text(log);
  if (strstr(text, "saved checkpoint step_") == NULL) fail_msg("lost: %s", text);
  free(text);
  free(log);
}

/* Seconds from `begin` on. */
static double seconds_since(const struct timespec *begin) {
  struct timespec now;
  (void)clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)(now.tv_sec - begin->tv_sec) + 1e-9 * (double)(now.tv_nsec - begin->tv_nsec);
}

/* A rank that is killed takes the others with it, and nothing is lost. */
static void test_killed_rank(void **state) {
  const char *directory = training_directory(state);
  Overrides overrides;
  struct timespec begin;
  const Config whole = undisturbed(directory, &overrides);
  const Config config = training_config(directory, "killed", overrides.list);
  const pid_t child = launch_start(&(Launch){.config = &config, .overrides = overrides.list, .processes = 3});
  launch_wait_for_steps(&config, child, 12);
  const pid_t others[2] = {launch_rank_pid(&config, 0), launch_rank_pid(&config, 2)};
  assert_int_equal(kill(launch_rank_pid(&config, 1), SIGKILL), 0);
  (void)clock_gettime(CLOCK_MONOTONIC, &begin);
  assert_int_equal(launch_finish(child), 128 + SIGKILL);
  assert_true(seconds_since(&begin) < 10.0);
  for (int i = 0; i < 2; i++) assert_true(launch_gone(others[i]));
  run(&config, &overrides, 3, STATUS_OK);
  training_same_state(&whole, &config, 40);
}

static int count_messages(const char *text, const char *what) {
  int count = 0;
  for (const char *at = strstr(text, what); at != NULL; at = strstr(at + 1, what)) count++;
  return count;
}

/* Whether the error names `rank`, alone or among others: a rank that waits for it may be missed as well. */
static bool names_rank(const char *text, int rank) {
  char forms[3][16];
  (void)snprintf(forms[0], sizeof forms[0], "rank %d ", rank);
  (void)snprintf(forms[1], sizeof forms[1], "ranks %d,", rank);
  (void)snprintf(forms[2], sizeof forms[2], ", %d ", rank);
  return strstr(text, forms[0]) != NULL || strstr(text, forms[1]) != NULL || strstr(text, forms[2]) != NULL;
}

/* A rank that hangs is found out: the others name it and the operation, and end. */
static void check_hanging(const char *directory, int rank) {
  static const char *const others[] = {"train.steps=400", "parallelism.timeout=2", NULL};
  Overrides overrides;
  overrides_make(&overrides, 3, 1, others);
  char name[16];
  (void)snprintf(name, sizeof name, "hanging-%d", rank);
  const Config config = training_config(directory, name, overrides.list);
  char *errors = training_path(directory, "hanging.errors");
  const pid_t child = launch_start(
      &(Launch){.config = &config, .overrides = overrides.list, .processes = 3, .errors = errors});
  launch_wait_for_steps(&config, child, 3);
  const pid_t hanging = launch_rank_pid(&config, rank);
  assert_int_equal(kill(hanging, SIGSTOP), 0);
  assert_int_equal(launch_finish(child), STATUS_SYSTEM);
  assert_true(launch_gone(hanging));
  char *text = temp_file_read_text(errors);
  if (count_messages(text, "ringgpt: ") != 1 || !names_rank(text, rank)) fail_msg("%s", text);
  free(text);
  free(errors);
}

static void test_hanging_rank(void **state) {
  const char *directory = training_directory(state);
  check_hanging(directory, 1);
  /* The one that else speaks for all. */
  check_hanging(directory, 0);
}

/* A job that is suspended for longer than the timeout goes on. */
static void test_suspended(void **state) {
  const char *directory = training_directory(state);
  static const char *const others[] = {"train.steps=60", "checkpoint.every=5", "parallelism.timeout=2", NULL};
  Overrides overrides;
  overrides_make(&overrides, 3, 1, others);
  const Config config = training_config(directory, "suspended", overrides.list);
  pid_t ranks[3];
  const pid_t child = launch_start(&(Launch){.config = &config, .overrides = overrides.list, .processes = 3});
  launch_wait_for_steps(&config, child, 1);
  for (int rank = 0; rank < 3; rank++) ranks[rank] = launch_rank_pid(&config, rank);
  for (int rank = 0; rank < 3; rank++) assert_int_equal(kill(ranks[rank], SIGSTOP), 0);
  launch_sleep_ms(4500);
  for (int rank = 0; rank < 3; rank++) assert_int_equal(kill(ranks[rank], SIGCONT), 0);
  assert_int_equal(launch_finish(child), STATUS_OK);
  assert_int_equal(training_read_metrics(&config).count, 60);
}

/* ---------------------------------------------------------------- one message */

static void check_message(const char *directory, const char *name, int processes, const char *const others[],
                          int expected, const char *what) {
  Overrides overrides;
  overrides_make(&overrides, 3, 1, others);
  Config config = training_config(directory, name, (const char *const[]){NULL});
  char *errors = training_path(directory, "message");
  const Launch launch = {
      .config = &config, .overrides = overrides.list, .processes = processes, .errors = errors};
  const int status = launch_finish(launch_start(&launch));
  char *text = temp_file_read_text(errors);
  if (status != expected || count_messages(text, "ringgpt: ") != 1 || strstr(text, what) == NULL) {
    fail_msg("%s: status %d, expected %d and '%s': %s", name, status, expected, what, text);
  }
  free(text);
  free(errors);
}

static void test_one_message(void **state) {
  const char *directory = training_directory(state);
  check_message(directory, "two", 2, (const char *const[]){NULL}, STATUS_CONFIG,
                "needs 3 ranks, but 2 were started");
  check_message(directory, "bad", 3, (const char *const[]){"train.stesp=3", NULL}, STATUS_CONFIG,
                "train.steps");
  check_message(directory, "usage", 3, (const char *const[]){"--nonsense", NULL}, STATUS_USAGE, "--nonsense");
  check_message(directory, "none", 3, (const char *const[]){"data.train=nowhere_*.bin", NULL},
                STATUS_NO_INPUT, "nowhere_*.bin");
  check_message(directory, "local", 3, (const char *const[]){"parallelism.transport=local", NULL},
                STATUS_CONFIG, "3 processes were started");
  check_message(directory, "alone", 0, (const char *const[]){"parallelism.transport=mpi", NULL},
                STATUS_CONFIG, "mpirun -n 3");
}

/* A command for one process does nothing as one of several. */
static void test_command_for_one_process(void **state) {
  const char *directory = training_directory(state);
  char *out = training_path(directory, "prepared-twice");
  char *errors = training_path(directory, "prepared-twice.errors");
  const Config config = training_config(directory, "prepared", (const char *const[]){NULL});
  const char *const arguments[] = {"--out", out, NULL};
  const Launch launch = {
      .command = "prepare", .config = &config, .overrides = arguments, .processes = 2, .errors = errors};
  assert_int_equal(launch_finish(launch_start(&launch)), STATUS_USAGE);
  assert_int_not_equal(access(out, F_OK), 0);
  char *text = temp_file_read_text(errors);
  if (count_messages(text, "ringgpt: prepare runs as one process: start it without mpirun\n") != 1) {
    fail_msg("%s", text);
  }
  free(text);
  free(errors);
  free(out);
}

/* Instead of all others in a build without MPI. */
static void test_without_mpi(void **state) {
  (void)state;
  skip();
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_same_bits),
      cmocka_unit_test(test_evaluation),
      cmocka_unit_test(test_changing_grids),
      cmocka_unit_test(test_stop_of_one_rank),
      cmocka_unit_test(test_stop_of_mpirun),
      cmocka_unit_test(test_end_of_mpirun),
      cmocka_unit_test(test_killed_rank),
      cmocka_unit_test(test_hanging_rank),
      cmocka_unit_test(test_suspended),
      cmocka_unit_test(test_one_message),
      cmocka_unit_test(test_command_for_one_process),
  };
  const struct CMUnitTest skipped[] = {cmocka_unit_test(test_without_mpi)};
  if (!RINGGPT_MPI) return cmocka_run_group_tests(skipped, NULL, NULL);
  return cmocka_run_group_tests(tests, training_set_up, temp_dir_tear_down);
}
