/* Flags and arguments: every form, every mistake with its message, the help. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/unit.h"
#include "train/command_line.h"
#include "train/options.h"

#define WORDS 16

static const Command bake = {
    .name = "bake",
    .usage = "--out DIR PATH...",
    .summary = "Bakes.",
    .flags = {{"out", "DIR", "where to", true},
              {"heat", "N", "how hot", false},
              {"slow", NULL, "take time", false}},
    .least_arguments = 1,
    .most_arguments = 2,
};

/* Splits a text at its spaces into an argv and parses that; the words live in `store`. */
static Status parse(const Command *command, const char *text, char *store, char **argv, CommandLine *line,
                    Error *error) {
  int argc = 0;
  (void)strcpy(store, text);
  char *rest = store;
  for (char *word = strtok_r(rest, " ", &rest); word && argc < WORDS; word = strtok_r(NULL, " ", &rest))
    argv[argc++] = word;
  return command_line_parse(command, argc, argv, line, error);
}

static void test_forms(void **state) {
  (void)state;
  static const char *const texts[] = {"--out d a b", "a --out=d b", "a b --out d", "--out d -- a b"};
  for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
    char store[256], *argv[WORDS];
    CommandLine line;
    Error error = {0};
    if (parse(&bake, texts[i], store, argv, &line, &error) != STATUS_OK)
      fail_msg("%s: %s", texts[i], error.text);
    assert_string_equal(command_line_flag(&line, "out"), "d");
    assert_null(command_line_flag(&line, "heat"));
    assert_null(command_line_flag(&line, "slow"));
    assert_null(command_line_flag(&line, "unknown"));
    assert_int_equal(line.count, 2);
    assert_string_equal(line.arguments[0], "a");
    assert_string_equal(line.arguments[1], "b");
    assert_false(line.help);
  }
}

static void test_values(void **state) {
  (void)state;
  char store[256], *argv[WORDS];
  CommandLine line;
  Error error = {0};
  /* What looks like a flag is one only in the place of one. */
  assert_int_equal(parse(&bake, "--out=x=y --heat -5 --slow - -- --out", store, argv, &line, &error),
                   STATUS_OK);
  assert_string_equal(command_line_flag(&line, "out"), "x=y");
  assert_string_equal(command_line_flag(&line, "heat"), "-5");
  assert_string_equal(command_line_flag(&line, "slow"), "");
  assert_int_equal(line.count, 2);
  assert_string_equal(line.arguments[0], "-");
  assert_string_equal(line.arguments[1], "--out");
  assert_int_equal(parse(&bake, "--out= a", store, argv, &line, &error), STATUS_OK);
  assert_string_equal(command_line_flag(&line, "out"), "");
}

static void test_mistakes(void **state) {
  (void)state;
  static const struct {
    const char *text;
    const char *message;
  } cases[] = {
      {"a", "bake: '--out DIR' is missing; usage: ringgpt bake --out DIR PATH..."},
      {"--out d", "bake: an argument is missing; usage: ringgpt bake --out DIR PATH..."},
      {"--out d a b c", "bake: 'c' is one argument too many; usage: ringgpt bake --out DIR PATH..."},
      {"--out", "bake: '--out' needs a value: --out DIR"},
      {"a --out d --out e", "bake: '--out' is given twice"},
      {"a --slow --out d --slow", "bake: '--slow' is given twice"},
      {"--slow=yes --out d a", "bake: '--slow' takes no value"},
      {"--outt d a", "bake: unknown flag '--outt'; did you mean '--out'?"},
      {"--hepl", "bake: unknown flag '--hepl'; did you mean '--help'?"},
      {"--temperature=5 a", "bake: unknown flag '--temperature'; 'ringgpt bake --help' lists them"},
      {"-o d a", "bake: unknown flag '-o'; 'ringgpt bake --help' lists them"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    char store[256], *argv[WORDS];
    CommandLine line;
    Error error = {0};
    const Status status = parse(&bake, cases[i].text, store, argv, &line, &error);
    if (status == STATUS_OK) fail_msg("%s: is accepted", cases[i].text);
    assert_string_equal(error.text, cases[i].message);
    assert_int_equal(status, STATUS_USAGE);
  }
}

static void test_help_goes_first(void **state) {
  (void)state;
  static const char *const texts[] = {"--help", "-h", "a b --help", "--out d -h c"};
  for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
    char store[256], *argv[WORDS];
    CommandLine line;
    Error error = {0};
    assert_int_equal(parse(&bake, texts[i], store, argv, &line, &error), STATUS_OK);
    assert_true(line.help);
  }
}

static void test_any_number_of_arguments(void **state) {
  (void)state;
  Command any = bake;
  any.most_arguments = -1;
  char store[256], *argv[WORDS];
  CommandLine line;
  Error error = {0};
  assert_int_equal(parse(&any, "--out d 1 2 3 4 5 6", store, argv, &line, &error), STATUS_OK);
  assert_int_equal(line.count, 6);
  assert_string_equal(line.arguments[5], "6");
}

static void test_numbers(void **state) {
  (void)state;
  int64_t whole;
  double real;
  Error error = {0};
  assert_int_equal(command_line_integer("--heat", "-5", -5, 5, &whole, &error), STATUS_OK);
  assert_int_equal(whole, -5);
  assert_int_equal(command_line_real("--share", "0.25", 0, 1, &real, &error), STATUS_OK);
  assert_true(real == 0.25);
  static const char *const wholes[] = {"", "x", "5x", "6", "-6", "1.5", "99999999999999999999"};
  for (size_t i = 0; i < sizeof wholes / sizeof wholes[0]; i++) {
    error = (Error){0};
    assert_int_equal(command_line_integer("--heat", wholes[i], -5, 5, &whole, &error), STATUS_USAGE);
    assert_non_null(strstr(error.text, "; it must be a whole number from -5 to 5"));
  }
  error = (Error){0};
  assert_int_equal(command_line_integer("n", "9223372036854775808", 0, INT64_MAX, &whole, &error),
                   STATUS_USAGE);
  static const char *const reals[] = {"", "x", "1.5", "-0.1", "nan", "inf", "0.5 "};
  for (size_t i = 0; i < sizeof reals / sizeof reals[0]; i++) {
    error = (Error){0};
    assert_int_equal(command_line_real("--share", reals[i], 0, 1, &real, &error), STATUS_USAGE);
    assert_non_null(strstr(error.text, "--share is '"));
  }
}

static char *help_of(const Command *command) {
  char *text = NULL;
  size_t bytes;
  FILE *stream = open_memstream(&text, &bytes);
  assert_non_null(stream);
  command_line_print_help(command, stream);
  assert_int_equal(fclose(stream), 0);
  return text;
}

static void test_help(void **state) {
  (void)state;
  char *text = help_of(&bake);
  assert_string_equal(text, "usage: ringgpt bake --out DIR PATH...\n\nBakes.\n\n"
                            "  --out DIR              where to\n"
                            "  --heat N               how hot\n"
                            "  --slow                 take time\n");
  free(text);
  Command configured = bake;
  configured.configured = true;
  text = help_of(&configured);
  assert_non_null(strstr(text, "\nmodel:\n  vocab_size: 257"));
  assert_non_null(strstr(text, "section.key=value"));
  free(text);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_forms),
      cmocka_unit_test(test_values),
      cmocka_unit_test(test_mistakes),
      cmocka_unit_test(test_help_goes_first),
      cmocka_unit_test(test_any_number_of_arguments),
      cmocka_unit_test(test_numbers),
      cmocka_unit_test(test_help),
  };
  return cmocka_run_group_tests_name("command_line", tests, NULL, NULL);
}
