/* The YAML reader: the tree it makes, and everything it refuses, with the line and in bounded time. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/support/temp_dir.h"
#include "tests/support/unit.h"
#include "train/yaml_reader.h"

static const YamlNode *at(const YamlDocument *document, int64_t index) {
  assert_true(index >= 0 && index < document->count);
  return &document->nodes[index];
}

static void assert_scalar(const YamlNode *node, const char *text, bool plain, int64_t line) {
  assert_int_equal(node->kind, YAML_KIND_SCALAR);
  assert_string_equal(node->text, text);
  assert_int_equal(node->plain, plain);
  assert_int_equal(node->line, line);
}

static void test_tree(void **state) {
  (void)state;
  const char text[] = "# comment\na:\n  b: 1\n  c: 'x y'\nd: [2, \"\"]\n";
  YamlDocument document;
  Error error = {0};
  assert_int_equal(yaml_reader_parse("f", true, text, strlen(text), &document, &error), STATUS_OK);
  const YamlNode *root = at(&document, 0);
  assert_int_equal(root->kind, YAML_KIND_MAPPING);
  const YamlNode *a = at(&document, root->child);
  assert_scalar(a, "a", true, 2);
  const YamlNode *section = at(&document, a->next);
  assert_int_equal(section->kind, YAML_KIND_MAPPING);
  const YamlNode *b = at(&document, section->child), *one = at(&document, b->next);
  assert_scalar(b, "b", true, 3);
  assert_scalar(one, "1", true, 3);
  const YamlNode *c = at(&document, one->next), *xy = at(&document, c->next);
  assert_scalar(c, "c", true, 4);
  assert_scalar(xy, "x y", false, 4);
  assert_int_equal(xy->next, -1);
  const YamlNode *d = at(&document, section->next), *list = at(&document, d->next);
  assert_scalar(d, "d", true, 5);
  assert_int_equal(list->kind, YAML_KIND_SEQUENCE);
  const YamlNode *two = at(&document, list->child), *empty = at(&document, two->next);
  assert_scalar(two, "2", true, 5);
  assert_scalar(empty, "", false, 5);
  assert_int_equal(empty->next, -1);
  assert_int_equal(list->next, -1);
  yaml_reader_free(&document);
}

static void test_empty(void **state) {
  (void)state;
  static const char *const texts[] = {"", "\n\n", "# only a comment\n"};
  for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
    YamlDocument document;
    Error error = {0};
    assert_int_equal(yaml_reader_parse("f", true, texts[i], strlen(texts[i]), &document, &error), STATUS_OK);
    assert_int_equal(document.count, 0);
    yaml_reader_free(&document);
  }
}

/* Parses a text that must be refused with exactly this message. */
static void assert_refused(const char *text, size_t bytes, const char *message) {
  YamlDocument document;
  Error error = {0};
  const Status status = yaml_reader_parse("f", true, text, bytes, &document, &error);
  yaml_reader_free(&document);
  if (status == STATUS_OK) fail_msg("accepted, expected: %s", message);
  assert_string_equal(error.text, message);
  assert_int_equal(status, STATUS_CONFIG);
}

static void test_refusals(void **state) {
  (void)state;
  static const struct {
    const char *text;
    const char *message;
  } cases[] = {
      {"a: &x 1\n", "f:1: an anchor (&x) is not allowed; put a text that begins with & in quotes"},
      {"a:\n  &x b: 1\n", "f:2: an anchor (&x) is not allowed; put a text that begins with & in quotes"},
      {"a: &x\n  b: 1\n", "f:1: an anchor (&x) is not allowed; put a text that begins with & in quotes"},
      {"a: &x [1]\n", "f:1: an anchor (&x) is not allowed; put a text that begins with & in quotes"},
      {"\na: *x\n", "f:2: an alias (*x) is not allowed; put a text that begins with * in quotes"},
      {"a: !!int 5\n",
       "f:1: a tag (tag:yaml.org,2002:int) is not allowed; put a text that begins with ! in quotes"},
      {"a: !x [1]\n", "f:1: a tag (!x) is not allowed; put a text that begins with ! in quotes"},
      {"a: 1\nb: 2\na: 3\n", "f:3: duplicate key 'a', first given in line 1; keep one"},
      {"a:\n  b: 1\n  c: {d: 1}\n  \"b\": 2\n", "f:4: duplicate key 'b', first given in line 2; keep one"},
      {"a: {x: 1, y: 2,\n  x: 3}\n", "f:2: duplicate key 'x', first given in line 1; keep one"},
      {"[a, b]: 1\n", "f:1: a key is a mapping or a sequence; it must be a name"},
      {"{? {a: 1} : 2}\n", "f:1: a key is a mapping or a sequence; it must be a name"},
      {"a: 1\n---\nb: 2\n", "f:2: a second document begins; a file holds one"},
      {"a: |\n  x\n  y\n",
       "f:1: a value contains the control character 0x0a; write it on one line, without such characters"},
      {"a: \"x\\0y\"\n",
       "f:1: a value contains the control character 0x00; write it on one line, without such characters"},
      {"a: \"x\\ty\"\n",
       "f:1: a value contains the control character 0x09; write it on one line, without such characters"},
      {"a: \"x\\x7f\"\n",
       "f:1: a value contains the control character 0x7f; write it on one line, without such characters"},
      {"a:\n\tb: 1\n",
       "f:2: not valid YAML: while scanning for the next token, found character that cannot start any token"},
      {"a: [1, 2\nb: 3\n",
       "f:2: not valid YAML: while parsing a flow sequence, did not find expected ',' or ']'"},
      {"a: 1\n b: 2\n", "f:2: not valid YAML: mapping values are not allowed in this context"},
      {"a: \"x\n", "f:2: not valid YAML: while scanning a quoted scalar, found unexpected end of stream"},
      {"a: \xff\n", "f: byte 3: invalid leading UTF-8 octet (it must be UTF-8 text)"},
      {"a: \xc3(\n", "f: byte 4: invalid trailing UTF-8 octet (it must be UTF-8 text)"},
      {"a: \x01\n", "f: byte 3: control characters are not allowed (it must be UTF-8 text)"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
    assert_refused(cases[i].text, strlen(cases[i].text), cases[i].message);
  assert_refused("a: x\0y\n", 7, "f: byte 4: control characters are not allowed (it must be UTF-8 text)");
  /* UTF-16 with its mark is not taken for anything else. */
  assert_refused("\xff\xfe"
                 "a\0",
                 4, "f: byte 0: invalid leading UTF-8 octet (it must be UTF-8 text)");
}

/* prefix repeated `count` times, then suffix. */
static char *repeated(const char *prefix, size_t count, const char *suffix, size_t *bytes) {
  const size_t length = strlen(prefix);
  *bytes = count * length + strlen(suffix);
  char *text = malloc(*bytes + 1);
  assert_non_null(text);
  for (size_t i = 0; i < count; i++) memcpy(text + i * length, prefix, length);
  memcpy(text + count * length, suffix, strlen(suffix) + 1);
  return text;
}

static void assert_repeated_refused(const char *prefix, size_t count, const char *suffix,
                                    const char *message) {
  size_t bytes;
  char *text = repeated(prefix, count, suffix, &bytes);
  const clock_t begin = clock();
  assert_refused(text, bytes, message);
  const double seconds = (double)(clock() - begin) / CLOCKS_PER_SEC;
  if (seconds > 2) fail_msg("%zu x '%s' took %.1f s", count, prefix, seconds);
  free(text);
}

static void test_limits(void **state) {
  (void)state;
  size_t bytes;
  YamlDocument document;
  Error error = {0};
  /* As deep, as many and as long as is allowed. */
  char *text = repeated("[", 32, "]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]", &bytes);
  assert_int_equal(yaml_reader_parse("f", true, text, bytes, &document, &error), STATUS_OK);
  assert_int_equal(document.count, 32);
  yaml_reader_free(&document);
  free(text);
  text = repeated("- 1\n", 4095, "", &bytes);
  assert_int_equal(yaml_reader_parse("f", true, text, bytes, &document, &error), STATUS_OK);
  assert_int_equal(document.count, 4096);
  yaml_reader_free(&document);
  free(text);
  text = repeated("#", (size_t)1 << 20, "", &bytes);
  assert_int_equal(yaml_reader_parse("f", true, text, bytes, &document, &error), STATUS_OK);
  yaml_reader_free(&document);
  free(text);
  /* And one more. */
  assert_repeated_refused("[", 33, "", "f:1: nested deeper than 32 levels");
  assert_repeated_refused("- 1\n", 4096, "", "f:4096: more than 4096 values; a configuration has fewer");
  assert_repeated_refused("#", ((size_t)1 << 20) + 1, "",
                          "f: more than 1048576 bytes; a configuration is smaller");
}

static void test_bombs(void **state) {
  (void)state;
  assert_repeated_refused("[", 1000000, "", "f:1: nested deeper than 32 levels");
  assert_repeated_refused("{a: ", 250000, "", "f:1: nested deeper than 32 levels");
  assert_repeated_refused("- ", 500000, "", "f:1: nested deeper than 32 levels");
  assert_repeated_refused("? ", 500000, "", "f:1: a key is a mapping or a sequence; it must be a name");
  assert_repeated_refused("- a\n", 250000, "", "f:4096: more than 4096 values; a configuration has fewer");
  assert_repeated_refused("a\n", 500000, ": b\n",
                          "f:500001: not valid YAML: did not find expected <document start>");
  assert_repeated_refused("\"\\n\"", 1, "",
                          "f:1: a value contains the control character 0x0a; write it on one line, without "
                          "such characters");
}

static void test_files(void **state) {
  (void)state;
  TempDir directory = temp_dir_create();
  const char *path = temp_dir_path(&directory, "x.yaml");
  YamlDocument document;
  Error error = {0};
  assert_int_equal(yaml_reader_load(path, &document, &error), STATUS_NO_INPUT);
  assert_non_null(strstr(error.text, path));
  yaml_reader_free(&document);
  error = (Error){0};
  assert_int_equal(yaml_reader_load(directory.path, &document, &error), STATUS_NO_INPUT);
  assert_non_null(strstr(error.text, directory.path));
  yaml_reader_free(&document);
  temp_file_write_text(path, "a: b\n");
  error = (Error){0};
  assert_int_equal(yaml_reader_load(path, &document, &error), STATUS_OK);
  assert_int_equal(document.count, 3);
  yaml_reader_free(&document);
  size_t bytes;
  char *text = repeated("#", ((size_t)1 << 20) + 1, "", &bytes);
  temp_file_write(path, text, bytes);
  assert_int_not_equal(yaml_reader_load(path, &document, &error), STATUS_OK);
  assert_non_null(strstr(error.text, path));
  yaml_reader_free(&document);
  free(text);
  temp_dir_remove(&directory);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_tree),   cmocka_unit_test(test_empty), cmocka_unit_test(test_refusals),
      cmocka_unit_test(test_limits), cmocka_unit_test(test_bombs), cmocka_unit_test(test_files),
  };
  return cmocka_run_group_tests_name("yaml_reader", tests, NULL, NULL);
}
