/* Two runs of the benchmark side by side: see the header. */
#include "tests/bench/compare.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* *lines: an array of the objects of a file, one in each line. */
static Status parse_lines(const char *path, FILE *file, json_t *lines, Error *error) {
  char *text = NULL;
  size_t size = 0;
  Status status = STATUS_OK;
  while (status == STATUS_OK && getline(&text, &size, file) > 0) {
    json_error_t bad = {.text = ""};
    json_t *line = json_loads(text, 0, &bad);
    if (line == NULL || json_array_append_new(lines, line) != 0) {
      status = fail(error, STATUS_DATA, "%s:%zu: %s", path, json_array_size(lines) + 1, bad.text);
    }
  }
  free(text);
  return status;
}

static Status read_lines(const char *path, json_t **lines, Error *error) {
  FILE *file = fopen(path, "r");
  if (file == NULL) return fail(error, STATUS_NO_INPUT, "%s: cannot be read", path);
  *lines = json_array();
  const Status status = parse_lines(path, file, *lines, error);
  (void)fclose(file);
  return status;
}

static const char *text(const json_t *line, const char *key) {
  const char *value = json_string_value(json_object_get(line, key));
  return value == NULL ? "" : value;
}

static double number(const json_t *line, const char *key) {
  return json_number_value(json_object_get(line, key));
}

static const json_t *find(const json_t *lines, const json_t *wanted) {
  for (size_t i = 0; i < json_array_size(lines); i++) {
    const json_t *line = json_array_get(lines, i);
    if (strcmp(text(line, "part"), text(wanted, "part")) == 0 &&
        strcmp(text(line, "case"), text(wanted, "case")) == 0) {
      return line;
    }
  }
  return NULL;
}

/* What the ranges of the times allow to say. */
static const char *verdict(const json_t *a, const json_t *b) {
  if (number(b, "ms_most") < number(a, "ms_least")) return "faster";
  if (number(b, "ms_least") > number(a, "ms_most")) return "SLOWER";
  return "";
}

static bool invalid(const json_t *line) {
  return text(line, "invalid")[0] != '\0';
}

static void print_case(const json_t *a, const json_t *b) {
  static const char *const marks[] = {"", "A invalid", "B invalid", "both invalid"};
  printf("%-10s %-58s %10.4f ms %10.4f ms %7.3f x %-6s %s\n", text(a, "part"), text(a, "case"),
         number(a, "ms"), number(b, "ms"), number(a, "ms") / number(b, "ms"), verdict(a, b),
         marks[(invalid(a) ? 1 : 0) + (invalid(b) ? 2 : 0)]);
}

static int print_common(const json_t *a, const json_t *b) {
  int common = 0;
  printf("%-10s %-58s %13s %13s %9s\n", "part", "case", "A", "B", "speed");
  for (size_t i = 0; i < json_array_size(a); i++) {
    const json_t *line = json_array_get(a, i);
    const json_t *other = find(b, line);
    if (other == NULL) continue;
    print_case(line, other);
    common++;
  }
  return common;
}

Status bench_compare(const char *a, const char *b, Error *error) {
  json_t *lines[2] = {NULL, NULL};
  Status status = STATUS_OK;
  TRY_GOTO(read_lines(a, &lines[0], error), done);
  TRY_GOTO(read_lines(b, &lines[1], error), done);
  const int common = print_common(lines[0], lines[1]);
  printf("%d cases in both; %zu in A, %zu in B\n", common, json_array_size(lines[0]),
         json_array_size(lines[1]));
  if (common == 0) status = fail(error, STATUS_DATA, "%s and %s have no case in common", a, b);
done:
  json_decref(lines[0]);
  json_decref(lines[1]);
  return status;
}
