/* The directory of a run: records that keep all bits, exactly one for each step over any number of starts,
 * the lock, the terminal. */
#include <fcntl.h>
#include <jansson.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kernels/base/clock.h"
#include "kernels/base/file.h"
#include "tests/support/expect.h"
#include "tests/support/temp_dir.h"
#include "tests/support/unit.h"
#include "train/progress.h"
#include "train/run_log.h"

static TempDir directory;
static const char *metrics;
static Config config;

static int setup(void **state) {
  (void)state;
  Error error = {0};
  directory = temp_dir_create();
  const char *yaml = temp_dir_path(&directory, "x.yaml"), *run = temp_dir_path(&directory, "runs/a run");
  temp_file_write_text(yaml, "data: {train: shards}\ntrain: {steps: 20}\n");
  expect_ok(config_load(yaml, NULL, 0, &config, &error), &error);
  (void)snprintf(config.run.dir, sizeof config.run.dir, "%s", run);
  metrics = temp_dir_path(&directory, "runs/a run/metrics.jsonl");
  return 0;
}

static int teardown(void **state) {
  (void)state;
  temp_dir_remove(&directory);
  return 0;
}

static RunLog *start(int64_t steps_done, FILE *terminal) {
  RunLog *log;
  Error error = {0};
  expect_ok(run_log_open(&config, terminal, &log, &error), &error);
  expect_ok(run_log_begin(log, &config, steps_done, &error), &error);
  return log;
}

static StepRecord record_of(int64_t step) {
  return (StepRecord){.step = step,
                      .loss = 0.1 + 0.2 + (double)step,
                      .learning_rate = 1e-4 / 3,
                      .grad_norm = M_PI,
                      .tokens = step * 1024,
                      .sequence_length = 1024,
                      .tokens_per_second = 12345.6,
                      .step_ms = 83.1,
                      .exposed_comm_ms = 0.25,
                      .skew_ms = 0.125,
                      .balance = 1.0625};
}

static void write_steps(RunLog *log, int64_t first, int64_t last) {
  for (int64_t step = first; step <= last; step++) {
    const StepRecord record = record_of(step);
    Error error = {0};
    expect_ok(run_log_step(log, &record, &error), &error);
  }
}

static void write_eval(RunLog *log, int64_t step) {
  const EvalRecord record = {step, 4096, 3, 12288, 1.0 / 3, 0.01, NULL};
  Error error = {0};
  assert_int_equal(run_log_eval(log, &record, &error), STATUS_OK);
}

/* metrics.jsonl is, line by line, one object of each of these steps; a negative step is an evaluation. */
static void assert_records(const int64_t *steps, size_t count) {
  char *text = temp_file_read_text(metrics), *line = text;
  for (size_t i = 0; i < count; i++) {
    char *end = strchr(line, '\n');
    if (!end) fail_msg("%zu records, expected %zu: %s", i, count, text);
    json_t *record = json_loadb(line, (size_t)(end - line), 0, NULL);
    assert_true(json_is_object(record));
    assert_int_equal(json_integer_value(json_object_get(record, "step")), llabs(steps[i]));
    assert_int_equal(json_object_get(record, "eval") != NULL, steps[i] < 0);
    json_decref(record);
    line = end + 1;
  }
  if (*line) fail_msg("more than %zu records: %s", count, line);
  free(text);
}

static void test_new_run(void **state) {
  (void)state;
  RunLog *log = start(0, NULL);
  write_steps(log, 1, 2);
  run_log_message(log, "hello %d", 7);
  run_log_close(log);
  /* The resolved configuration is in the directory and is the same configuration. */
  const char *yaml = temp_dir_path(&directory, "runs/a run/config.yaml");
  Config loaded;
  Error error = {0};
  expect_ok(config_load(yaml, NULL, 0, &loaded, &error), &error);
  assert_memory_equal(&loaded, &config, sizeof config);
  char *text = temp_file_read_text(temp_dir_path(&directory, "runs/a run/log.txt"));
  assert_non_null(strstr(text, "Z  hello 7\n"));
  assert_non_null(strstr(text, "Z  step 2/20  loss 2.3000"));
  free(text);
}

static void test_record(void **state) {
  (void)state;
  RunLog *log = start(0, NULL);
  write_steps(log, 1, 1);
  char *text = temp_file_read_text(metrics);
  assert_string_equal(text,
                      "{\"step\":1,\"loss\":1.3,\"lr\":3.3333333333333335e-5,"
                      "\"grad_norm\":3.1415926535897931,\"tokens\":1024,\"sequence_length\":1024,"
                      "\"tokens_per_second\":12345.6,\"step_ms\":83.099999999999994,"
                      "\"exposed_comm_ms\":0.25,\"skew_ms\":0.125,\"balance\":1.0625,\"skipped\":false}\n");
  free(text);
  run_log_close(log);
}

/* Every double comes back as it was; a number that JSON cannot hold is null. */
static void test_numbers(void **state) {
  (void)state;
  static const double values[] = {0.1, 1.0 / 3, 5e-324, 1.7976931348623157e308, -0.0, 2.3999999999999999,
                                  1e23};
  enum { COUNT = sizeof values / sizeof values[0] };
  RunLog *log = start(0, NULL);
  Error error = {0};
  for (int i = 0; i < COUNT; i++) {
    StepRecord record = record_of(i + 1);
    record.loss = values[i];
    record.grad_norm = i % 2 ? NAN : INFINITY;
    record.skipped = true;
    assert_int_equal(run_log_step(log, &record, &error), STATUS_OK);
  }
  run_log_close(log);
  char *text = temp_file_read_text(metrics), *line = text;
  for (int i = 0; i < COUNT; i++) {
    json_t *record = json_loads(line, JSON_DISABLE_EOF_CHECK, NULL);
    const double loss = json_real_value(json_object_get(record, "loss"));
    assert_memory_equal(&loss, &values[i], sizeof loss);
    assert_true(json_is_null(json_object_get(record, "grad_norm")));
    assert_true(json_is_true(json_object_get(record, "skipped")));
    json_decref(record);
    line = strchr(line, '\n') + 1;
  }
  free(text);
}

static void test_evaluation(void **state) {
  (void)state;
  RunLog *log = start(0, NULL);
  write_steps(log, 1, 1);
  write_eval(log, 1);
  run_log_close(log);
  char *text = temp_file_read_text(metrics);
  assert_non_null(strstr(text, "\n{\"step\":1,\"eval\":{\"context\":4096,\"windows\":3,\"tokens\":12288,"
                               "\"nll\":0.33333333333333331,\"standard_error\":0.01,\"perplexity\":1.39561"));
  free(text);
}

/* Steps that are done again leave no second record; those before stay as they were. */
static void test_resume(void **state) {
  (void)state;
  RunLog *log = start(0, NULL);
  write_steps(log, 1, 3);
  write_eval(log, 3);
  write_steps(log, 4, 7);
  write_eval(log, 7);
  run_log_close(log);
  log = start(3, NULL);
  assert_records((int64_t[]){1, 2, 3, -3}, 4);
  write_steps(log, 4, 5);
  run_log_close(log);
  log = start(5, NULL);
  assert_records((int64_t[]){1, 2, 3, -3, 4, 5}, 6);
  run_log_close(log);
  log = start(0, NULL);
  assert_records(NULL, 0);
  run_log_close(log);
  char *aside = temp_file_read_text(temp_dir_path(&directory, "runs/a run/metrics.jsonl.1"));
  assert_non_null(strstr(aside, "\"step\":5"));
  free(aside);
}

/* What a crash leaves behind: half a line, a line that is no record. */
static void test_resume_after_a_crash(void **state) {
  (void)state;
  RunLog *log = start(0, NULL);
  write_steps(log, 1, 2);
  run_log_close(log);
  FILE *file = fopen(metrics, "ae");
  assert_non_null(file);
  (void)fputs("garbage\n{\"step\":\"2\"}\n[1]\n{\"loss\":1}\n{\"step\":2,\"loss\":9", file);
  assert_int_equal(fclose(file), 0);
  const char *left = temp_dir_path(&directory, "runs/a run/metrics.jsonl.tmp");
  temp_file_write_text(left, "left behind");
  log = start(2, NULL);
  write_steps(log, 3, 3);
  run_log_close(log);
  assert_records((int64_t[]){1, 2, 3}, 3);
  assert_false(file_exists(left));
}

/* A record that lacks only the end of its line is not lost, and the next one is a line of its own. */
static void test_resume_without_the_last_newline(void **state) {
  (void)state;
  RunLog *log = start(0, NULL);
  write_steps(log, 1, 2);
  run_log_close(log);
  char *text = temp_file_read_text(metrics);
  temp_file_write(metrics, text, strlen(text) - 1);
  free(text);
  log = start(2, NULL);
  write_steps(log, 3, 3);
  run_log_close(log);
  assert_records((int64_t[]){1, 2, 3}, 3);
}

static void test_second_process_is_refused(void **state) {
  (void)state;
  RunLog *log = start(0, NULL), *second;
  write_steps(log, 1, 2);
  Error error = {0};
  assert_int_equal(run_log_open(&config, NULL, &second, &error), STATUS_CONFIG);
  assert_non_null(strstr(error.text, "another process writes this run"));
  assert_null(second);
  /* And has changed nothing. */
  write_steps(log, 3, 3);
  assert_records((int64_t[]){1, 2, 3}, 3);
  run_log_close(log);
  run_log_close(start(3, NULL));
}

static void test_no_log(void **state) {
  (void)state;
  const StepRecord record = record_of(1);
  const EvalRecord eval = {0};
  Error error = {0};
  assert_int_equal(run_log_step(NULL, &record, &error), STATUS_OK);
  assert_int_equal(run_log_eval(NULL, &eval, &error), STATUS_OK);
  run_log_message(NULL, "nothing");
  run_log_close(NULL);
}

static void test_directory_that_cannot_be_made(void **state) {
  (void)state;
  const char *file = temp_dir_path(&directory, "file");
  temp_file_write_text(file, "");
  (void)snprintf(config.run.dir, sizeof config.run.dir, "%s/run", file);
  RunLog *log;
  Error error = {0};
  assert_int_equal(run_log_open(&config, NULL, &log, &error), STATUS_IO);
  assert_null(log);
  assert_non_null(strstr(error.text, file));
}

/* A record that does not fit is an error and leaves no piece of itself: a limit on the size of files stands
 * in for a full disk. */
static void test_full_disk(void **state) {
  (void)state;
  RunLog *log = start(0, NULL);
  write_steps(log, 1, 1);
  struct stat info;
  assert_int_equal(stat(metrics, &info), 0);
  struct rlimit before, limit;
  assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
  limit = before;
  limit.rlim_cur = (rlim_t)info.st_size + 10;
  assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
  const StepRecord record = record_of(2);
  Error error = {0};
  const Status status = run_log_step(log, &record, &error);
  assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
  assert_int_equal(status, STATUS_IO);
  assert_non_null(strstr(error.text, metrics));
  write_steps(log, 3, 3);
  run_log_close(log);
  assert_records((int64_t[]){1, 3}, 2);
}

static void test_terminal_lines(void **state) {
  (void)state;
  char *text = NULL;
  size_t bytes;
  FILE *terminal = tmpfile();
  assert_non_null(terminal);
  config.logging.every = 10;
  RunLog *log = start(0, terminal);
  write_steps(log, 1, 15);
  StepRecord skipped = record_of(16);
  skipped.skipped = true;
  Error error = {0};
  assert_int_equal(run_log_step(log, &skipped, &error), STATUS_OK);
  write_steps(log, 17, 20);
  run_log_close(log);
  rewind(terminal);
  FILE *copy = open_memstream(&text, &bytes);
  assert_non_null(copy);
  for (int c = fgetc(terminal); c != EOF; c = fgetc(terminal)) (void)fputc(c, copy);
  (void)fclose(copy);
  (void)fclose(terminal);
  assert_string_equal(
      text, "step 10/20  loss 10.3000  lr 3.33e-05  norm 3.142  length 1,024  12,346 tokens/s  83 ms  "
            "exposed 0.2 ms  skew 0.1 ms\n"
            "step 16/20  loss 16.3000  lr 3.33e-05  norm 3.142  length 1,024  12,346 tokens/s  83 ms  "
            "exposed 0.2 ms  skew 0.1 ms  SKIPPED: loss or norm is not finite\n"
            "step 20/20  loss 20.3000  lr 3.33e-05  norm 3.142  length 1,024  12,346 tokens/s  83 ms  "
            "exposed 0.2 ms  skew 0.1 ms\n");
  free(text);
}

/* Reads what a terminal shows until it ends with `last`. What is written there comes in pieces, and some time
 * later. */
static void read_terminal(int master, char *text, size_t bytes, const char *last) {
  const size_t tail = strlen(last);
  size_t used = 0;
  struct pollfd ready = {.fd = master, .events = POLLIN};
  while (used < tail || memcmp(text + used - tail, last, tail) != 0) {
    if (poll(&ready, 1, 10000) != 1) fail_msg("the terminal shows nothing more: %.*s", (int)used, text);
    const ssize_t got = read(master, text + used, bytes - 1 - used);
    assert_true(got > 0);
    used += (size_t)got;
  }
  text[used] = '\0';
}

/* On a terminal the bar stands below the lines and moves with every step. */
static void test_terminal_bar(void **state) {
  (void)state;
  const int master = posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK);
  if (master < 0) skip(); /* a container without terminals */
  assert_true(grantpt(master) == 0 && unlockpt(master) == 0);
  FILE *terminal = fopen(ptsname(master), "re+");
  assert_non_null(terminal);
  config.logging.every = 2;
  RunLog *log = start(0, terminal);
  write_steps(log, 1, 2);
  run_log_message(log, "a message");
  run_log_close(log);
  char text[4096];
  read_terminal(master, text, sizeof text, "10%  1 s left\r\n");
  const char *bar = strstr(text, "\r\033[K[=>                            ]   5%  2 s left");
  const char *line = strstr(text, "\r\033[Kstep 2/20");
  const char *second = strstr(text, "\r\033[K[===>                          ]  10%  1 s left");
  const char *message = strstr(text, "\r\033[Ka message");
  if (!bar || !line || !second || !message) fail_msg("got: %s", text);
  assert_true(bar < line && line < second && second < message);
  (void)fclose(terminal);
  (void)close(master);
}

/* What a pipe holds now. */
static size_t drain(int pipe_end, char *text, size_t bytes) {
  size_t used = 0;
  struct pollfd ready = {.fd = pipe_end, .events = POLLIN};
  while (poll(&ready, 1, 0) == 1) {
    const ssize_t got = read(pipe_end, text + used, bytes - 1 - used);
    assert_true(got > 0);
    used += (size_t)got;
  }
  text[used] = '\0';
  return used;
}

/* Records the steps and evaluates whether log.txt has the line of each. */
static void check_text(int64_t last) {
  char *text = temp_file_read_text(temp_dir_path(&directory, "runs/a run/log.txt"));
  for (int64_t step = 1; step <= last; step++) {
    char line[64];
    (void)snprintf(line, sizeof line, "Z  step %d/%d  loss", (int)step, (int)config.train.steps);
    if (strstr(text, line) == NULL) fail_msg("log.txt lacks '%s'", line);
  }
  free(text);
}

/* A reader that stops to read costs lines, and a second once; when it reads again, lines come again, whole.
 */
static void test_reader_that_stops(void **state) {
  (void)state;
  int ends[2];
  char text[32768];
  assert_int_equal(pipe(ends), 0);
  assert_true(fcntl(ends[1], F_SETPIPE_SZ, 16384) >= 0);
  FILE *terminal = fdopen(ends[1], "w");
  assert_non_null(terminal);
  config.train.steps = 400;
  RunLog *log = start(0, terminal);
  const double begin = clock_seconds();
  (void)alarm(30);
  write_steps(log, 1, 300);
  const double seconds = clock_seconds() - begin;
  if (seconds < 0.9 || seconds > 4.0) fail_msg("300 lines took %.1f s", seconds);
  size_t shown = drain(ends[0], text, sizeof text);
  assert_true(shown > 1000);
  assert_ptr_equal(strstr(text, "step 1/400  loss"), text);
  write_steps(log, 301, 303);
  shown = drain(ends[0], text, sizeof text);
  assert_true(shown > 0);
  for (int step = 301; step <= 303; step++) {
    char line[64];
    (void)snprintf(line, sizeof line, "\nstep %d/400  loss", step);
    if (strstr(text, line) == NULL && strncmp(text, line + 1, strlen(line + 1)) != 0) {
      fail_msg("no line of step %d: %s", step, text);
    }
  }
  run_log_close(log);
  (void)alarm(0);
  check_text(303);
  (void)fclose(terminal);
  (void)close(ends[0]);
}

/* Likewise a terminal, which may have room for a part of a line only. */
static void test_terminal_that_stops(void **state) {
  (void)state;
  const int master = posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK);
  if (master < 0) skip(); /* a container without terminals */
  assert_true(grantpt(master) == 0 && unlockpt(master) == 0);
  FILE *terminal = fopen(ptsname(master), "re+");
  assert_non_null(terminal);
  config.train.steps = 400;
  RunLog *log = start(0, terminal);
  const double begin = clock_seconds();
  (void)alarm(30);
  /* Long lines, so that there is room for a part of one. */
  for (int i = 1; i <= 200; i++) {
    write_steps(log, i, i);
    run_log_message(log, "%0900d", i);
  }
  const double seconds = clock_seconds() - begin;
  if (seconds < 0.9 || seconds > 4.0) fail_msg("400 lines took %.1f s", seconds);
  char text[1 << 17];
  (void)drain(master, text, sizeof text);
  write_steps(log, 201, 201);
  run_log_close(log);
  read_terminal(master, text, sizeof text, " left\r\n");
  (void)alarm(0);
  assert_non_null(strstr(text, "\r\n\r\033[Kstep 201/400  loss"));
  check_text(201);
  (void)fclose(terminal);
  (void)close(master);
}

static void test_progress(void **state) {
  (void)state;
  static const struct {
    double seconds;
    const char *text;
  } durations[] = {{0, "0 s"},           {59.4, "59 s"},         {60, "1 min 00 s"},  {3599, "59 min 59 s"},
                   {3600, "1 h 00 min"}, {86399, "23 h 59 min"}, {90000, "1 d 01 h"}, {NAN, "0 s"}};
  static const struct {
    int64_t count;
    const char *text;
  } counts[] = {{0, "0"},
                {999, "999"},
                {1000, "1,000"},
                {-123456, "-123,456"},
                {1048576, "1,048,576"},
                {INT64_MAX, "9,223,372,036,854,775,807"}};
  char text[128];
  for (size_t i = 0; i < sizeof durations / sizeof durations[0]; i++) {
    progress_duration(durations[i].seconds, text, sizeof text);
    assert_string_equal(text, durations[i].text);
  }
  for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
    progress_count(counts[i].count, text, sizeof text);
    assert_string_equal(text, counts[i].text);
  }
  progress_bar(0, 100, -1, text, sizeof text);
  assert_string_equal(text, "[>                             ]   0%");
  progress_bar(50, 100, 100, text, sizeof text);
  assert_string_equal(text, "[===============>              ]  50%  1 min 40 s left");
  progress_bar(100, 100, 0, text, sizeof text);
  assert_string_equal(text, "[==============================] 100%  0 s left");
  progress_bar(7, 5, -1, text, sizeof text);
  assert_string_equal(text, "[==============================] 100%");
  progress_bar(0, 0, -1, text, sizeof text);
  assert_string_equal(text, "[==============================] 100%");
}

#define IN_A_RUN(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void) {
  /* A write beyond the limit on file sizes is to fail, not to kill. */
  (void)signal(SIGXFSZ, SIG_IGN);
  const struct CMUnitTest tests[] = {
      IN_A_RUN(test_new_run),
      IN_A_RUN(test_record),
      IN_A_RUN(test_numbers),
      IN_A_RUN(test_evaluation),
      IN_A_RUN(test_resume),
      IN_A_RUN(test_resume_after_a_crash),
      IN_A_RUN(test_resume_without_the_last_newline),
      IN_A_RUN(test_second_process_is_refused),
      IN_A_RUN(test_no_log),
      IN_A_RUN(test_directory_that_cannot_be_made),
      IN_A_RUN(test_full_disk),
      IN_A_RUN(test_terminal_lines),
      IN_A_RUN(test_terminal_bar),
      IN_A_RUN(test_reader_that_stops),
      IN_A_RUN(test_terminal_that_stops),
      cmocka_unit_test(test_progress),
  };
  return cmocka_run_group_tests_name("run_log", tests, NULL, NULL);
}
