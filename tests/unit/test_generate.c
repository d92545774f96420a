/* ringgpt generate: models of seconds are trained, and the program continues text by them. */
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "checkpoints/checkpoint.h"
#include "data/prepare.h"
#include "kernels/base/file.h"
#include "kernels/base/memory.h"
#include "model/model.h"
#include "tests/support/expect.h"
#include "tests/support/program.h"
#include "tests/support/ranks.h"
#include "tests/support/small_gpt2.h"
#include "tests/support/temp_dir.h"
#include "tests/support/training.h"
#include "tests/support/unit.h"

enum { STEPS = 4, VOCAB = 257, POSITIONS = 40, MOST_TEXT = 512, COMMAND_BYTES = 4 * PATH_MAX };

#define PROMPT "ring hop shard "

/* What the tests share: a directory with three trained models. */
static TempDir *directory;
static char program[PATH_MAX];
static Config plain, positions; /* byte models, with RoPE and with POSITIONS learned positions */
static char gpt2[PATH_MAX];     /* the checkpoint of a model with the small tokenizer */

/* ---------------------------------------------------------------- models */

static Config train(const char *name, const char *const overrides[]) {
  Error error = {0};
  const Config config = training_config(directory->path, name, overrides);
  expect_ok(training_run(&config, &error), &error);
  return config;
}

/* A model whose vocabulary is larger than its tokenizer's. */
static void train_gpt2(void) {
  char tokenizer[512];
  char data[512];
  const char *const paths[] = {temp_dir_path(directory, "doc000.txt"),
                               temp_dir_path(directory, "doc001.txt")};
  Error error = {0};
  Description description;
  const PrepareOptions options = {.out = temp_dir_path(directory, "tokens"),
                                  .tokenizer = tokenizer,
                                  .shard_tokens = PREPARE_SHARD_TOKENS,
                                  .paths = paths,
                                  .path_count = 2};
  small_gpt2_write(directory, "mini", "vocab.json", "merges.txt");
  (void)snprintf(tokenizer, sizeof tokenizer, "gpt2:%s", temp_dir_path(directory, "mini"));
  expect_ok(prepare(&options, &description, &error), &error);
  (void)snprintf(data, sizeof data, "data.train=%s", temp_dir_path(directory, "tokens/train"));
  const Config config =
      train("gpt2", (const char *[]){data, "data.val=''", "model.vocab_size=384", "train.steps=2", NULL});
  char *path = training_checkpoint(&config, 2, "");
  (void)snprintf(gpt2, sizeof gpt2, "%s", path);
  free(path);
}

static int set_up(void **state) {
  program_path(program);
  if (training_set_up(state) != 0) return -1;
  directory = *state;
  plain = train("plain", (const char *[]){"train.steps=4", NULL});
  char limit[64];
  (void)snprintf(limit, sizeof limit, "train.sequence_length=%d", POSITIONS);
  positions = train("positions",
                    (const char *[]){limit, "train.steps=4", "model.position=learned", "model.norm=layernorm",
                                     "model.activation=gelu", "model.bias=true",
                                     "model.tie_word_embeddings=true", "model.num_key_value_heads=4", NULL});
  train_gpt2();
  return 0;
}

/* ---------------------------------------------------------------- running it */

typedef struct Outcome {
  int status;
  uint8_t *out; /* (bytes) */
  size_t bytes;
  char *error;
} Outcome;

/* With the text going to the file `out` and what is said to `error`; returns the exit status. */
static int run_into(const char *out, const char *error, const char *arguments) {
  char command[COMMAND_BYTES];
  (void)snprintf(command, sizeof command, "cd '%s' && '%s' generate %s >'%s' 2>'%s'", directory->path,
                 program, arguments, out, error);
  const int status = system(command);
  assert_true(WIFEXITED(status));
  return WEXITSTATUS(status);
}

/* With the text going to the file `out`, which is not read. */
static Outcome run_to(const char *out, const char *arguments) {
  const char *error = temp_dir_path(directory, "stderr");
  const int status = run_into(out, error, arguments);
  return (Outcome){.status = status, .error = temp_file_read_text(error)};
}

static Outcome run(const char *arguments) {
  const char *out = temp_dir_path(directory, "stdout");
  Outcome outcome = run_to(out, arguments);
  outcome.out = temp_file_read(out, &outcome.bytes);
  return outcome;
}

static void release(Outcome *outcome) {
  free(outcome->out);
  free(outcome->error);
}

/* The text that `arguments` give behind --checkpoint, and what is said on stderr. */
static Outcome text_with_threads(const Config *config, const char *arguments) {
  char all[COMMAND_BYTES / 2];
  char *path = training_checkpoint(config, STEPS, "");
  (void)snprintf(all, sizeof all, "--checkpoint '%s' %s", path, arguments);
  const Outcome outcome = run(all);
  if (outcome.status != 0) fail_msg("%s: status %d: %s", arguments, outcome.status, outcome.error);
  free(path);
  return outcome;
}

/* The same by one thread: several wait for one another all the time where other programs have the cores. */
static Outcome text_of(const Config *config, const char *arguments) {
  char all[COMMAND_BYTES / 4];
  (void)snprintf(all, sizeof all, "--threads 1 %s", arguments);
  return text_with_threads(config, all);
}

static bool same_text(const char *left, const char *right) {
  Outcome a = text_of(&plain, left);
  Outcome b = text_of(&plain, right);
  assert_true(a.bytes > 0);
  const bool same = a.bytes == b.bytes && memcmp(a.out, b.out, a.bytes) == 0;
  release(&b);
  release(&a);
  return same;
}

/* Nothing on stdout and one line on stderr that contains `text`. */
static void check_failure(Outcome outcome, const char *arguments, Status status, const char *text) {
  const char *end = strchr(outcome.error, '\n');
  if (outcome.status != (int)status || outcome.bytes > 0 || strncmp(outcome.error, "ringgpt: ", 9) != 0 ||
      end == NULL || end[1] != '\0' || strstr(outcome.error, text) == NULL) {
    fail_msg("%s: status %d, expected %d and '%s': %s", arguments, outcome.status, (int)status, text,
             outcome.error);
  }
  release(&outcome);
}

static void expect_fails(const char *arguments, Status status, const char *text) {
  check_failure(run(arguments), arguments, status, text);
}

/* ---------------------------------------------------------------- against the model */

/* A text and the model that says how likely each byte behind it is. */
typedef struct Judge {
  const Config *config;
  const uint8_t *text; /* (length) prompt and continuation */
  int64_t prompt;
  int64_t length;
} Judge;

/* Gives nll (VOCAB) for each token behind the first `length` bytes: as many sequences, which differ in their
 * last target alone. Nothing is kept from one call to the next. */
static Status judge_next(Model *model, const uint8_t *text, int64_t length, double *nll, Error *error) {
  static int32_t tokens[VOCAB * MOST_TEXT];
  static int32_t targets[VOCAB * MOST_TEXT];
  static float all[VOCAB * MOST_TEXT];
  for (int64_t i = 0; i < VOCAB * length; i++) {
    const bool last = i % length == length - 1;
    tokens[i] = text[i % length];
    targets[i] = last ? (int32_t)(i / length) : IGNORED_TARGET;
  }
  const ModelBatch batch = {
      .sequences = VOCAB, .sequence_length = length, .tokens = tokens, .targets = targets};
  TRY(model_evaluate(model, &batch, all, error));
  for (int64_t token = 0; token < VOCAB; token++) nll[token] = (double)all[(token + 1) * length - 1];
  return STATUS_OK;
}

/* Every byte of the continuation must be the likeliest, by more than rounding where it is not the first. */
static Status judge_text(Model *model, const Judge *judge, Error *error) {
  for (int64_t at = judge->prompt; at < judge->length; at++) {
    double nll[VOCAB];
    double least = INFINITY;
    TRY(judge_next(model, judge->text, at, nll, error));
    for (int64_t token = 0; token < VOCAB; token++) least = fmin(least, nll[token]);
    if (!(nll[judge->text[at]] <= least + 1e-5)) {
      return fail(error, STATUS_INTERNAL, "byte %d at %d has nll %.7f, another one has %.7f",
                  (int)judge->text[at], (int)at, nll[judge->text[at]], least);
    }
  }
  return STATUS_OK;
}

static Status judge_rank(TestRank *rank, void *context, Error *error) {
  const Judge *judge = context;
  const ModelOptions options = {.config = judge->config->model, .loss_chunk = 256};
  Model *model = NULL;
  Status status = STATUS_OK;
  char *path = training_checkpoint(judge->config, STEPS, "");
  TRY_GOTO(model_create(rank->device, rank->ring, &options, &model, error), done);
  TRY_GOTO(checkpoint_load_weights(path, model_table(model), model_weights(model), rank->world, error), done);
  status = judge_text(model, judge, error);
done:
  model_destroy(model);
  free(path);
  return status;
}

static void test_greedy_is_the_likeliest(void **state) {
  (void)state;
  const Config *const models[] = {&plain, &positions};
  for (int i = 0; i < 2; i++) {
    uint8_t text[MOST_TEXT] = PROMPT;
    Error error = {0};
    Outcome outcome = text_of(models[i], "--prompt '" PROMPT "' --tokens 6 --temperature 0");
    assert_int_equal(outcome.bytes, 6);
    memcpy(text + strlen(PROMPT), outcome.out, outcome.bytes);
    Judge judge = {.config = models[i],
                   .text = text,
                   .prompt = (int64_t)strlen(PROMPT),
                   .length = (int64_t)(strlen(PROMPT) + outcome.bytes)};
    expect_ok(run_ranks(1, 1, 1, judge_rank, &judge, &error), &error);
    release(&outcome);
  }
}

/* ---------------------------------------------------------------- what decides the text */

#define SAMPLED "--tokens 60 --temperature 0.9 --top-k 50 --top-p 0.95 --seed 7 "

static void test_the_seed_decides(void **state) {
  (void)state;
  const char *prompt = SAMPLED "--prompt '" PROMPT "'";
  assert_true(same_text(prompt, prompt));
  assert_false(same_text(
      prompt, "--tokens 60 --temperature 0.9 --top-k 50 --top-p 0.95 --seed 8 --prompt '" PROMPT "'"));
  assert_false(same_text(prompt, SAMPLED "--prompt 'ring hop shard'"));
  assert_true(same_text("--tokens 20 --temperature 0 --seed 1 --prompt a",
                        "--tokens 20 --top-k 1 --seed 2 --prompt a"));
}

/* The text is the same with as many threads as there are cores. */
static void test_threads_do_not(void **state) {
  (void)state;
  const char *arguments = "--tokens 4 --seed 7 --prompt '" PROMPT "'";
  Outcome one = text_of(&plain, arguments);
  Outcome all = text_with_threads(&plain, arguments);
  assert_int_equal(all.bytes, one.bytes);
  assert_memory_equal(all.out, one.out, one.bytes);
  release(&all);
  release(&one);
}

static void test_the_way_of_the_prompt_does_not(void **state) {
  (void)state;
  const char *prompt = SAMPLED "--prompt '" PROMPT "'";
  temp_file_write_text(temp_dir_path(directory, "prompt.txt"), PROMPT);
  assert_true(same_text(prompt, SAMPLED "--prompt-file prompt.txt"));
  assert_true(same_text(prompt, SAMPLED "--prompt-file - <prompt.txt"));
  assert_true(same_text(prompt, SAMPLED "--prompt-file /dev/stdin <prompt.txt"));
  assert_true(same_text(prompt, SAMPLED "--chunk 1 --prompt '" PROMPT "'"));
  assert_true(
      same_text(SAMPLED "--chunk 3 --prompt '" PROMPT "'", SAMPLED "--chunk 1000 --prompt '" PROMPT "'"));
}

/* A text that is given back as the prompt goes on as it would have. */
static void test_going_on(void **state) {
  (void)state;
  const char *sampled = "--seed 3 --temperature 0.8 --top-p 0.9 --prompt-file";
  char arguments[256];
  temp_file_write_text(temp_dir_path(directory, "first.txt"), PROMPT);
  (void)snprintf(arguments, sizeof arguments, "%s first.txt --tokens 40", sampled);
  Outcome whole = text_of(&plain, arguments);
  (void)snprintf(arguments, sizeof arguments, "%s first.txt --tokens 25", sampled);
  Outcome first = text_of(&plain, arguments);
  assert_int_equal(whole.bytes, 40);
  assert_int_equal(first.bytes, 25);
  char text[128] = PROMPT;
  memcpy(text + strlen(PROMPT), first.out, first.bytes);
  temp_file_write(temp_dir_path(directory, "second.txt"), text, strlen(PROMPT) + first.bytes);
  (void)snprintf(arguments, sizeof arguments, "%s second.txt --tokens 15", sampled);
  Outcome second = text_of(&plain, arguments);
  assert_int_equal(second.bytes, 15);
  assert_memory_equal(first.out, whole.out, 25);
  assert_memory_equal(second.out, whole.out + 25, 15);
  release(&second);
  release(&first);
  release(&whole);
}

/* ---------------------------------------------------------------- where it begins and ends */

static void test_empty_prompt(void **state) {
  (void)state;
  temp_file_write_text(temp_dir_path(directory, "empty.txt"), "");
  assert_true(same_text("--tokens 10 --prompt ''", "--tokens 10 --prompt-file empty.txt"));
}

/* Draws from the whole vocabulary come to the end of a document sooner or later: with 257 tokens about as
 * likely as one another, once in some hundred tokens. */
static void test_the_document_ends(void **state) {
  (void)state;
  for (int seed = 1; seed <= 2; seed++) {
    char arguments[128];
    (void)snprintf(arguments, sizeof arguments, "--tokens 2000 --temperature 1000 --seed %d --prompt a",
                   seed);
    Outcome outcome = text_of(&plain, arguments);
    assert_true(outcome.bytes < 1500);
    assert_string_equal(outcome.error, "");
    release(&outcome);
  }
}

static void test_learned_positions(void **state) {
  (void)state;
  enum { LENGTH = 35 };
  char arguments[256];
  (void)snprintf(arguments, sizeof arguments, "--tokens 30 --temperature 0 --prompt %.*s", LENGTH,
                 "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa");
  Outcome outcome = text_of(&positions, arguments);
  /* The last token needs no position: nothing is computed from it. */
  assert_int_equal(outcome.bytes, POSITIONS - LENGTH + 1);
  assert_non_null(strstr(outcome.error, "no learned position for a further token: ended after 6"));
  release(&outcome);
  (void)snprintf(arguments, sizeof arguments, "--tokens 6 --temperature 0 --prompt %.*s", LENGTH,
                 "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa");
  outcome = text_of(&positions, arguments);
  assert_string_equal(outcome.error, "");
  release(&outcome);
  char *path = training_checkpoint(&positions, STEPS, "");
  char all[PATH_MAX];
  (void)snprintf(all, sizeof all, "--checkpoint '%s' --tokens 1 --prompt %s", path,
                 "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa");
  expect_fails(all, STATUS_CONFIG, "the prompt has 41 tokens, but the model has learned positions for 40");
  free(path);
}

/* ---------------------------------------------------------------- tokenizers */

/* Copies files of a checkpoint to DIRECTORY/bare: a model of another program's. */
static const char *bare_model(const char *checkpoint) {
  static const char *const names[] = {"config.json", "model.safetensors"};
  const char *to = temp_dir_path(directory, "bare");
  for (int i = 0; i < 2; i++) {
    char path[PATH_MAX + 32];
    size_t bytes = 0;
    (void)snprintf(path, sizeof path, "%s/%s", checkpoint, names[i]);
    uint8_t *data = temp_file_read(path, &bytes);
    (void)snprintf(path, sizeof path, "%s/%s", to, names[i]);
    temp_file_write(path, data, bytes);
    free(data);
  }
  return to;
}

static void test_checkpoint_of_gpt2(void **state) {
  (void)state;
  char arguments[PATH_MAX + 256];
  (void)snprintf(arguments, sizeof arguments,
                 "--checkpoint '%s' --threads 1 --tokens 200 --temperature 100 --prompt 'the cat'", gpt2);
  Outcome own = run(arguments);
  if (own.status != 0) fail_msg("%s", own.error);
  assert_true(own.bytes > 0);
  /* The same from a directory without one, by its name; and with the files beside it. */
  const char *bare = bare_model(gpt2);
  (void)snprintf(arguments, sizeof arguments,
                 "--checkpoint bare --threads 1 --tokens 200 --temperature 100 --prompt 'the cat' "
                 "--tokenizer gpt2:mini");
  Outcome named = run(arguments);
  assert_int_equal(named.bytes, own.bytes);
  assert_memory_equal(named.out, own.out, own.bytes);
  release(&named);
  release(&own);
  expect_fails("--checkpoint bare --tokens 1 --prompt a", STATUS_CONFIG, "bare: holds no tokenizer");
  expect_fails("--checkpoint bare --tokens 1 --prompt a --tokenizer words", STATUS_USAGE, "\"words\"");
  expect_fails("--checkpoint bare --tokens 1 --prompt a --tokenizer gpt2:none", STATUS_NO_INPUT, "none");
  assert_non_null(bare);
}

/* A file of a checkpoint's tokenizer that is damaged, and the same gone; it is whole again afterwards. */
static void check_tokenizer_file(const char *checkpoint, const char *name) {
  char arguments[PATH_MAX + 256];
  char path[PATH_MAX + 32];
  char text[64];
  size_t bytes = 0;
  (void)snprintf(arguments, sizeof arguments, "--checkpoint '%s' --tokens 1 --prompt a", checkpoint);
  (void)snprintf(path, sizeof path, "%s/%s", checkpoint, name);
  uint8_t *data = temp_file_read(path, &bytes);
  data[bytes - 3] ^= 1;
  temp_file_write(path, data, bytes);
  (void)snprintf(text, sizeof text, "%s: damaged", name);
  expect_fails(arguments, STATUS_DATA, text);
  assert_int_equal(unlink(path), 0);
  (void)snprintf(text, sizeof text, "%s: is missing: the manifest lists it", name);
  expect_fails(arguments, STATUS_DATA, text);
  data[bytes - 3] ^= 1;
  temp_file_write(path, data, bytes);
  free(data);
}

static void test_damaged_tokenizer(void **state) {
  (void)state;
  char *path = training_checkpoint(&plain, STEPS, "");
  check_tokenizer_file(gpt2, "vocab.json");
  check_tokenizer_file(gpt2, "merges.txt");
  check_tokenizer_file(path, "ringgpt_tokenizer.json");
  free(path);
}

static void test_tokenizer_that_does_not_fit(void **state) {
  (void)state;
  char arguments[PATH_MAX + 256];
  char *path = training_checkpoint(&plain, STEPS, "");
  (void)snprintf(arguments, sizeof arguments, "--checkpoint '%s' --tokens 1 --prompt a --tokenizer gpt2:mini",
                 path);
  expect_fails(arguments, STATUS_CONFIG, "its model knows 257 tokens, but the tokenizer has 317");
  free(path);
  /* One that is small enough gives itself away by its end of a document. */
  (void)snprintf(arguments, sizeof arguments, "--checkpoint '%s' --tokens 1 --prompt a --tokenizer bytes",
                 gpt2);
  expect_fails(arguments, STATUS_CONFIG, "ends a document by token 316, the tokenizer by 256");
}

/* A run whose set has lost its tokenizer says so, once, and goes on without. */
static void test_lost_tokenizer(void **state) {
  (void)state;
  char data[512];
  (void)snprintf(data, sizeof data, "data.train=%s", temp_dir_path(directory, "tokens/train"));
  assert_int_equal(unlink(temp_dir_path(directory, "tokens/vocab.json")), 0);
  assert_int_equal(unlink(temp_dir_path(directory, "mini/vocab.json")), 0);
  const Config config =
      train("lost", (const char *[]){data, "data.val=''", "model.vocab_size=384", "train.steps=2", NULL});
  char *log = temp_file_read_text(temp_dir_path(directory, "lost/log.txt"));
  const char *line = strstr(log, "warning: ");
  assert_non_null(line);
  assert_non_null(strstr(line, "tokens: was prepared with the tokenizer gpt2:"));
  assert_null(strstr(strchr(line, '\n'), "was prepared with"));
  free(log);
  char *path = training_checkpoint(&config, 2, "");
  char arguments[PATH_MAX + 256];
  (void)snprintf(arguments, sizeof arguments, "--checkpoint '%s' --tokens 1 --prompt a", path);
  expect_fails(arguments, STATUS_CONFIG, "holds no tokenizer");
  free(path);
}

/* ---------------------------------------------------------------- terminals */

/* A terminal that passes on what it gets as it is; `name` is what to open. */
typedef struct Terminal {
  int master;
  int slave;
  char name[64];
} Terminal;

static bool open_terminal(Terminal *terminal) {
  struct termios settings;
  terminal->master = posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK);
  if (terminal->master < 0) return false; /* a container without terminals */
  assert_true(grantpt(terminal->master) == 0 && unlockpt(terminal->master) == 0);
  assert_int_equal(ptsname_r(terminal->master, terminal->name, sizeof terminal->name), 0);
  terminal->slave = open(terminal->name, O_RDWR | O_NOCTTY);
  assert_true(terminal->slave >= 0 && tcgetattr(terminal->slave, &settings) == 0);
  cfmakeraw(&settings);
  assert_int_equal(tcsetattr(terminal->slave, TCSANOW, &settings), 0);
  return true;
}

/* Closes it and gives what it got, with a zero byte behind. */
static size_t close_terminal(Terminal *terminal, char *text, size_t most) {
  size_t bytes = 0;
  for (ssize_t got = 1; got > 0; bytes += got > 0 ? (size_t)got : 0) {
    got = read(terminal->master, text + bytes, most - 1 - bytes);
  }
  text[bytes] = '\0';
  (void)close(terminal->slave);
  (void)close(terminal->master);
  return bytes;
}

/* Bytes that command a terminal reach files only. */
static void test_control_characters(void **state) {
  (void)state;
  char arguments[PATH_MAX + 256];
  char shown[4096];
  Terminal terminal;
  if (!open_terminal(&terminal)) skip();
  char *path = training_checkpoint(&plain, STEPS, "");
  (void)snprintf(arguments, sizeof arguments,
                 "--checkpoint '%s' --threads 1 --tokens 300 --temperature 1000 --seed 6 --prompt a", path);
  Outcome file = run(arguments);
  assert_int_equal(run_into(terminal.name, "/dev/null", arguments), 0);
  const size_t bytes = close_terminal(&terminal, shown, sizeof shown);
  int controls = 0;
  int kept = 0;
  assert_true(file.bytes > 100);
  for (size_t i = 0; i < file.bytes; i++) {
    const uint8_t byte = file.out[i];
    const bool control = byte <= 0x08 || (byte >= 0x0b && byte <= 0x1f) || byte == 0x7f;
    assert_int_equal((uint8_t)shown[i], control ? '?' : byte);
    controls += control;
    kept += byte == '\n' || byte == '\t';
  }
  assert_true(controls > 0 && kept > 0);
  /* The prompt of the shell begins a line of its own. */
  const bool open = file.out[file.bytes - 1] != '\n';
  assert_int_equal(bytes, file.bytes + open);
  release(&file);
  free(path);
}

/* A prompt of several chunks shows how far it is, after each of them. */
static void test_progress(void **state) {
  (void)state;
  for (int chunk = 4; chunk <= 100; chunk += 96) {
    char arguments[PATH_MAX + 256];
    char shown[4096];
    Terminal terminal;
    if (!open_terminal(&terminal)) skip();
    char *path = training_checkpoint(&plain, STEPS, "");
    (void)snprintf(arguments, sizeof arguments,
                   "--checkpoint '%s' --threads 1 --tokens 1 --chunk %d --prompt '" PROMPT "'", path, chunk);
    assert_int_equal(run_into("/dev/null", terminal.name, arguments), 0);
    (void)close_terminal(&terminal, shown, sizeof shown);
    int times = 0;
    for (const char *at = shown; (at = strstr(at, " prompt \r")) != NULL; at++) times++;
    assert_int_equal(times, chunk == 4 ? 4 : 0);
    assert_non_null(strstr(shown, "prompt of 15 tokens"));
    free(path);
  }
}

/* ---------------------------------------------------------------- wrong commands */

static void test_errors(void **state) {
  (void)state;
  static const struct {
    const char *arguments;
    Status status;
    const char *text;
  } cases[] = {
      {"--tokens 5 --prompt a", STATUS_USAGE, "'--checkpoint DIR' is missing"},
      {"--checkpoint bare --prompt a", STATUS_USAGE, "'--tokens N' is missing"},
      {"--checkpoint bare --tokens 5", STATUS_USAGE, "either --prompt TEXT or --prompt-file FILE"},
      {"--checkpoint bare --tokens 5 --prompt a --prompt-file b", STATUS_USAGE, "either --prompt TEXT or"},
      {"--checkpoint bare --tokens 0 --prompt a", STATUS_USAGE, "--tokens is '0'"},
      {"--checkpoint bare --tokens 5 --prompt a --temperature -1", STATUS_USAGE, "--temperature is '-1'"},
      {"--checkpoint bare --tokens 5 --prompt a --temperature nan", STATUS_USAGE, "--temperature is 'nan'"},
      {"--checkpoint bare --tokens 5 --prompt a --top-k -1", STATUS_USAGE, "--top-k is '-1'"},
      {"--checkpoint bare --tokens 5 --prompt a --top-p 1.5", STATUS_USAGE, "--top-p is '1.5'"},
      {"--checkpoint bare --tokens 5 --prompt a --chunk 0", STATUS_USAGE, "--chunk is '0'"},
      {"--checkpoint bare --tokens 5 --prompt a --seed x", STATUS_USAGE, "--seed is 'x'"},
      {"--checkpoint bare --tokens 5 --prompt a --threads 9999", STATUS_USAGE, "--threads is '9999'; this"},
      {"--checkpoint '' --tokens 5 --prompt a", STATUS_USAGE, "--checkpoint is ''; it must name"},
      {"--checkpoint bare --tokens 5 --prompt a --top_k 5", STATUS_USAGE, "did you mean '--top-k'?"},
      {"--checkpoint bare --tokens 5 --prompt a b", STATUS_USAGE, "'b' is one argument too many"},
      {"--checkpoint bare --tokens 5 --prompt-file absent", STATUS_NO_INPUT, "absent: cannot be opened"},
      {"--checkpoint bare --tokens 5 --prompt-file .", STATUS_NO_INPUT, ".: cannot be read"},
      {"--checkpoint absent --tokens 5 --prompt a", STATUS_NO_INPUT, "absent"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    expect_fails(cases[i].arguments, cases[i].status, cases[i].text);
  }
}

/* A text that does not fit is refused before its first token, with one that would. */
static void test_no_memory_for_the_text(void **state) {
  (void)state;
  enum { TOKENS = 2000000000 };
  const size_t token = (size_t)(2 * plain.model.num_hidden_layers * plain.model.num_key_value_heads *
                                (plain.model.hidden_size / plain.model.num_attention_heads)) *
                       sizeof(float);
  if (memory_available() / token >= TOKENS) skip();
  char arguments[PATH_MAX + 64];
  char *path = training_checkpoint(&plain, STEPS, "");
  (void)snprintf(arguments, sizeof arguments, "--checkpoint '%s' --tokens %d --prompt a", path, TOKENS);
  Outcome outcome = run(arguments);
  assert_int_equal(outcome.status, STATUS_SYSTEM);
  assert_int_equal(outcome.bytes, 0);
  assert_non_null(strstr(outcome.error, "no memory for a text of 2000000000 tokens: the model, its keys"));
  const char *fits = strstr(outcome.error, "; --tokens ");
  assert_non_null(fits);
  const long long tokens = strtoll(fits + strlen("; --tokens "), NULL, 10);
  assert_true(tokens > 0 && (size_t)tokens * token < SIZE_MAX / 2);
  assert_true((size_t)tokens * token <= memory_available() + ((size_t)1 << 30));
  release(&outcome);
  free(path);
}

static void test_output_that_cannot_be_written(void **state) {
  (void)state;
  char arguments[PATH_MAX + 256];
  char *path = training_checkpoint(&plain, STEPS, "");
  (void)snprintf(arguments, sizeof arguments, "--checkpoint '%s' --tokens 100 --prompt a", path);
  if (file_exists("/dev/full")) {
    check_failure(run_to("/dev/full", arguments), arguments, STATUS_IO, "standard output cannot be written");
  }
  free(path);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_greedy_is_the_likeliest),
      cmocka_unit_test(test_the_seed_decides),
      cmocka_unit_test(test_threads_do_not),
      cmocka_unit_test(test_the_way_of_the_prompt_does_not),
      cmocka_unit_test(test_going_on),
      cmocka_unit_test(test_empty_prompt),
      cmocka_unit_test(test_the_document_ends),
      cmocka_unit_test(test_learned_positions),
      cmocka_unit_test(test_checkpoint_of_gpt2),
      cmocka_unit_test(test_tokenizer_that_does_not_fit),
      cmocka_unit_test(test_damaged_tokenizer),
      cmocka_unit_test(test_control_characters),
      cmocka_unit_test(test_progress),
      cmocka_unit_test(test_errors),
      cmocka_unit_test(test_no_memory_for_the_text),
      cmocka_unit_test(test_output_that_cannot_be_written),
      cmocka_unit_test(test_lost_tokenizer),
  };
  return cmocka_run_group_tests_name("generate", tests, set_up, temp_dir_tear_down);
}
