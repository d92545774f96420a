/* The table of options: every entry sets what it says and nothing else, keeps its range, and is in the help.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/unit.h"
#include "train/names.h"
#include "train/option_value.h"
#include "train/options.h"

static Config defaults(void) {
  Config config;
  Error error = {0};
  memset(&config, 0, sizeof config);
  if (options_set_defaults(&config, &error) != STATUS_OK) fail_msg("defaults: %s", error.text);
  return config;
}

static char *dump(const Config *config) {
  char *text;
  Error error = {0};
  assert_int_equal(config_dump(config, &text, &error), STATUS_OK);
  return text;
}

static void assert_override(const char *text, Config *config) {
  Error error = {0};
  if (options_override(text, config, &error) != STATUS_OK) fail_msg("%s: %s", text, error.text);
}

static void assert_refused(const char *text, Status status, const char *message) {
  Config config = defaults();
  Error error = {0};
  const Status got = options_override(text, &config, &error);
  if (got == STATUS_OK) fail_msg("%s is accepted; expected: %s", text, message);
  assert_string_equal(error.text, message);
  assert_int_equal(got, status);
}

static void test_table(void **state) {
  (void)state;
  int64_t count;
  const Option *table = options_table(&count);
  assert_true(count > 40);
  for (int64_t i = 0; i < count; i++) {
    const Option *option = &table[i];
    assert_ptr_equal(option_find(option->section, option->key), option);
    const size_t length = strlen(option->help);
    if (length < 5 || option->help[length - 1] != '.') fail_msg("%s: help is no sentence", option->key);
    assert_true((option->type == OPTION_CHOICE) == (option->choices != NULL));
    /* Sections lie together, so that help and dump name each once. */
    for (int64_t j = i + 1; j < count; j++)
      if (strcmp(table[j].section, option->section) == 0)
        assert_string_equal(table[j - 1].section, option->section);
  }
  assert_null(option_find("train", "learning_rate"));
  assert_null(option_find("", "ring"));
}

/* Another value than the default, as an override. */
static void other_value(const Option *option, char *text, size_t bytes) {
  char name[64];
  option_name(option, name, sizeof name);
  const char *value = "7";
  if (option->type == OPTION_BOOLEAN) value = strcmp(option->initial, "true") == 0 ? "false" : "true";
  if (option->type == OPTION_CHOICE) {
    const bool first = strcmp(option->choices[0], option->initial) == 0 && option->choices[1];
    value = option->choices[first ? 1 : 0];
  }
  if (option->type == OPTION_REAL) value = option->maximum <= 1 ? "0.375" : "7.25";
  if (option->type == OPTION_INTEGER && option->maximum < 7) value = "1";
  if (strcmp(option->key, "hidden_size") == 0) value = "24";
  if (option->type == OPTION_TEXT) value = "a text: *with* {odd} # characters";
  if (option->type == OPTION_INTEGERS) value = "[1, 22, 333]";
  if (option->type == OPTION_SCHEDULE) value = "{0: 12, 34: 56}";
  (void)snprintf(text, bytes, "%s=%s", name, value);
}

/* Lines that differ between two dumps of the same options. */
static int lines_that_differ(const char *a, const char *b) {
  int differing = 0;
  while (*a || *b) {
    const size_t in_a = strcspn(a, "\n"), in_b = strcspn(b, "\n");
    differing += in_a != in_b || strncmp(a, b, in_a) != 0;
    a += in_a + (a[in_a] == '\n');
    b += in_b + (b[in_b] == '\n');
  }
  return differing;
}

static void test_each_option_sets_itself_alone(void **state) {
  (void)state;
  int64_t count;
  const Option *table = options_table(&count);
  for (int64_t i = 0; i < count; i++) {
    Config before = defaults(), after = before;
    char text[256];
    other_value(&table[i], text, sizeof text);
    assert_override(text, &after);
    char *old = dump(&before), *new = dump(&after);
    const bool single = table[i].choices && !table[i].choices[1];
    if (lines_that_differ(old, new) != (single ? 0 : 1))
      fail_msg("%s changes other options, or nothing", text);
    /* What is dumped is read back. */
    YamlDocument document;
    Error error = {0};
    Config again = defaults();
    assert_int_equal(yaml_reader_parse("dump", true, new, strlen(new), &document, &error), STATUS_OK);
    if (options_apply(&document, &again, &error) != STATUS_OK) fail_msg("%s: %s", text, error.text);
    yaml_reader_free(&document);
    assert_memory_equal(&again, &after, sizeof after);
    free(old);
    free(new);
  }
}

/* Both ends of every range, and the numbers just beyond them. */
static void test_ranges(void **state) {
  (void)state;
  int64_t count;
  const Option *table = options_table(&count);
  for (int64_t i = 0; i < count; i++) {
    const Option *option = &table[i];
    if (option->type != OPTION_INTEGER && option->type != OPTION_REAL) continue;
    const bool whole = option->type == OPTION_INTEGER;
    const double step_down = whole ? 1 : fabs(option->minimum) * 1e-9 + 1e-300;
    const struct {
      double value;
      bool good;
    } cases[] = {
        {option->minimum, !option->above},
        {option->minimum - step_down, false},
        {option->maximum, !option->below},
        {whole ? option->maximum + 2 : option->maximum * (1 + 1e-9), false},
    };
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
      char name[64], text[160];
      option_name(option, name, sizeof name);
      (void)snprintf(text, sizeof text, whole ? "%s=%.0f" : "%s=%.17g", name, cases[c].value);
      Config config = defaults();
      Error error = {0};
      const Status status = options_override(text, &config, &error);
      if (status != (cases[c].good ? STATUS_OK : STATUS_CONFIG)) fail_msg("%s: %s", text, error.text);
      if (!cases[c].good) assert_non_null(strstr(error.text, name));
    }
  }
}

static void test_values_that_are_refused(void **state) {
  (void)state;
  static const struct {
    const char *text;
    const char *message;
  } cases[] = {
    {"train.steps=abc",
     "override 'train.steps=abc': 'train.steps' is abc; it must be a whole number, at least 1"},
    {"train.steps=1.5",
     "override 'train.steps=1.5': 'train.steps' is 1.5; it must be a whole number, at least 1"},
    {"train.steps=1e3",
     "override 'train.steps=1e3': 'train.steps' is 1e3; it must be a whole number, at least 1"},
    {"train.steps='5'",
     "override 'train.steps='5'': 'train.steps' is 5; it must be a whole number, at least 1"},
    {"train.steps=",
     "override 'train.steps=': 'train.steps' is empty; it must be a whole number, at least 1"},
    {"train.steps=null",
     "override 'train.steps=null': 'train.steps' is empty; it must be a whole number, at least 1"},
    {"train.steps=-", "override 'train.steps=-': 'train.steps' is a list or a mapping; it must be a whole "
                      "number, at least 1"},
    {"train.steps=[1]", "override 'train.steps=[1]': 'train.steps' is a list or a mapping; it must be a "
                        "whole number, at least 1"},
    {"train.steps=0", "override 'train.steps=0': 'train.steps' is 0; it must be at least 1"},
    {"train.steps=99999999999999999999", "override 'train.steps=99999999999999999999': 'train.steps' is "
                                         "99999999999999999999; it must be at most "
                                         "1099511627776"},
    {"train.steps=-99999999999999999999", "override 'train.steps=-99999999999999999999': 'train.steps' is "
                                          "-99999999999999999999; it must be at least 1"},
    {"optimizer.beta1=1", "override 'optimizer.beta1=1': 'optimizer.beta1' is 1; it must be below 1"},
    {"optimizer.eps=0", "override 'optimizer.eps=0': 'optimizer.eps' is 0; it must be above 0"},
    {"optimizer.eps=nan",
     "override 'optimizer.eps=nan': 'optimizer.eps' is nan; it must be a number, above 0 and at most 1"},
    {"optimizer.eps=0x1",
     "override 'optimizer.eps=0x1': 'optimizer.eps' is 0x1; it must be a number, above 0 and at most 1"},
    {"optimizer.clip_grad=1e999",
     "override 'optimizer.clip_grad=1e999': 'optimizer.clip_grad' is 1e999; it must be at most 1.0e+30"},
    {"optimizer.clip_grad=1-2",
     "override 'optimizer.clip_grad=1-2': 'optimizer.clip_grad' is 1-2; it must be a number, at least 0"},
    {"optimizer.clip_grad=.",
     "override 'optimizer.clip_grad=.': 'optimizer.clip_grad' is .; it must be a number, at least 0"},
    {"data.shuffle=yes", "override 'data.shuffle=yes': 'data.shuffle' is yes; it must be true or false"},
    {"data.shuffle='true'",
     "override 'data.shuffle='true'': 'data.shuffle' is true; it must be true or false"},
    {"scheduler.name=cosin", "override 'scheduler.name=cosin': 'scheduler.name' is cosin; it must be "
                             "cosine, linear, constant or wsd; did "
                             "you mean 'cosine'?"},
    {"scheduler.name=polynomial", "override 'scheduler.name=polynomial': 'scheduler.name' is polynomial; "
                                  "it must be cosine, linear, constant or "
                                  "wsd"},
    {"device=gpu",
     "override 'device=gpu': 'device' is gpu; it must be auto, cpu or cuda; did you mean 'cpu'?"},
    {"train.precision=fp16", "override 'train.precision=fp16': 'train.precision' is fp16; it must be fp32 or "
                             "bf16; did you mean 'fp32'?"},
#if !RINGGPT_MPI
    {"parallelism.transport=mpi", "override 'parallelism.transport=mpi': 'parallelism.transport' is mpi, "
                                  "but this build has no MPI transport; "
                                  "choose auto, local or nccl"},
#endif
    {"eval.contexts=5", "override 'eval.contexts=5': 'eval.contexts' is 5; it must be a list of up to 64 "
                        "whole numbers, each at least 1"},
    {"eval.contexts=[1, x]", "override 'eval.contexts=[1, x]': 'eval.contexts' is x; it must be a list of "
                             "up to 64 whole numbers, each at "
                             "least 1"},
    {"eval.contexts=[0]", "override 'eval.contexts=[0]': 'eval.contexts' is 0; it must be at least 1"},
    {"eval.contexts={1: 2}", "override 'eval.contexts={1: 2}': 'eval.contexts' is a mapping; it must be a "
                             "list of up to 64 whole numbers, "
                             "each at least 1"},
    {"train.sequence_schedule=[1]", "override 'train.sequence_schedule=[1]': 'train.sequence_schedule' is "
                                    "a list; it must be a mapping of up to 64 "
                                    "first steps to lengths"},
    {"train.sequence_schedule={0: a}", "override 'train.sequence_schedule={0: a}': "
                                       "'train.sequence_schedule' is a; it must be a mapping of up to 64 "
                                       "first steps to lengths"},
    {"train.sequence_schedule={0: [1]}", "override 'train.sequence_schedule={0: [1]}': "
                                         "'train.sequence_schedule' is a list or a mapping; it must be a "
                                         "mapping of up to 64 first steps to lengths"},
    {"model.hiden_size=5",
     "override 'model.hiden_size=5': unknown key 'model.hiden_size'; did you mean 'model.hidden_size'?"},
    {"train.learning_rate=5", "override 'train.learning_rate=5': unknown key 'train.learning_rate'; did "
                              "you mean 'optimizer.learning_rate'?"},
    {"learning_rate=5",
     "override 'learning_rate=5': unknown key 'learning_rate'; did you mean 'optimizer.learning_rate'?"},
    {"devise=cpu", "override 'devise=cpu': unknown key 'devise'; did you mean 'device'?"},
    {"train.flux_capacitor=1", "override 'train.flux_capacitor=1': unknown key 'train.flux_capacitor'; "
                               "'ringgpt train --help' lists all"},
    {"train=5", "override 'train=5': 'train' is a section; override its keys one by one, as train.key=value"},
    {"model.rope_scaling={factor: 2}",
     "override 'model.rope_scaling={factor: 2}': 'model.rope_scaling' is a mapping; override its keys one by "
     "one, as model.rope_scaling.key=value"},
    {"model.rope_scaling.factr=2", "override 'model.rope_scaling.factr=2': unknown key "
                                   "'model.rope_scaling.factr'; did you mean 'model.rope_scaling.factor'?"},
    {"model.rope_scaling.rope_type=yam", "override 'model.rope_scaling.rope_type=yam': "
                                         "'model.rope_scaling.rope_type' is yam; it must be default, "
                                         "linear, dynamic, yarn or llama3; did you mean 'yarn'?"},
    {"train.steps={",
     "override 'train.steps={': not valid YAML: while parsing a flow node, did not find expected node "
     "content"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
    assert_refused(cases[i].text, STATUS_CONFIG, cases[i].message);
  assert_refused("train.steps", STATUS_USAGE, "'train.steps' is not of the form section.key=value");
  assert_refused("=5", STATUS_USAGE, "'=5' is not of the form section.key=value");
}

static void test_lists_have_a_limit(void **state) {
  (void)state;
  char text[1024] = "eval.contexts=[1", pairs[2048] = "train.sequence_schedule={0: 1";
  for (int i = 1; i < CONFIG_LIST_LENGTH; i++) {
    (void)strcat(text, ",1");
    (void)snprintf(pairs + strlen(pairs), 32, ",%d: 1", i);
  }
  const size_t length = strlen(text), pairs_length = strlen(pairs);
  Config config = defaults();
  Error error = {0};
  (void)strcat(text, "]");
  (void)strcat(pairs, "}");
  assert_override(text, &config);
  assert_override(pairs, &config);
  assert_int_equal(config.eval.contexts.count, CONFIG_LIST_LENGTH);
  assert_int_equal(config.train.sequence_schedule.count, CONFIG_LIST_LENGTH);
  (void)strcpy(text + length, ",1]");
  (void)strcpy(pairs + pairs_length, ",64: 1}");
  assert_int_equal(options_override(text, &config, &error), STATUS_CONFIG);
  assert_non_null(strstr(error.text, "up to 64"));
  error = (Error){0};
  assert_int_equal(options_override(pairs, &config, &error), STATUS_CONFIG);
  assert_non_null(strstr(error.text, "up to 64"));
}

static void test_texts(void **state) {
  (void)state;
  Config config = defaults();
  /* Taken as it is, so that a pattern needs no quotes but the shell's. */
  assert_override("data.train=*.bin.gz", &config);
  assert_string_equal(config.data.train, "*.bin.gz");
  assert_override("data.train=a=b: [c] #d", &config);
  assert_string_equal(config.data.train, "a=b: [c] #d");
  assert_override("data.train=\"a b\"", &config);
  assert_string_equal(config.data.train, "a b");
  assert_override("data.train=", &config);
  assert_string_equal(config.data.train, "");
  char text[32 + CONFIG_TEXT_BYTES] = "run.name=";
  memset(text + 9, 'x', CONFIG_TEXT_BYTES - 1);
  assert_override(text, &config);
  assert_int_equal(strlen(config.run.name), CONFIG_TEXT_BYTES - 1);
  text[9 + CONFIG_TEXT_BYTES - 1] = 'x';
  Error error = {0};
  assert_int_equal(options_override(text, &config, &error), STATUS_CONFIG);
  assert_non_null(strstr(error.text, "'run.name' has 512 bytes; it must have less than 512"));
}

static void test_help_has_every_option(void **state) {
  (void)state;
  char *text = NULL;
  size_t bytes;
  FILE *stream = open_memstream(&text, &bytes);
  assert_non_null(stream);
  options_print_help(stream);
  assert_int_equal(fclose(stream), 0);
  int64_t count;
  const Option *table = options_table(&count);
  const char *at = text;
  for (int64_t i = 0; i < count; i++) {
    char entry[128], allowed[256];
    (void)snprintf(entry, sizeof entry, "\n%s%s: %s  (", *table[i].section ? "  " : "", table[i].key,
                   *table[i].initial ? table[i].initial : "empty");
    at = strstr(at, entry);
    if (!at) fail_msg("the help lacks '%s', or has it in another place", entry);
    option_value_allowed(&table[i], allowed, sizeof allowed);
    const size_t length = strlen(entry);
    if (strncmp(at + length, allowed, strlen(allowed)) != 0)
      fail_msg("%s: what is allowed is missing", entry);
    char first[16];
    (void)snprintf(first, sizeof first, "%.14s", table[i].help);
    assert_non_null(strstr(at, first));
  }
  for (const char *line = text; line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL)
    if (strcspn(line, "\n") > 110) fail_msg("a line of the help is too long: %.120s", line);
  free(text);
}

static void test_distance(void **state) {
  (void)state;
  assert_int_equal(names_distance("", ""), 0);
  assert_int_equal(names_distance("abc", ""), 3);
  assert_int_equal(names_distance("", "abcd"), 4);
  assert_int_equal(names_distance("steps", "steps"), 0);
  assert_int_equal(names_distance("step", "steps"), 1);
  assert_int_equal(names_distance("setps", "steps"), 1);
  assert_int_equal(names_distance("kitten", "sitting"), 3);
  assert_int_equal(names_distance("ca", "abc"), 3);
  char a[200], b[200];
  memset(a, 'a', sizeof a);
  memset(b, 'b', sizeof b);
  a[199] = b[199] = '\0';
  assert_int_equal(names_distance(a, b), NAME_MAX_BYTES);
}

static void test_numbers_are_printed_to_the_last_bit(void **state) {
  (void)state;
  static const struct {
    double value;
    const char *text;
  } cases[] = {{0, "0"},         {1, "1"},           {100000, "100000"}, {0.1, "0.1"},
               {6e-4, "0.0006"}, {1e-5, "1.0e-05"},  {1e30, "1.0e+30"},  {0.1 + 0.2, "0.30000000000000004"},
               {-2.5, "-2.5"},   {1.5e-8, "1.5e-08"}};
  char text[64];
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    option_value_print_real(cases[i].value, text, sizeof text);
    assert_string_equal(text, cases[i].text);
  }
  uint64_t bits = 1;
  for (int i = 0; i < 10000; i++) {
    bits = bits * 6364136223846793005u + 1442695040888963407u;
    double value;
    memcpy(&value, &bits, sizeof value);
    if (!isfinite(value)) continue;
    option_value_print_real(value, text, sizeof text);
    if (strtod(text, NULL) != value) fail_msg("%.17g is printed as %s", value, text);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_table),
      cmocka_unit_test(test_each_option_sets_itself_alone),
      cmocka_unit_test(test_ranges),
      cmocka_unit_test(test_values_that_are_refused),
      cmocka_unit_test(test_lists_have_a_limit),
      cmocka_unit_test(test_texts),
      cmocka_unit_test(test_help_has_every_option),
      cmocka_unit_test(test_distance),
      cmocka_unit_test(test_numbers_are_printed_to_the_last_bit),
  };
  return cmocka_run_group_tests_name("options", tests, NULL, NULL);
}
