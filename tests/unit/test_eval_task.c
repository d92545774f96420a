/* ringgpt eval --task as users run it: the results in JSON and on the terminal, on a ring, with and without
 * the keys of other ranks, and each mistake with its exit status and message. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/launch.h"
#include "tests/support/temp_dir.h"
#include "tests/support/training.h"
#include "tests/support/unit.h"

enum { MOST = 24 };

/* A run of three steps on bytes, whose checkpoint carries their tokenizer. */
static Config trained;

static int set_up(void **state) {
  if (training_set_up(state) != 0) return -1;
  const char *const overrides[] = {"train.steps=3", NULL};
  trained = training_config(training_directory(state), "trained", overrides);
  (void)training_metrics(&trained);
  return 0;
}

/* Runs eval of the checkpoint with `arguments`, ended by NULL: the exit status; standard error to `errors`.
 */
static int evaluate(const char *const *arguments, char **errors) {
  char *checkpoint = training_path(trained.run.dir, "checkpoints/step_00000003");
  char *log = training_path(trained.run.dir, "errors");
  const char *all[MOST] = {"--checkpoint", checkpoint, "parallelism.threads=1"};
  for (int i = 0; arguments[i] != NULL; i++) all[3 + i] = arguments[i];
  const Launch launch = {.command = "eval", .config = &trained, .overrides = all, .errors = log};
  const int status = launch_finish(launch_start(&launch));
  char *text = temp_file_read_text(log);
  if (errors != NULL) {
    *errors = text;
  } else {
    if (status != 0) fail_msg("status %d: %s", status, text);
    free(text);
  }
  free(log);
  free(checkpoint);
  return status;
}

/* The results of an evaluation that works; json_decref. */
static json_t *results(const char *task, const char *contexts, const char *ring, const char *more) {
  char *path = training_path(trained.run.dir, "task.json");
  const char *const arguments[] = {"--task", task, "--context", contexts, "--samples", "2",
                                   "--json", path, ring,        more,     NULL};
  (void)evaluate(arguments, NULL);
  json_t *root = json_load_file(path, 0, NULL);
  assert_non_null(root);
  assert_string_equal(json_string_value(json_object_get(root, "task")), task);
  free(path);
  return root;
}

static const json_t *context_of(const json_t *root, size_t i) {
  return json_array_get(json_object_get(root, "contexts"), i);
}

static json_int_t number(const json_t *object, const char *part, const char *name) {
  const json_t *in = part == NULL ? object : json_object_get(object, part);
  assert_true(json_is_integer(json_object_get(in, name)));
  return json_integer_value(json_object_get(in, name));
}

static void test_passkey(void **state) {
  (void)state;
  json_t *root = results("passkey", "512,700", "parallelism.ring=2", "--depths=3");
  assert_int_equal(json_array_size(json_object_get(root, "contexts")), 2);
  const json_t *second = context_of(root, 1);
  assert_int_equal(number(second, NULL, "context"), 700);
  assert_int_equal(number(second, NULL, "asked"), 6);
  assert_int_equal(number(second, "tokens", "asked"), 30);
  const json_t *depths = json_object_get(second, "depths");
  assert_int_equal(json_array_size(depths), 3);
  assert_true(json_real_value(json_object_get(json_array_get(depths, 1), "depth")) == 0.5);
  json_decref(root);
}

static void test_needle(void **state) {
  (void)state;
  json_t *root = results("needle", "512", "parallelism.data=2", "--depths=2");
  assert_int_equal(number(context_of(root, 0), NULL, "asked"), 4);
  assert_int_equal(number(context_of(root, 0), "tokens", "asked"), 28);
  json_decref(root);
}

/* The same questions on every ring; which of them are another rank's depends on it. */
static void test_mqar(void **state) {
  (void)state;
  json_t *alone = results("mqar", "512", "parallelism.ring=1", "data.mqar_pairs=32");
  json_t *ring = results("mqar", "512", "parallelism.ring=4", "data.mqar_pairs=32");
  json_t *local = results("mqar", "512", "parallelism.ring=4", "--local-keys-only");
  const json_t *one = context_of(alone, 0);
  const json_t *four = context_of(ring, 0);
  const json_int_t asked = number(one, NULL, "asked");
  assert_true(asked > 300);
  assert_int_equal(number(four, NULL, "asked"), asked);
  assert_int_equal(number(four, NULL, "right"), number(one, NULL, "right"));
  assert_int_equal(number(one, "remote", "asked"), 0);
  assert_int_equal(number(four, "own", "asked") + number(four, "remote", "asked"), asked);
  assert_true(2 * number(four, "remote", "asked") > asked);
  assert_true(json_is_true(json_object_get(local, "local_keys_only")));
  assert_true(json_is_false(json_object_get(ring, "local_keys_only")));
  json_decref(alone);
  json_decref(ring);
  json_decref(local);
}

static void check_mistake(int status, const char *message, const char *const *arguments) {
  char *errors = NULL;
  const int got = evaluate(arguments, &errors);
  if (got != status || strstr(errors, message) == NULL)
    fail_msg("status %d: %s, not: %s", got, errors, message);
  free(errors);
}

#define MISTAKE(status, message, ...) check_mistake(status, message, (const char *const[]){__VA_ARGS__, NULL})

static void test_mistakes(void **state) {
  (void)state;
  MISTAKE(64, "--task is 'nedle'; it must be needle, passkey or mqar", "--task", "nedle");
  MISTAKE(64, "--depths is for --task needle and passkey", "--task", "mqar", "--depths", "3");
  MISTAKE(64, "--tokenizer is for --task needle and passkey", "--task", "mqar", "--tokenizer", "bytes");
  MISTAKE(64, "--samples is '0'", "--task", "mqar", "--samples", "0");
  MISTAKE(64, "--depths is '65'", "--task", "needle", "--depths", "65");
  MISTAKE(64, "--samples is for --task", "--samples", "2");
  MISTAKE(64, "--local-keys-only is for --task", "--local-keys-only");
  MISTAKE(64, "there is no tokenizer", "--task", "passkey", "--tokenizer", "bites");
  MISTAKE(78, "data.val", "--task", "needle", "data.val=");
  MISTAKE(78, "a context of 100 tokens is too short", "--task", "needle", "--context", "100");
  MISTAKE(65, "too few", "--task", "needle", "--context", "1000000");
  MISTAKE(78, "data.mqar_pairs (128)", "--task", "mqar", "data.mqar_pairs=128");
  char *tokenizer = training_path(trained.run.dir, "checkpoints/step_00000003/ringgpt_tokenizer.json");
  char *hidden = training_path(trained.run.dir, "hidden.json");
  char *manifest = training_path(trained.run.dir, "checkpoints/step_00000003/manifest.json");
  char *away = training_path(trained.run.dir, "away.json");
  assert_int_equal(rename(tokenizer, hidden), 0);
  assert_int_equal(rename(manifest, away), 0);
  MISTAKE(78, "holds no tokenizer", "--task", "passkey", "--context", "512");
  assert_int_equal(rename(hidden, tokenizer), 0);
  assert_int_equal(rename(away, manifest), 0);
  free(away);
  free(manifest);
  free(hidden);
  free(tokenizer);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_passkey), cmocka_unit_test(test_needle),
                                     cmocka_unit_test(test_mqar), cmocka_unit_test(test_mistakes)};
  return cmocka_run_group_tests(tests, set_up, temp_dir_tear_down);
}
