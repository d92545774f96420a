/* Runs that are ended from outside: SIGTERM and SIGINT save and exit 75, the same command goes on, and after
 * any number of stops and kills the weights are those of a run that was left alone, bit for bit. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kernels/base/clock.h"
#include "tests/support/compare.h"
#include "tests/support/launch.h"
#include "tests/support/temp_dir.h"
#include "tests/support/training.h"
#include "tests/support/unit.h"

enum { STEPS = 60 };

/* What both kinds of run share. */
static const char *const OVERRIDES[] = {"train.steps=60",       "checkpoint.every=7",
                                        "parallelism.ring=4",   "train.sequence_schedule={0: 64, 30: 128}",
                                        "model.hidden_size=32", NULL};

static pid_t start_with(const Config *config, const char *const overrides[]) {
  return launch_start(&(Launch){.config = config, .overrides = overrides});
}

static pid_t start(const Config *config) {
  return start_with(config, OVERRIDES);
}

/* Waits until the child has made a step of its own, so that it surely watches signals, and `steps` are
 * recorded in all; `before` were when it started. */
static void wait_for_own_steps(const Config *config, pid_t child, int64_t before, int64_t steps) {
  launch_wait_for_steps(config, child, before < steps ? steps : before + 1);
}

static Config undisturbed(const char *directory) {
  const Config config = training_config(directory, "undisturbed", OVERRIDES);
  char *path = training_checkpoint(&config, STEPS, "manifest.json");
  if (access(path, R_OK) != 0) (void)training_metrics(&config);
  free(path);
  return config;
}

static void check_stop(const char *directory, const char *name, int signal_number) {
  const Config whole = undisturbed(directory);
  const Config config = training_config(directory, name, OVERRIDES);
  const pid_t child = start(&config);
  launch_wait_for_steps(&config, child, 10);
  assert_int_equal(kill(child, signal_number), 0);
  assert_int_equal(launch_finish(child), STATUS_STOPPED);
  const int64_t done = training_read_metrics(&config).count;
  assert_in_range(done, 10, STEPS - 1);
  char *checkpoint = training_checkpoint(&config, done, "manifest.json");
  assert_int_equal(access(checkpoint, R_OK), 0);
  free(checkpoint);
  assert_int_equal(launch_finish(start(&config)), STATUS_OK);
  assert_int_equal(training_read_metrics(&config).count, STEPS);
  training_same_state(&whole, &config, STEPS);
}

static void test_terminate(void **state) {
  check_stop(training_directory(state), "terminated", SIGTERM);
}

static void test_user_signal(void **state) {
  check_stop(training_directory(state), "user", SIGUSR1);
}

static void test_interrupt(void **state) {
  check_stop(training_directory(state), "interrupted", SIGINT);
}

/* Killed at random instants, ever later, among them in the middle of saving, until it gets through. */
static void test_kill(void **state) {
  const char *directory = training_directory(state);
  const Config whole = undisturbed(directory);
  const Config config = training_config(directory, "killed", OVERRIDES);
  Random random = {17};
  for (int i = 0; i < 10; i++) {
    const pid_t child = start(&config);
    launch_wait_for_steps(&config, child, 5 * i + random_below(&random, 10));
    launch_sleep_ms(random_below(&random, 15));
    (void)kill(child, SIGKILL);
    (void)launch_finish(child);
  }
  assert_int_equal(launch_finish(start(&config)), STATUS_OK);
  assert_int_equal(training_read_metrics(&config).count, STEPS);
  training_same_state(&whole, &config, STEPS);
  char *log = training_path(config.run.dir, "log.txt");
  char *text = temp_file_read_text(log);
  assert_non_null(strstr(text, "resumed from"));
  free(text);
  free(log);
}

/* Waits until the run has opened its log: from then on signals are watched. */
static void wait_for_log(const Config *config) {
  char *log = training_path(config->run.dir, "log.txt");
  for (int i = 0; i < 4000 && access(log, R_OK) != 0; i++) launch_sleep_ms(5);
  assert_int_equal(access(log, R_OK), 0);
  free(log);
}

/* Signals of both kinds every few milliseconds until the run has ended, or for most of a second. */
static void shower(pid_t child, int64_t gap_ms) {
  const double begin = clock_seconds();
  siginfo_t info = {0};
  for (int i = 0; info.si_pid != child && clock_seconds() - begin < 0.8; i++) {
    assert_int_equal(kill(child, i % 2 == 0 ? SIGTERM : SIGUSR1), 0);
    launch_sleep_ms(gap_ms);
    assert_int_equal(waitid(P_PID, (id_t)child, &info, WEXITED | WNOHANG | WNOWAIT), 0);
  }
}

/* A launcher and a scheduler hand on one request each: signals that come at nearly the same time are one, to
 * the very end of the program. */
static void test_repeated_signal(void **state) {
  const int gaps_ms[] = {10, 1, 0};
  const Config whole = undisturbed(training_directory(state));
  const Config config = training_config(training_directory(state), "repeated", OVERRIDES);
  for (int i = 0; i < 3; i++) {
    const int64_t before = launch_recorded_steps(&config);
    const pid_t child = start(&config);
    wait_for_own_steps(&config, child, before, 10 * (i + 1));
    shower(child, gaps_ms[i]);
    assert_int_equal(launch_finish(child), STATUS_STOPPED);
  }
  assert_int_equal(launch_finish(start(&config)), STATUS_OK);
  training_same_state(&whole, &config, STEPS);
}

/* In a step of many seconds the first signal waits for its end, one behind it is the same, and one that comes
 * more than a second later does not wait. */
static void test_second_signal(void **state) {
  const char *const overrides[] = {"train.sequence_length=32768", "train.micro_batch_size=1",
                                   "train.global_batch_size=8", "train.steps=3", NULL};
  const Config config = training_config(training_directory(state), "twice", overrides);
  const pid_t child = start_with(&config, overrides);
  wait_for_log(&config);
  assert_int_equal(kill(child, SIGTERM), 0);
  launch_sleep_ms(10);
  assert_int_equal(kill(child, SIGTERM), 0);
  launch_sleep_ms(1200);
  assert_int_equal(kill(child, 0), 0);
  assert_int_equal(kill(child, SIGTERM), 0);
  assert_int_equal(launch_finish(child), LAUNCH_KILLED);
}

/* SIGUSR2, which ends the watch from inside, must not switch it off from outside. */
static void test_foreign_signal(void **state) {
  const Config config = training_config(training_directory(state), "foreign", OVERRIDES);
  const pid_t child = start(&config);
  launch_wait_for_steps(&config, child, 3);
  assert_int_equal(kill(child, SIGUSR2), 0);
  launch_wait_for_steps(&config, child, 6);
  assert_int_equal(kill(child, SIGTERM), 0);
  assert_int_equal(launch_finish(child), STATUS_STOPPED);
}

/* A reader of the output that goes away does not take the run with it. */
static void test_closed_output(void **state) {
  int ends[2];
  assert_int_equal(pipe(ends), 0);
  const Config config = training_config(training_directory(state), "closed", OVERRIDES);
  assert_int_equal(close(ends[0]), 0);
  const pid_t child = launch_start(&(Launch){.config = &config, .overrides = OVERRIDES, .output = ends[1]});
  assert_int_equal(close(ends[1]), 0);
  assert_int_equal(launch_finish(child), STATUS_OK);
  assert_int_equal(training_read_metrics(&config).count, STEPS);
}

static int64_t count_evaluations(const Config *config) {
  char *path = training_path(config->run.dir, "metrics.jsonl");
  char *text = temp_file_read_text(path);
  int64_t count = 0;
  for (const char *at = strstr(text, "\"eval\""); at != NULL; at = strstr(at + 1, "\"eval\"")) count++;
  free(text);
  free(path);
  return count;
}

/* Every evaluation is recorded once, however often the run is stopped. */
static void test_evaluations_survive_stops(void **state) {
  const char *const overrides[] = {"train.steps=30",  "eval.every=2",         "eval.contexts=[64, 128, 300]",
                                   "eval.tokens=600", "model.hidden_size=32", NULL};
  const Config config = training_config(training_directory(state), "evaluated", overrides);
  Random random = {23};
  int status = STATUS_STOPPED;
  for (int i = 0; i < 40 && status == STATUS_STOPPED; i++) {
    const int64_t before = launch_recorded_steps(&config);
    const pid_t child = start_with(&config, overrides);
    wait_for_own_steps(&config, child, before, 4 * (i + 1));
    launch_sleep_ms(random_below(&random, 8));
    (void)kill(child, i < 8 ? SIGTERM : 0);
    status = launch_finish(child);
  }
  assert_int_equal(status, STATUS_OK);
  assert_int_equal(training_read_metrics(&config).count, 30);
  assert_int_equal(count_evaluations(&config), 15 * 3);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_terminate),
      cmocka_unit_test(test_interrupt),
      cmocka_unit_test(test_user_signal),
      cmocka_unit_test(test_kill),
      cmocka_unit_test(test_repeated_signal),
      cmocka_unit_test(test_second_signal),
      cmocka_unit_test(test_foreign_signal),
      cmocka_unit_test(test_closed_output),
      cmocka_unit_test(test_evaluations_survive_stops),
  };
  return cmocka_run_group_tests(tests, training_set_up, temp_dir_tear_down);
}
