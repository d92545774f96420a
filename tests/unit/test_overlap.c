/* The forecast of overlap: the bounds from given speeds, the line that is made of them, the measurement on
 * devices of all kinds, and what a run says of it: once, and with numbers that follow from each other. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/expect.h"
#include "tests/support/launch.h"
#include "tests/support/ranks.h"
#include "tests/support/temp_dir.h"
#include "tests/support/training.h"
#include "tests/support/unit.h"
#include "train/overlap.h"

/* ---------------------------------------------------------------- the bounds */

/* The figures of the header, with F / B = 1000 and g = 1 and 8. */
static void test_bounds(void **state) {
  (void)state;
  const struct {
    RingPassKind pass;
    size_t element;
    int64_t tokens[2];
  } cases[] = {{RING_FORWARD, 4, {4000, 500}},
               {RING_FORWARD, 2, {2000, 250}},
               {RING_BACKWARD, 4, {3200, 400}},
               {RING_BACKWARD, 2, {2400, 300}}};
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    for (int g = 0; g < 2; g++) {
      const int64_t got = overlap_tokens(cases[i].pass, cases[i].element, g == 0 ? 1 : 8, 1e12, 1e9);
      /* A whole number that rounding may put one higher. */
      assert_in_range(got, cases[i].tokens[g], cases[i].tokens[g] + 1);
    }
  }
  /* Never less than is needed: 4 x 10 / 3 is 13.3. */
  assert_int_equal(overlap_tokens(RING_FORWARD, 4, 1, 10.0, 3.0), 14);
}

/* ---------------------------------------------------------------- the line */

static void check_line(const Config *config, bool training, const char *expected) {
  /* 4 F / (g B) is 250 tokens and 3.2 F / (g B) is 100 with two query heads to a key head. */
  const OverlapSpeeds speeds = {.flops = {1.25e11, 0.624e11}, .bandwidth = 1e9};
  char text[OVERLAP_TEXT_BYTES];
  overlap_describe(config, sizeof(float), &speeds, training, text, sizeof text);
  assert_string_equal(text, expected);
}

static void test_line(void **state) {
  const char *const overrides[] = {"train.sequence_length=2048",
                                   "train.micro_batch_size=1",
                                   "train.global_batch_size=1",
                                   "train.steps=2000",
                                   "train.sequence_schedule={0: 128, 10: 512, 1000: 2048}",
                                   "parallelism.ring=4",
                                   NULL};
  const char *directory = training_directory(state);
  Config config = training_config(directory, "line", overrides);
  check_line(
      &config, true,
      "overlap: a rank needs 250 tokens of a sequence forward and 100 backward (F 125 and 62.4 "
      "GFLOP/s, B 1.00 GB/s, 2 query heads a key head); this run has 32: neither hidden; after step 10 "
      "128: backward hidden, forward not; after step 1,000 512: both hidden");
  config.eval.contexts = (IntegerList){.count = 2, .values = {999, 1000}};
  check_line(&config, false,
             "overlap: a rank needs 250 tokens of a sequence forward (F 125 GFLOP/s, B 1.00 GB/s, 2 query "
             "heads a key head); this run has at context 999 250: hidden; at context 1,000 250: hidden");
  config.parallelism.ring = 5;
  config.eval.contexts.count = 1;
  check_line(&config, false,
             "overlap: a rank needs 250 tokens of a sequence forward (F 125 GFLOP/s, B 1.00 GB/s, 2 query "
             "heads a key head); this run has at context 999 200: not hidden");
}

/* More stages than a line holds: it says that there are others. */
static void test_many_stages(void **state) {
  const OverlapSpeeds speeds = {.flops = {1e9, 1e9}, .bandwidth = 1e9};
  char text[OVERLAP_TEXT_BYTES];
  Config config = training_config(training_directory(state), "many", (const char *const[]){NULL});
  config.train.steps = 100;
  config.train.sequence_schedule.count = CONFIG_LIST_LENGTH;
  for (int64_t i = 0; i < CONFIG_LIST_LENGTH; i++) {
    config.train.sequence_schedule.first_steps[i] = i;
    config.train.sequence_schedule.lengths[i] = config.train.sequence_length;
  }
  overlap_describe(&config, sizeof(float), &speeds, true, text, sizeof text);
  assert_non_null(strstr(text, "; after step 1 "));
  const size_t length = strlen(text);
  assert_true(length > 600 && length + 1 < sizeof text);
  assert_string_equal(text + length - strlen("; and so on"), "; and so on");
}

/* ---------------------------------------------------------------- the measurement */

/* Speeds are the same on all ranks; what was sent counts as control alone. */
static Status measure(TestRank *test, void *context, Error *error) {
  Rank rank = {.world = test->world, .ring = test->ring, .device = test->device};
  const AttentionDims dims = {.heads = 4, .kv_heads = 2, .head_dim = 16, .scale = 0.25F};
  const size_t bytes = 100000;
  double values[3] = {0};
  (void)context;
  TRY(ring_speed_block(&rank, &dims, 32, RING_FORWARD, 0.0, &values[0], error));
  TRY(ring_speed_block(&rank, &dims, 32, RING_BACKWARD, 0.0, &values[1], error));
  const CommCounter before = rank.ring->counters[COMM_CONTROL];
  TRY(ring_speed_message(&rank, bytes, 3, &values[2], error));
  const CommCounter *after = rank.ring->counters;
  if (after[COMM_KEYS_VALUES].bytes != 0 || after[COMM_KEYS_VALUES].messages != 0 ||
      after[COMM_CONTROL].bytes - before.bytes < (int64_t)(4 * bytes)) {
    return fail(error, STATUS_INTERNAL, "messages are counted as something else");
  }
  for (int i = 0; i < 3; i++) {
    double largest = values[i];
    TRY(comm_all_reduce(rank.world, COMM_F64, COMM_MAX, &largest, 1, error));
    if (!(values[i] > 0.0) || !isfinite(values[i]) || largest != values[i]) {
      return fail(error, STATUS_INTERNAL, "measurement %d gives %g, to others %g", i, values[i], largest);
    }
  }
  return STATUS_OK;
}

static void measure_on(TestDevice device) {
  Error error = {0};
  expect_ok(run_ranks_on(device, 3, 1, 1, measure, NULL, &error), &error);
  expect_ok(run_ranks_on(device, 2, 2, 1, measure, NULL, &error), &error);
}

static void test_measurement(void **state) {
  (void)state;
  measure_on(TEST_CPU);
  measure_on(TEST_CPU_BF16);
}

static void test_measurement_cuda(void **state) {
  (void)state;
  test_device_need_cuda();
  measure_on(TEST_CUDA_F32);
  measure_on(TEST_CUDA_BF16);
}

/* ---------------------------------------------------------------- what a run says */

static int count_of(const char *text, const char *what) {
  int count = 0;
  for (const char *at = strstr(text, what); at != NULL; at = strstr(at + 1, what)) count++;
  return count;
}

/* A count with separators, behind `before`. */
static double count_behind(const char *text, const char *before) {
  const char *at = strstr(text, before);
  double count = 0.0;
  if (at == NULL) fail_msg("no '%s' in: %s", before, text);
  for (at += strlen(before); (*at >= '0' && *at <= '9') || *at == ','; at++) {
    if (*at != ',') count = 10.0 * count + (*at - '0');
  }
  return count;
}

static double number_behind(const char *text, const char *before) {
  const char *at = strstr(text, before);
  if (at == NULL) fail_msg("no '%s' in: %s", before, text);
  return strtod(at + strlen(before), NULL);
}

/* The tokens needed are those that follow from the speeds in the line, which have three digits. */
static void check_need(const char *line, double need, double flops, double factor) {
  const double bound = factor * flops / number_behind(line, ", B ") / 2.0;
  if (!(need >= 1.0 && fabs(need - bound) <= 1.0 + 0.011 * bound)) {
    fail_msg("%g tokens, but the speeds give %g: %s", need, bound, line);
  }
}

/* The log of a run, or what an evaluation showed: its one line, to be freed. */
static char *the_line(const char *path) {
  char *text = temp_file_read_text(path);
  if (count_of(text, "overlap: ") != 1) fail_msg("not once: %s", text);
  char *line = strdup(strstr(text, "overlap: "));
  assert_non_null(line);
  line[strcspn(line, "\n")] = '\0';
  free(text);
  return line;
}

static void check_training(const char *path, double tokens) {
  char *line = the_line(path);
  const double forward = count_behind(line, "a rank needs ");
  const double backward = count_behind(line, "forward and ");
  const char *speeds = strstr(line, "(F ");
  assert_non_null(speeds);
  check_need(line, forward, number_behind(speeds, "(F "), 4.0);
  check_need(line, backward, number_behind(speeds, " and "), 3.2);
  assert_non_null(strstr(line, ", 2 query heads a key head)"));
  assert_true(count_behind(line, "this run has ") == tokens);
  static const char *const verdicts[2][2] = {{": neither hidden", ": backward hidden, forward not"},
                                             {": forward hidden, backward not", ": both hidden"}};
  assert_non_null(strstr(line, verdicts[tokens >= forward][tokens >= backward]));
  free(line);
}

static void check_evaluation(const char *path, double tokens) {
  char *line = the_line(path);
  const double forward = count_behind(line, "a rank needs ");
  check_need(line, forward, number_behind(line, "(F "), 4.0);
  assert_true(count_behind(line, "at context 256 ") == tokens);
  assert_non_null(strstr(line, tokens >= forward ? ": hidden" : ": not hidden"));
  free(line);
}

/* Trains and evaluates, as threads (processes 0) or over mpirun. */
static void check_program(const char *directory, const char *name, const char *ring, int processes) {
  const char *const overrides[] = {"train.steps=2", "checkpoint.every=0", ring, NULL};
  const Config config = training_config(directory, name, overrides);
  const double tokens = 128.0 / (double)config.parallelism.ring;
  const Launch training = {.config = &config, .overrides = overrides, .processes = processes};
  assert_int_equal(launch_finish(launch_start(&training)), STATUS_OK);
  char *log = training_path(config.run.dir, "log.txt");
  char *checkpoint = training_checkpoint(&config, 2, "");
  char *errors = training_path(config.run.dir, "eval.errors");
  const char *const arguments[] = {"--checkpoint", checkpoint, "--context", "256", ring, NULL};
  const Launch evaluation = {
      .command = "eval", .config = &config, .overrides = arguments, .processes = processes, .errors = errors};
  assert_int_equal(launch_finish(launch_start(&evaluation)), STATUS_OK);
  if (config.parallelism.ring == 1) {
    char *line = the_line(log);
    assert_string_equal(line, "overlap: no ring: no keys and values travel");
    free(line);
  } else {
    check_training(log, tokens);
    check_evaluation(errors, 2.0 * tokens);
  }
  free(errors);
  free(checkpoint);
  free(log);
}

static void test_threads(void **state) {
  check_program(training_directory(state), "threads", "parallelism.ring=4", 0);
  check_program(training_directory(state), "alone", "parallelism.ring=1", 0);
}

static void test_processes(void **state) {
  if (!RINGGPT_MPI) skip();
  check_program(training_directory(state), "processes", "parallelism.ring=2", 2);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_bounds),           cmocka_unit_test(test_line),
      cmocka_unit_test(test_many_stages),      cmocka_unit_test(test_measurement),
      cmocka_unit_test(test_measurement_cuda), cmocka_unit_test(test_threads),
      cmocka_unit_test(test_processes),
  };
  return cmocka_run_group_tests(tests, training_set_up, temp_dir_tear_down);
}
