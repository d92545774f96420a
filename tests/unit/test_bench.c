/* The benchmark: everything runs in tiny sizes, its JSON lines are whole, and two runs can be compared. */
#include <jansson.h>
#include <libgen.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "kernels/base/status.h"
#include "tests/support/program.h"
#include "tests/support/temp_dir.h"
#include "tests/support/unit.h"

static TempDir directory;
static char bench[2 * PATH_MAX];

static int setup(void **state) {
  (void)state;
  char program[PATH_MAX];
  program_path(program);
  (void)snprintf(bench, sizeof bench, "%s/bench/bench", dirname(program));
  directory = temp_dir_create();
  return 0;
}

static int teardown(void **state) {
  (void)state;
  temp_dir_remove(&directory);
  return 0;
}

/* Runs the benchmark; returns its exit status and, unless NULL, what it printed, to be freed. */
static int run(const char *arguments, char **out) {
  char command[4 * PATH_MAX];
  const char *path = temp_dir_path(&directory, "out");
  (void)snprintf(command, sizeof command, "'%s' %s >'%s' 2>&1", bench, arguments, path);
  const int status = system(command);
  assert_true(WIFEXITED(status));
  if (out != NULL) *out = temp_file_read_text(path);
  return WEXITSTATUS(status);
}

static void check_line(const json_t *line) {
  const double least = json_number_value(json_object_get(line, "ms_least"));
  const double ms = json_number_value(json_object_get(line, "ms"));
  const double most = json_number_value(json_object_get(line, "ms_most"));
  assert_true(least > 0 && least <= ms && ms <= most);
  assert_true(json_number_value(json_object_get(line, "work")) > 0);
  assert_non_null(json_object_get(line, "invalid"));
}

/* How many lines the file holds of each of the parts. */
static void count_lines(const char *path, const char *const parts[], int counts[]) {
  char *text = temp_file_read_text(path);
  char *rest = NULL;
  for (char *at = strtok_r(text, "\n", &rest); at != NULL; at = strtok_r(NULL, "\n", &rest)) {
    json_t *line = json_loads(at, 0, NULL);
    assert_non_null(line);
    check_line(line);
    for (int i = 0; parts[i] != NULL; i++) {
      counts[i] += strcmp(json_string_value(json_object_get(line, "part")), parts[i]) == 0 ? 1 : 0;
    }
    json_decref(line);
  }
  free(text);
}

static void test_everything_runs(void **state) {
  (void)state;
  static const char *const parts[] = {"peak", "attention", "products", "rows", "step", "comm", "files", NULL};
  int counts[sizeof parts / sizeof parts[0]] = {0};
  char arguments[PATH_MAX];
  const char *json = temp_dir_path(&directory, "a.json");
  (void)snprintf(arguments, sizeof arguments, "-q -n 2 -s 3 -j '%s'", json);
  assert_int_equal(run(arguments, NULL), STATUS_OK);
  count_lines(json, parts, counts);
  for (int i = 0; parts[i] != NULL; i++) assert_true(counts[i] > 0);
}

/* A core that began nine multiply-adds a cycle would reach several times the peak of any that there is: no
 * line may count, nor be printed as one that does. */
static void test_low_peak_is_invalid(void **state) {
  (void)state;
  char arguments[PATH_MAX];
  char *out = NULL;
  char *rest = NULL;
  int lines = 0;
  const char *json = temp_dir_path(&directory, "low.json");
  (void)snprintf(arguments, sizeof arguments, "-q -p peak -p products -p files -s 3 -u 9 -j '%s'", json);
  assert_int_equal(run(arguments, &out), STATUS_OK);
  char *text = temp_file_read_text(json);
  for (char *at = strtok_r(text, "\n", &rest); at != NULL; at = strtok_r(NULL, "\n", &rest)) {
    json_t *line = json_loads(at, 0, NULL);
    const char *why = json_string_value(json_object_get(line, "invalid"));
    assert_true(why != NULL && strstr(why, "of what the clock allows") != NULL);
    json_decref(line);
    lines += 1;
  }
  char total[64];
  (void)snprintf(total, sizeof total, "\n%d of %d lines are invalid", lines, lines);
  assert_true(lines > 1);
  assert_non_null(strstr(out, total));
  free(text);
  free(out);
}

#define LINE(name, ms, least, most, invalid)                                                                 \
  "{\"part\": \"rows\", \"case\": \"" name "\", \"ms\": " ms ", \"ms_least\": " least ", \"ms_most\": " most \
  ", \"invalid\": " invalid "}\n"

static void test_compare(void **state) {
  (void)state;
  char arguments[PATH_MAX];
  char *out = NULL;
  const char *a = temp_dir_path(&directory, "old.json");
  const char *b = temp_dir_path(&directory, "new.json");
  temp_file_write_text(a, LINE("one", "2", "1.9", "2.2", "null") LINE("two", "1", "0.9", "1.1", "null")
                              LINE("three", "1", "0.9", "1.1", "\"disturbed\"")
                                  LINE("gone", "1", "1", "1", "null"));
  temp_file_write_text(b, LINE("one", "1", "0.9", "1.1", "null") LINE("two", "1.05", "1", "1.2", "null")
                              LINE("three", "4", "3", "5", "null"));
  (void)snprintf(arguments, sizeof arguments, "--compare '%s' '%s'", a, b);
  assert_int_equal(run(arguments, &out), STATUS_OK);
  assert_non_null(strstr(out, "2.000 x faster"));
  assert_non_null(strstr(out, "0.952 x "));
  assert_null(strstr(strstr(out, "0.952 x "), "faster"));
  assert_non_null(strstr(out, "0.250 x SLOWER A invalid"));
  assert_non_null(strstr(out, "3 cases in both; 4 in A, 3 in B"));
  free(out);
}

static void test_errors(void **state) {
  (void)state;
  char arguments[PATH_MAX];
  char *out = NULL;
  const char *bad = temp_dir_path(&directory, "bad.json");
  temp_file_write_text(bad, LINE("one", "2", "1.9", "2.2", "null") "{\"part\": ");
  (void)snprintf(arguments, sizeof arguments, "--compare '%s' '%s'", bad, bad);
  assert_int_equal(run(arguments, &out), STATUS_DATA);
  assert_non_null(strstr(out, "bad.json:2:"));
  free(out);
  assert_int_equal(run("--compare missing.json missing.json", NULL), STATUS_NO_INPUT);
  assert_int_equal(run("-p nothing", NULL), STATUS_USAGE);
  assert_int_equal(run("-q -p peak -j /nowhere/a.json", NULL), STATUS_IO);
  assert_int_equal(run("--help", NULL), STATUS_OK);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_everything_runs),
                                     cmocka_unit_test(test_low_peak_is_invalid),
                                     cmocka_unit_test(test_compare), cmocka_unit_test(test_errors)};
  return cmocka_run_group_tests(tests, setup, teardown);
}
