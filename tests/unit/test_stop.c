/* Runs that are ended from outside: SIGTERM and SIGINT save and exit 75, the same command goes on, and after
 * any number of stops and kills the weights are those of a run that was left alone, bit for bit. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/support/compare.h"
#include "tests/support/program.h"
#include "tests/support/temp_dir.h"
#include "tests/support/training.h"
#include "tests/support/unit.h"

enum { STEPS = 60, KILLED = -1 };

/* What both kinds of run share. */
static const char *const OVERRIDES[] = {"train.steps=60", "checkpoint.every=7", "parallelism.ring=4",
                                        "train.sequence_schedule={0: 64, 30: 128}", NULL};

/* Starts `ringgpt train` for a configuration; its output goes to a file in the run's directory. */
static pid_t start(const Config *config) {
  char program[PATH_MAX];
  char run[CONFIG_TEXT_BYTES + 16];
  char train[CONFIG_TEXT_BYTES + 16];
  char val[CONFIG_TEXT_BYTES + 16];
  program_path(program);
  (void)snprintf(run, sizeof run, "run.dir=%s", config->run.dir);
  (void)snprintf(train, sizeof train, "data.train=%s", config->data.train);
  (void)snprintf(val, sizeof val, "data.val=%s", config->data.val);
  const pid_t child = fork();
  assert_true(child >= 0);
  if (child > 0) return child;
  const int sink = open("/dev/null", O_WRONLY);
  (void)dup2(sink, STDOUT_FILENO);
  (void)dup2(sink, STDERR_FILENO);
  (void)execl(program, program, "train", "configs/tiny.yaml", run, train, val, OVERRIDES[0], OVERRIDES[1],
              OVERRIDES[2], OVERRIDES[3], (char *)NULL);
  _exit(127);
}

/* The exit status, or KILLED. */
static int finish(pid_t child) {
  int status = 0;
  while (waitpid(child, &status, 0) < 0) assert_int_equal(errno, EINTR);
  return WIFEXITED(status) ? WEXITSTATUS(status) : KILLED;
}

static void sleep_ms(int64_t ms) {
  const struct timespec time = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
  (void)nanosleep(&time, NULL);
}

/* Waits until the run has recorded `steps` steps, or has ended by itself. */
static void wait_for_steps(const Config *config, pid_t child, int64_t steps) {
  char *path = training_path(config->run.dir, "metrics.jsonl");
  for (int i = 0; i < 6000; i++) {
    if (access(path, R_OK) == 0 && training_read_metrics(config).count >= steps) break;
    siginfo_t info = {0};
    if (waitid(P_PID, (id_t)child, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == child) break;
    sleep_ms(5);
  }
  free(path);
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
  wait_for_steps(&config, child, 10);
  assert_int_equal(kill(child, signal_number), 0);
  assert_int_equal(finish(child), STATUS_STOPPED);
  const int64_t done = training_read_metrics(&config).count;
  assert_in_range(done, 10, STEPS - 1);
  char *checkpoint = training_checkpoint(&config, done, "manifest.json");
  assert_int_equal(access(checkpoint, R_OK), 0);
  free(checkpoint);
  assert_int_equal(finish(start(&config)), STATUS_OK);
  assert_int_equal(training_read_metrics(&config).count, STEPS);
  training_same_state(&whole, &config, STEPS);
}

static void test_terminate(void **state) {
  check_stop(training_directory(state), "terminated", SIGTERM);
}

static void test_interrupt(void **state) {
  check_stop(training_directory(state), "interrupted", SIGINT);
}

/* Killed at random instants, among them in the middle of saving, until it gets through. */
static void test_kill(void **state) {
  const char *directory = training_directory(state);
  const Config whole = undisturbed(directory);
  const Config config = training_config(directory, "killed", OVERRIDES);
  Random random = {17};
  for (int i = 0; i < 12; i++) {
    const pid_t child = start(&config);
    sleep_ms(20 + random_below(&random, 150));
    (void)kill(child, SIGKILL);
    (void)finish(child);
  }
  assert_int_equal(finish(start(&config)), STATUS_OK);
  assert_int_equal(training_read_metrics(&config).count, STEPS);
  training_same_state(&whole, &config, STEPS);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_terminate),
      cmocka_unit_test(test_interrupt),
      cmocka_unit_test(test_kill),
  };
  return cmocka_run_group_tests(tests, training_set_up, temp_dir_tear_down);
}
