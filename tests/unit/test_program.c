/* The program as a user meets it: exit codes, one line on stderr for each failure, and the way of a text
 * through prepare and inspect. */
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kernels/base/status.h"
#include "tests/support/program.h"
#include "tests/support/temp_dir.h"
#include "tests/support/unit.h"

static TempDir directory;
static char program[PATH_MAX];

static int setup(void **state) {
  (void)state;
  program_path(program);
  directory = temp_dir_create();
  return 0;
}

static int teardown(void **state) {
  (void)state;
  temp_dir_remove(&directory);
  return 0;
}

/* Runs the program in the shell, in the temporary directory; what it printed is in `out` and `error`. */
typedef struct Outcome {
  int status;
  char *out;
  char *error;
} Outcome;

static Outcome run_to(const char *out, const char *arguments) {
  char command[4 * PATH_MAX];
  const char *error = temp_dir_path(&directory, "stderr");
  (void)snprintf(command, sizeof command, "cd '%s' && '%s' %s >'%s' 2>'%s'", directory.path, program,
                 arguments, out, error);
  const int status = system(command);
  assert_true(WIFEXITED(status));
  const bool kept = strncmp(out, "/dev/", 5) != 0;
  return (Outcome){.status = WEXITSTATUS(status),
                   .out = kept ? temp_file_read_text(out) : NULL,
                   .error = temp_file_read_text(error)};
}

static Outcome run(const char *arguments) {
  return run_to(temp_dir_path(&directory, "stdout"), arguments);
}

static void release(Outcome *outcome) {
  free(outcome->out);
  free(outcome->error);
}

/* Fails with this status and one line on stderr that contains `text`. */
static void assert_fails_to(const char *out, const char *arguments, Status status, const char *text) {
  Outcome outcome = run_to(out, arguments);
  const char *end = strchr(outcome.error, '\n');
  if (outcome.status != (int)status || strncmp(outcome.error, "ringgpt: ", 9) != 0 || !end || end[1] ||
      !strstr(outcome.error, text))
    fail_msg("%s: status %d, expected %d and '%s': %s", arguments, outcome.status, (int)status, text,
             outcome.error);
  release(&outcome);
}

static void assert_fails(const char *arguments, Status status, const char *text) {
  assert_fails_to(temp_dir_path(&directory, "stdout"), arguments, status, text);
}

/* Succeeds with an output that contains `text`, and nothing on stderr but how the ring's traffic hides. */
static void assert_prints(const char *arguments, const char *text) {
  Outcome outcome = run(arguments);
  const bool quiet = *outcome.error == '\0' || strncmp(outcome.error, "overlap: ", 9) == 0;
  if (outcome.status != 0 || !quiet || !strstr(outcome.out, text))
    fail_msg("%s: status %d, expected '%s': %s%s", arguments, outcome.status, text, outcome.out,
             outcome.error);
  release(&outcome);
}

static void test_usage(void **state) {
  (void)state;
  assert_fails("", STATUS_USAGE, "no command");
  assert_fails("trian x", STATUS_USAGE, "unknown command 'trian'; did you mean 'train'?");
  assert_fails("help trian", STATUS_USAGE, "did you mean 'train'?");
  assert_fails("train", STATUS_USAGE, "usage: ringgpt train CONFIG.yaml");
  assert_fails("prepare x", STATUS_USAGE, "'--out DIR' is missing");
  assert_fails("inspect a b", STATUS_USAGE, "'b' is one argument too many");
  assert_fails("eval x.yaml --contxt 5", STATUS_USAGE, "did you mean '--context'?");
  assert_fails("prepare --out d --val-fraction 2 .", STATUS_USAGE, "--val-fraction is '2'");
  assert_fails("prepare --out d --shard-tokens 0 .", STATUS_USAGE, "--shard-tokens is '0'");
  assert_fails("prepare --out '' .", STATUS_USAGE, "--out is ''");
  assert_fails("prepare --out d --suffix , .", STATUS_USAGE, "--suffix is ','");
}

static void test_help(void **state) {
  (void)state;
  assert_prints("--help", "usage: ringgpt COMMAND");
  assert_prints("--version", "ringgpt 0.");
  assert_prints("help config", "\ntrain:\n  sequence_length: 1024");
  assert_prints("help prepare", "usage: ringgpt prepare --out DIR");
  assert_prints("train --help", "\ntrain:\n  sequence_length: 1024");
  assert_prints("eval -h", "--checkpoint DIR");
  assert_prints("inspect --help", "usage: ringgpt inspect PATH");
}

static void test_configuration(void **state) {
  (void)state;
  assert_fails("train absent.yaml", STATUS_NO_INPUT, "absent.yaml: cannot be opened");
  temp_file_write_text(temp_dir_path(&directory, "a.yaml"), "data: {train: x}\ntrain:\n  setps: 5\n");
  assert_fails("train a.yaml", STATUS_CONFIG,
               "a.yaml:3: unknown key 'train.setps'; did you mean 'train.steps'?");
  temp_file_write_text(temp_dir_path(&directory, "b.yaml"), "data: {train: x}\n");
  assert_int_equal(setenv("RINGGPT_CUDA", "/absent/ringgpt-cuda.so", 1), 0);
  assert_fails("train b.yaml device=cuda", STATUS_CONFIG,
               "device: cuda: no CUDA device: /absent/ringgpt-cuda.so is not there");
  assert_int_equal(unsetenv("RINGGPT_CUDA"), 0);
  assert_fails("train b.yaml steps", STATUS_USAGE, "'steps' is not of the form section.key=value");
}

/* A command whose results nobody gets has not worked. */
static void test_output_that_cannot_be_written(void **state) {
  (void)state;
  assert_fails_to("/dev/full", "--help", STATUS_IO, "standard output cannot be written");
}

static void test_prepare_and_inspect(void **state) {
  (void)state;
  temp_file_write_text(temp_dir_path(&directory, "text/a.txt"), "hello");
  temp_file_write_text(temp_dir_path(&directory, "text/b.txt"), "wide world");
  temp_file_write_text(temp_dir_path(&directory, "text/c.bin"), "not taken");
  assert_prints("prepare --out set --suffix .txt,.md --val-fraction 0 text",
                "2 documents, 15 bytes of text, 17 tokens");
  assert_prints("inspect set",
                "set: whole prepared set, tokenizer bytes, vocabulary of 257, end of document 256");
  assert_prints("inspect set/train_000000.bin.gz", ": 17 tokens of 2 bytes, largest id 256");
  assert_fails("prepare --out set text", STATUS_USAGE, "set: holds a prepared set");
  assert_prints("prepare --out set --overwrite --val-fraction 0 text",
                "3 documents, 24 bytes of text, 27 tokens");
  assert_prints("prepare --out other --val-fraction 0.5 text", "data: {train: other/train, val: other/val}");
  /* Damage: the last data byte before the trailer, then the end of the file. */
  size_t bytes;
  const char *shard = temp_dir_path(&directory, "set/train_000000.bin.gz");
  uint8_t *data = temp_file_read(shard, &bytes);
  data[bytes - 28 - 9] ^= 1;
  temp_file_write(shard, data, bytes);
  assert_fails("inspect set", STATUS_DATA, "train_000000.bin.gz");
  data[bytes - 28 - 9] ^= 1;
  temp_file_write(shard, data, bytes - 1);
  assert_fails("inspect set/train_000000.bin.gz", STATUS_DATA, "train_000000.bin.gz");
  free(data);
  assert_fails("inspect absent", STATUS_NO_INPUT, "absent: cannot be opened");
  assert_fails("inspect text", STATUS_NO_INPUT, "text: is no checkpoint");
  assert_fails("inspect text/a.txt", STATUS_DATA, "text/a.txt");
}

static void test_train_and_inspect(void **state) {
  (void)state;
  temp_file_write_text(temp_dir_path(&directory, "words/a.txt"),
                       "one two three four five six seven eight nine");
  temp_file_write_text(temp_dir_path(&directory, "c.yaml"), "run: {dir: run}\n"
                                                            "model: {hidden_size: 16, num_hidden_layers: 1, "
                                                            "num_attention_heads: 2}\n"
                                                            "data: {train: tokens/train}\n"
                                                            "parallelism: {ring: 2, threads: 1}\n"
                                                            "train: {sequence_length: 8, steps: 3}\n");
  assert_prints("prepare --out tokens words", "1 document, 44 bytes of text, 45 tokens");
  assert_prints("train c.yaml", "step 3/3  loss ");
  assert_prints("inspect run/checkpoints/step_00000003", "step_00000003: whole checkpoint, saved 2");
  assert_prints("inspect run/checkpoints/step_00000003", "\n  step 3, 24 tokens seen, 0 steps skipped\n");
  assert_prints("inspect run/checkpoints/step_00000003", "  model.embed_tokens.weight ");
  const char *weights = temp_dir_path(&directory, "run/checkpoints/step_00000003/model.safetensors");
  assert_prints("inspect run/checkpoints/step_00000003/model.safetensors", "F32   [257, 16]");
  size_t bytes;
  uint8_t *data = temp_file_read(weights, &bytes);
  data[bytes - 1] ^= 1;
  temp_file_write(weights, data, bytes);
  free(data);
  assert_fails("inspect run/checkpoints/step_00000003", STATUS_DATA, "model.safetensors");
}

/* A run that needs terabytes: planned with exit status 71, and refused before it has made anything. */
static void test_memory(void **state) {
  (void)state;
  temp_file_write_text(temp_dir_path(&directory, "memory/a.txt"), "one two three four five six seven");
  temp_file_write_text(temp_dir_path(&directory, "m.yaml"), "run: {dir: kept}\n"
                                                            "model: {hidden_size: 16, num_hidden_layers: 1, "
                                                            "num_attention_heads: 2}\n"
                                                            "device: cpu\n"
                                                            "data: {train: pieces, val: pieces}\n"
                                                            "parallelism: {ring: 2, threads: 1}\n"
                                                            "train: {sequence_length: 8, steps: 1}\n");
  assert_prints("prepare --out pieces --val-fraction 0 memory", "34 tokens");
  assert_prints("plan m.yaml", "\nit fits\n");
  assert_prints("plan m.yaml", "  training at 8 tokens ");
  assert_prints("plan m.yaml --context 16,32", "  evaluation at 32 tokens ");
  assert_prints("train m.yaml", "memory of a rank: weights ");
  assert_prints("eval m.yaml --checkpoint kept/checkpoints/step_00000001 --context 16",
                "context 16, 2 windows");
  const char *huge =
      "m.yaml train.micro_batch_size=1073741824 train.global_batch_size=1073741824 run.dir=never";
  char command[256];
  (void)snprintf(command, sizeof command, "plan %s", huge);
  Outcome outcome = run(command);
  assert_int_equal(outcome.status, STATUS_SYSTEM);
  assert_non_null(strstr(outcome.out, "\nit does not fit\nwhat would need less:\n  train.precision=bf16"));
  assert_string_equal(outcome.error, "ringgpt: m.yaml: the run does not fit this machine\n");
  release(&outcome);
  (void)snprintf(command, sizeof command, "train %s", huge);
  assert_fails(command, STATUS_SYSTEM, "no memory for training at 8 tokens: this machine needs ");
  assert_int_equal(access(temp_dir_path(&directory, "never"), F_OK), -1);
  /* It is told before it is found that the checkpoint is of another model. */
  assert_fails("eval m.yaml --checkpoint kept --context 16 model.hidden_size=1048576 "
               "model.num_attention_heads=4096 model.num_hidden_layers=65536",
               STATUS_SYSTEM, "no memory for evaluation at 16 tokens: this machine needs ");
  assert_fails("plan m.yaml --ranks 3", STATUS_USAGE, "--ranks is '3'");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_usage),
      cmocka_unit_test(test_help),
      cmocka_unit_test(test_configuration),
      cmocka_unit_test(test_output_that_cannot_be_written),
      cmocka_unit_test(test_prepare_and_inspect),
      cmocka_unit_test(test_train_and_inspect),
      cmocka_unit_test(test_memory),
  };
  return cmocka_run_group_tests_name("program", tests, setup, teardown);
}
