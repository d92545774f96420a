/* Evaluations that a signal ends in the middle of a long window: within seconds, with exit code 75, a line
 * that says how far they came, and the results of the contexts that were finished, over threads and
 * processes. */
#include <jansson.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernels/base/clock.h"
#include "tests/support/launch.h"
#include "tests/support/shards.h"
#include "tests/support/temp_dir.h"
#include "tests/support/training.h"
#include "tests/support/unit.h"

enum { LONG_CONTEXT = 262144, SET_TOKENS = LONG_CONTEXT + 1, TRAINED_STEPS = 1 };

/* The long window takes minutes; this is soon after the signal, on a busy machine too. */
#define SOON_SECONDS 10.0

/* ---------------------------------------------------------------- the evaluation */

typedef struct Evaluation {
  Config config; /* of the run whose checkpoint is evaluated */
  char *checkpoint;
  char *json;
  char *output;
  char *errors;
} Evaluation;

static Evaluation prepare(void **state, const char *name) {
  const char *directory = training_directory(state);
  const char *const overrides[] = {"train.steps=1", "data.document_mask=false", NULL};
  Evaluation out = {.config = training_config(directory, "trained", overrides)};
  out.checkpoint = training_checkpoint(&out.config, TRAINED_STEPS, "");
  char *set = training_path(directory, "long.bin");
  if (access(set, R_OK) != 0) {
    int32_t *tokens = shards_tokens(SET_TOKENS, 256);
    shards_write(set, FORM_PLAIN, tokens, SET_TOKENS, 2);
    free(tokens);
    (void)training_metrics(&out.config);
  }
  (void)snprintf(out.config.data.val, sizeof out.config.data.val, "%s", set);
  /* Of this test alone: what the ranks write beside the run. */
  const int length = snprintf(out.config.run.dir, sizeof out.config.run.dir, "%s/%s", directory, name);
  assert_in_range(length, 1, sizeof out.config.run.dir - 1);
  char *files[3];
  const char *const endings[] = {"json", "out", "err"};
  for (int i = 0; i < 3; i++) assert_true(asprintf(&files[i], "%s/%s.%s", directory, name, endings[i]) > 0);
  out.json = files[0];
  out.output = files[1];
  out.errors = files[2];
  free(set);
  return out;
}

static void release(Evaluation *evaluation) {
  free(evaluation->checkpoint);
  free(evaluation->json);
  free(evaluation->output);
  free(evaluation->errors);
}

/* At 64 tokens, and at 262,144 for minutes. */
static pid_t start(const Evaluation *evaluation, const char *const grid[2], int processes) {
  const char *const arguments[] = {"--checkpoint",
                                   evaluation->checkpoint,
                                   "--context",
                                   "64,262144",
                                   "--json",
                                   evaluation->json,
                                   "eval.tokens=640",
                                   "data.document_mask=false",
                                   "train.micro_batch_size=1",
                                   "train.mlp_chunk=4096",
                                   grid[0],
                                   grid[1],
                                   NULL};
  FILE *output = fopen(evaluation->output, "w");
  assert_non_null(output);
  const pid_t child = launch_start(&(Launch){.command = "eval",
                                             .config = &evaluation->config,
                                             .overrides = arguments,
                                             .processes = processes,
                                             .output = fileno(output),
                                             .errors = evaluation->errors});
  assert_int_equal(fclose(output), 0);
  return child;
}

/* Seconds of processor time that a process has used, in all its threads. */
static double used_seconds(pid_t pid) {
  char path[64];
  char text[1024] = "";
  (void)snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
  FILE *file = fopen(path, "r");
  if (file == NULL) return 0.0;
  (void)fgets(text, sizeof text, file);
  (void)fclose(file);
  /* Fields 14 and 15, counted from the state, the third, behind the name. */
  char *at = strrchr(text, ')');
  for (int field = 2; at != NULL && field < 14; field++) at = strchr(at + 1, ' ');
  if (at == NULL) return 0.0;
  const long user = strtol(at, &at, 10);
  return (double)(user + strtol(at, NULL, 10)) / (double)sysconf(_SC_CLK_TCK);
}

/* Waits until a rank has computed for `seconds`. */
static void wait_for_work(pid_t pid, double seconds) {
  for (int i = 0; i < 12000 && used_seconds(pid) < seconds; i++) launch_sleep_ms(10);
  assert_true(used_seconds(pid) >= seconds);
}

/* ---------------------------------------------------------------- what it leaves */

static void check_end(const Evaluation *evaluation) {
  char *errors = temp_file_read_text(evaluation->errors);
  char *output = temp_file_read_text(evaluation->output);
  if (strstr(errors, "stopped by a signal in context 262,144, window 1 of 1, ") == NULL ||
      strstr(errors, "; 1 of 2 contexts are finished") == NULL) {
    fail_msg("it says: %s", errors);
  }
  assert_non_null(strstr(output, "context 64, 10 windows"));
  assert_null(strstr(output, "context 262,144"));
  free(output);
  free(errors);
  json_t *root = json_load_file(evaluation->json, 0, NULL);
  assert_true(json_is_false(json_object_get(root, "complete")));
  const json_t *contexts = json_object_get(root, "contexts");
  assert_int_equal(json_array_size(contexts), 1);
  assert_int_equal(json_integer_value(json_object_get(json_array_get(contexts, 0), "context")), 64);
  json_decref(root);
}

/* ---------------------------------------------------------------- the tests */

/* Whom a signal is sent to: a rank that mpirun started, or what the test has started itself. */
enum { THE_CHILD = -1 };

/* Stops an evaluation after `seconds` of work; true when it was in the long window by then. */
static bool stop_after(const Evaluation *evaluation, const char *const grid[2], int processes, int told,
                       int signal_number, double seconds) {
  for (int i = 0; i < processes; i++) {
    char name[CONFIG_TEXT_BYTES + 32];
    (void)snprintf(name, sizeof name, "%s.pid.%d", evaluation->config.run.dir, i);
    (void)unlink(name); /* of a try before */
  }
  const pid_t child = start(evaluation, grid, processes);
  const pid_t first = processes > 0 ? launch_rank_pid(&evaluation->config, 0) : child;
  const pid_t receiver = told == THE_CHILD ? child : launch_rank_pid(&evaluation->config, told);
  wait_for_work(first, seconds);
  assert_int_equal(kill(receiver, signal_number), 0);
  const double begin = clock_seconds();
  assert_int_equal(launch_finish(child), STATUS_STOPPED);
  assert_true(clock_seconds() - begin < SOON_SECONDS);
  for (int i = 0; i < processes; i++) assert_true(launch_gone(launch_rank_pid(&evaluation->config, i)));
  char *errors = temp_file_read_text(evaluation->errors);
  const bool early = strstr(errors, "; 0 of 2 contexts are finished") != NULL;
  free(errors);
  return !early;
}

/* How much work lies before the long window depends on the machine: what was stopped earlier is tried again.
 */
static void check_stop(void **state, const char *name, const char *const grid[2], int processes, int told,
                       int signal_number) {
  Evaluation evaluation = prepare(state, name);
  double seconds = 3.0;
  while (!stop_after(&evaluation, grid, processes, told, signal_number, seconds)) {
    seconds *= 2.0;
    assert_true(seconds < 50.0);
  }
  check_end(&evaluation);
  release(&evaluation);
}

static void test_interrupt(void **state) {
  check_stop(state, "one", (const char *const[]){"parallelism.ring=1", "parallelism.data=1"}, 0, THE_CHILD,
             SIGINT);
}

/* The second ring has no window of the long context and waits for the first. */
static void test_terminate_rings(void **state) {
  check_stop(state, "rings", (const char *const[]){"parallelism.ring=2", "parallelism.data=2"}, 0, THE_CHILD,
             SIGTERM);
}

/* Of several processes one alone is told: it takes the others with it. */
static void test_process_of_rank_1(void **state) {
  if (RINGGPT_MPI == 0) skip();
  check_stop(state, "process1", (const char *const[]){"parallelism.ring=2", "parallelism.data=1"}, 2, 1,
             SIGTERM);
}

/* What mpirun hands on reaches all of them at nearly the same time. */
static void test_mpirun(void **state) {
  if (RINGGPT_MPI == 0) skip();
  check_stop(state, "mpirun", (const char *const[]){"parallelism.ring=2", "parallelism.data=1"}, 2, THE_CHILD,
             SIGUSR1);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_interrupt),
      cmocka_unit_test(test_terminate_rings),
      cmocka_unit_test(test_process_of_rank_1),
      cmocka_unit_test(test_mpirun),
  };
  return cmocka_run_group_tests(tests, training_set_up, temp_dir_tear_down);
}
