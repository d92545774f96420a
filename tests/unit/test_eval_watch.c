/* What an evaluation shows of its progress, and pictures of its results with and without gnuplot. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernels/base/clock.h"
#include "kernels/cpu/cpu_device.h"
#include "tests/support/expect.h"
#include "tests/support/temp_dir.h"
#include "tests/support/unit.h"
#include "train/eval_watch.h"
#include "train/plot.h"

/* ---------------------------------------------------------------- progress */

/* A rank that is the whole world, under a watch that shows every sign at once. */
typedef struct Watched {
  Rank rank;
  EvalWatch watch;
  int polls; /* of the hook that was there before */
} Watched;

static void count_poll(void *context) {
  ((Watched *)context)->polls++;
}

static void begin(Watched *watched, double total) {
  Error error = {0};
  *watched = (Watched){.rank = {.data_size = 1}};
  expect_ok(comm_local_create(1, &watched->rank.world, &error), &error);
  expect_ok(cpu_device_create(1, ELEMENT_F32, &watched->rank.device, &error), &error);
  watched->rank.device->poll = count_poll;
  watched->rank.device->poll_context = watched;
  eval_watch_begin(&watched->watch, &watched->rank, NULL, total);
  watched->watch.terminal = false;
  watched->watch.quiet = 0.0;
  watched->watch.interval = 0.0;
}

static void end(Watched *watched) {
  eval_watch_end(&watched->watch);
  assert_true(watched->rank.device->poll == count_poll);
  assert_null(watched->rank.device->pairs);
  device_destroy(watched->rank.device);
  comm_destroy(watched->rank.world);
}

/* A look at once, with so many pairs of the window done. */
static void look(Watched *watched, int64_t pairs) {
  watched->watch.next = 0.0;
  device_count_pairs(watched->rank.device, pairs - watched->watch.pairs);
  device_poll(watched->rank.device);
}

/* Standard error to a file, and back. */
typedef struct Capture {
  const char *path;
  int kept;
} Capture;

static Capture capture_begin(void **state, const char *name) {
  Capture capture = {.path = temp_dir_path(*state, name), .kept = dup(STDERR_FILENO)};
  assert_non_null(freopen(capture.path, "w", stderr));
  return capture;
}

static char *capture_end(const Capture *capture) {
  (void)fflush(stderr);
  (void)dup2(capture->kept, STDERR_FILENO);
  (void)close(capture->kept);
  return temp_file_read_text(capture->path);
}

/* Work counts before, within and behind a window; a line comes every few percent, and says the time left. */
static void test_lines(void **state) {
  Watched watched;
  begin(&watched, 1000.0);
  const Capture capture = capture_begin(state, "lines");
  eval_watch_part(&watched.watch, 200.0);
  eval_watch_window(&watched.watch, 200.0, 5000, "context 10, window 1 of 1");
  look(&watched, 2500);
  eval_watch_window_end(&watched.watch);
  eval_watch_part(&watched.watch, 800.0);
  eval_watch_window(&watched.watch, 800.0, 100000, "context 20, window 1 of 1");
  look(&watched, 0);
  for (int64_t pairs = 0; pairs <= 50000; pairs += 10) look(&watched, pairs);
  char place[256];
  watched.watch.begin = clock_seconds() - 100.0;
  eval_watch_place(&watched.watch, place, sizeof place);
  look(&watched, 60000);
  end(&watched);
  char *text = capture_end(&capture);
  assert_string_equal(place,
                      "context 20, window 1 of 1, 50 % of this context, 60 % of all, after 1 min 40 s");
  const char *first = "evaluation 10 %, context 10, window 1 of 1, 0 s elapsed, 0 s left\n"
                      "evaluation 20 %, context 20, window 1 of 1, 0 s elapsed, 0 s left\n"
                      "evaluation 22 %, ";
  assert_int_equal(strncmp(text, first, strlen(first)), 0);
  /* 100 s for 68 %. */
  assert_non_null(
      strstr(text, "evaluation 68 %, context 20, window 1 of 1, 1 min 40 s elapsed, 47 s left\n"));
  int lines = 0;
  for (const char *at = text; *at != '\0'; at++) lines += *at == '\n';
  assert_in_range(lines, 21, 23); /* of 2 % or, rounded, a little more */
  assert_true(watched.polls >= 5000);
  free(text);
}

/* Seconds of work show nothing, nor does a rank that is not the first. */
static void test_silence(void **state) {
  Watched watched;
  const Capture capture = capture_begin(state, "silence");
  begin(&watched, 10.0);
  watched.watch.quiet = 1.0;
  eval_watch_window(&watched.watch, 10.0, 100, "context 10, window 1 of 1");
  look(&watched, 50);
  watched.watch.quiet = 0.0;
  watched.watch.interval = 30.0;
  look(&watched, 60);
  watched.watch.interval = 0.0;
  watched.watch.shows = false;
  look(&watched, 70);
  end(&watched);
  char *text = capture_end(&capture);
  assert_string_equal(text, "");
  free(text);
}

/* On a terminal a bar, which fits into 80 columns and is wiped away at the end. */
static void test_bar(void **state) {
  Watched watched;
  const Capture capture = capture_begin(state, "bar");
  begin(&watched, 10.0);
  watched.watch.terminal = true;
  eval_watch_window(&watched.watch, 10.0, 100, "context 1,048,576, window 123,456 of 123,457, and then some");
  look(&watched, 50);
  end(&watched);
  char *text = capture_end(&capture);
  const char *expected =
      "\r[===============>              ]  50%  0 s left  context 1,048,576, window 123,456 of ";
  assert_int_equal(strncmp(text, expected, strlen(expected) - 10), 0);
  assert_in_range(strcspn(text, "\033"), 60, 1 + 80);
  const size_t length = strlen(text);
  assert_string_equal(text + length - 4, "\r\033[K");
  free(text);
}

/* What another rank has ended ends here, with its reason. */
static void test_ended(void **state) {
  (void)state;
  Watched watched;
  Error cause = {0};
  Error error = {0};
  begin(&watched, 10.0);
  eval_watch_window(&watched.watch, 10.0, 100, "context 10, window 1 of 1");
  look(&watched, 1);
  assert_false(device_failed(watched.rank.device));
  (void)fail(&cause, STATUS_DATA, "a damaged shard");
  comm_abort(watched.rank.world, &cause);
  look(&watched, 2);
  assert_true(device_failed(watched.rank.device));
  assert_int_equal(device_check(watched.rank.device, &error), STATUS_DATA);
  assert_non_null(strstr(error.text, "a damaged shard"));
  end(&watched);
}

/* ---------------------------------------------------------------- pictures */

static const double POSITIONS[] = {1.0, 2.5, 5.5, 11.5};
static const double MEANS[] = {5.0, 3.5, 2.25, 2.0};
static const double ERRORS[] = {NAN, 0.3, 0.1, 0.05};

static PlotPositions positions_of(PlotLine *line) {
  *line = (PlotLine){.name = "it's_context 16", .count = 4, .x = POSITIONS, .y = MEANS, .e = ERRORS};
  return (PlotPositions){.title = "perplexity", .count = 1, .lines = line};
}

static PlotHeatMap heat_map(void) {
  static const char *const rows[] = {"0.1", "0.55"};
  static const char *const columns[] = {"1,024", "2,048", "8,192"};
  static const double values[] = {1.0, 0.5, 0.25, 0.75, NAN, 0.0};
  return (PlotHeatMap){.title = "accuracy",
                       .x_title = "context",
                       .y_title = "depth",
                       .rows = 2,
                       .columns = 3,
                       .row_labels = rows,
                       .column_labels = columns,
                       .values = values,
                       .low = 0.0,
                       .high = 1.0};
}

static void check_file(const char *path, const char *beginning) {
  char *text = temp_file_read_text(path);
  assert_int_equal(strncmp(text, beginning, strlen(beginning)), 0);
  free(text);
}

static void test_pictures(void **state) {
  PlotLine line;
  Error error = {0};
  const PlotPositions positions = positions_of(&line);
  const PlotHeatMap map = heat_map();
  const char *svg = temp_dir_path(*state, "it's a line.svg");
  const char *png = temp_dir_path(*state, "map.png");
  const Status status = plot_positions(svg, &positions, &error);
  if (status == STATUS_SYSTEM) skip();
  expect_ok(status, &error);
  expect_ok(plot_heat_map(png, &map, &error), &error);
  check_file(svg, "<?xml");
  check_file(png, "\x89PNG");
  char *text = temp_file_read_text(svg);
  assert_non_null(strstr(text, "context 16"));
  assert_non_null(strstr(text, "perplexity"));
  free(text);
  assert_int_equal(plot_heat_map("/nowhere/map.svg", &map, &error), STATUS_IO);
}

static void test_without_gnuplot(void **state) {
  PlotLine line;
  Error error = {0};
  const PlotPositions positions = positions_of(&line);
  char *path = strdup(getenv("PATH"));
  assert_int_equal(setenv("PATH", temp_dir_path(*state, "empty"), 1), 0);
  assert_int_equal(plot_positions(temp_dir_path(*state, "none.svg"), &positions, &error), STATUS_SYSTEM);
  assert_string_equal(error.text, "gnuplot is not installed");
  assert_int_equal(setenv("PATH", path, 1), 0);
  free(path);
}

static void test_heat_map_in_text(void **state) {
  const PlotHeatMap map = heat_map();
  const char *path = temp_dir_path(*state, "map.txt");
  FILE *file = fopen(path, "w");
  assert_non_null(file);
  plot_print_heat_map(file, &map);
  assert_int_equal(fclose(file), 0);
  char *text = temp_file_read_text(path);
  assert_string_equal(
      text, "accuracy (columns: context)\n"
            "depth       1,024       2,048       8,192\n"
            "  0.1       1 \u2588\u2588\u2588     0.5 \u2592\u2592\u2592    0.25 \u2591\u2591\u2591\n"
            " 0.55    0.75 \u2593\u2593\u2593       -           0    \n");
  free(text);
}

static void test_names_of_pictures(void **state) {
  (void)state;
  Error error = {0};
  assert_int_equal(plot_check_path("plot", "a.svg", &error), STATUS_OK);
  assert_int_equal(plot_check_path("plot", "a/b.png", &error), STATUS_OK);
  assert_int_equal(plot_check_path("plot", "a.gif", &error), STATUS_USAGE);
  assert_string_equal(error.text, "--plot a.gif: the name of a picture ends in .svg or .png");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_lines),
      cmocka_unit_test(test_silence),
      cmocka_unit_test(test_bar),
      cmocka_unit_test(test_ended),
      cmocka_unit_test(test_pictures),
      cmocka_unit_test(test_without_gnuplot),
      cmocka_unit_test(test_heat_map_in_text),
      cmocka_unit_test(test_names_of_pictures),
  };
  return cmocka_run_group_tests(tests, temp_dir_set_up, temp_dir_tear_down);
}
