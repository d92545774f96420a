/* Ranks that are processes and were not given the same: another option, other shards, another checkpoint. The
 * run ends before it trains or scores anything, with one message that says what differs. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/support/expect.h"
#include "tests/support/launch.h"
#include "tests/support/temp_dir.h"
#include "tests/support/training.h"
#include "tests/support/unit.h"

enum { RANKS = 2, COMMAND_BYTES = 512 };

/* Runs commands in a directory. */
static void shell(const char *directory, const char *commands) {
  char all[2 * COMMAND_BYTES];
  (void)snprintf(all, sizeof all, "cd '%s' && { %s; }", directory, commands);
  if (system(all) != 0) fail_msg("%s", all);
}

static int count_messages(const char *text) {
  int count = 0;
  for (const char *at = strstr(text, "ringgpt: "); at != NULL; at = strstr(at + 1, "ringgpt: ")) count++;
  return count;
}

/* One launch of two ranks, and what its standard error must hold; a status of 0 needs no message. */
typedef struct Case {
  const char *name; /* of the run */
  const char *command;
  const char *const *overrides;
  const char *before; /* as Launch has it */
  Status status;
  const char *texts[2];
} Case;

static void check(const char *directory, const Case *expected) {
  const Config config = training_config(directory, expected->name, NULL);
  char *errors = training_path(directory, "errors");
  const Launch launch = {.command = expected->command,
                         .config = &config,
                         .overrides = expected->overrides,
                         .processes = RANKS,
                         .before = expected->before,
                         .errors = errors};
  const int status = launch_finish(launch_start(&launch));
  char *text = temp_file_read_text(errors);
  const int messages = expected->status == STATUS_OK ? 0 : 1;
  bool right = status == (int)expected->status && count_messages(text) == messages;
  for (int i = 0; i < 2; i++)
    right = right && (expected->texts[i] == NULL || strstr(text, expected->texts[i]) != NULL);
  if (!right) fail_msg("%s: status %d, expected %d: %s", expected->name, status, expected->status, text);
  free(text);
  free(errors);
}

#define RANK_1 "ringgpt: rank 1: "
#define GRID "parallelism.ring=2", "parallelism.data=1"

/* ---------------------------------------------------------------- the configuration */

/* Rank 1 gets further overrides. */
static void check_option(const char *directory, const char *overrides, const char *message) {
  static const char *const same[] = {GRID, "train.steps=2", NULL};
  char before[COMMAND_BYTES];
  (void)snprintf(before, sizeof before, "[ $OMPI_COMM_WORLD_RANK = 0 ] || set -- \"$@\" %s", overrides);
  check(directory, &(Case){.name = "options",
                           .overrides = same,
                           .before = before,
                           .status = STATUS_CONFIG,
                           .texts = {RANK_1 "this process has ", message}});
  char *metrics = training_path(directory, "options/metrics.jsonl");
  assert_int_not_equal(access(metrics, F_OK), 0);
  free(metrics);
}

static void test_options(void **state) {
  const char *directory = training_directory(state);
  check_option(directory, "run.seed=7", "has run.seed 7, rank 0 has 1: every process");
  check_option(directory, "optimizer.learning_rate=0.125", "has optimizer.learning_rate 0.125, rank 0 has ");
  check_option(directory, "data.shuffle=false", "has data.shuffle false, rank 0 has true");
  check_option(directory, "data.val=elsewhere", "has data.val \"elsewhere\", rank 0 has \"/");
  check_option(directory, "'eval.contexts=[32, 64]'", "has eval.contexts [32, 64], rank 0 has [");
  check_option(directory, "optimizer.beta2=0.5 optimizer.beta1=0.5",
               "has optimizer.beta1 0.5, rank 0 has 0.9");
}

/* Buffers of one instruction set's layout would be read as another's. */
static void test_device(void **state) {
  static const char *const overrides[] = {GRID, "train.steps=2", "device=cpu", NULL};
  check(training_directory(state),
        &(Case){.name = "devices",
                .overrides = overrides,
                .before = "[ $OMPI_COMM_WORLD_RANK = 0 ] && export RINGGPT_ISA=reference; "
                          "[ $OMPI_COMM_WORLD_RANK = 0 ] || export RINGGPT_ISA=avx2",
                .status = STATUS_CONFIG,
                .texts = {RANK_1 "this process computes attention by avx2, rank 0 by reference"}});
}

/* ---------------------------------------------------------------- hosts with other files */

/* Each rank works in a directory of its own, host0 and host1, with the same data, as if on hosts that share
 * nothing; `change` makes a difference. */
static void check_hosts(const char *directory, const char *change, Case expected) {
  char before[COMMAND_BYTES];
  (void)snprintf(before, sizeof before, "cd '%s'/host$OMPI_COMM_WORLD_RANK || exit 1", directory);
  shell(directory, "rm -rf host0 host1 hosts hosts.pid.* && mkdir host0 host1 && "
                   "cp -r data host0 && cp -r data host1");
  shell(directory, change);
  expected.name = "hosts";
  expected.before = before;
  check(directory, &expected);
}

static void test_data(void **state) {
  const char *directory = training_directory(state);
  static const char *const train[] = {
      GRID, "train.steps=2", "data.train=data/train_*.bin.gz", "data.val=data/val_*.bin.gz", "eval.every=2",
      NULL};
  static const char *const no_evaluation[] = {
      GRID, "train.steps=2", "data.train=data/train_*.bin.gz", "data.val=data/val_*.bin.gz", "eval.every=0",
      NULL};
  check_hosts(directory, "true", (Case){.overrides = train});
  check_hosts(directory, "mv host1/data/train_000001.bin.gz host1/data/train_000007.bin.gz",
              (Case){.overrides = train,
                     .status = STATUS_DATA,
                     .texts = {RANK_1 "data/train_*.bin.gz: is another set of shards here, of "}});
  /* 30000 tokens a shard. */
  check_hosts(
      directory, "rm host1/data/train_00000[1-9].bin.gz",
      (Case){
          .overrides = train,
          .status = STATUS_DATA,
          .texts = {RANK_1
                    "data/train_*.bin.gz: is another set of shards here, of 30000 tokens, than on rank 0"}});
  /* Only where documents end. */
  check_hosts(directory, "sed -i '/end_of_document/s/256/255/' host1/data/dataset.json",
              (Case){.overrides = train,
                     .status = STATUS_DATA,
                     .texts = {RANK_1 "data/train_*.bin.gz: is another set of shards here, of "}});
  static const char *const other_val = "cp host1/data/train_000000.bin.gz host1/data/val_000001.bin.gz";
  const Case refused = {.overrides = train,
                        .status = STATUS_DATA,
                        .texts = {RANK_1 "data/val_*.bin.gz: is another set of shards here, of "}};
  check_hosts(directory, other_val, refused);
  check_hosts(directory, other_val, (Case){.overrides = no_evaluation});
}

/* ---------------------------------------------------------------- checkpoints */

/* Two runs that differ in their weights. */
static void make_runs(const char *directory) {
  static const char *const others[] = {"train.steps=2", "checkpoint.every=0", "parallelism.ring=2", NULL};
  static const char *const faster[] = {"train.steps=2", "checkpoint.every=0", "parallelism.ring=2",
                                       "optimizer.learning_rate=0.01", NULL};
  const Config one = training_config(directory, "one", others);
  const Config two = training_config(directory, "two", faster);
  Error error = {0};
  expect_ok(training_run(&one, &error), &error);
  expect_ok(training_run(&two, &error), &error);
}

#define STEP "run/checkpoints/step_00000002"

static void test_checkpoints(void **state) {
  const char *directory = training_directory(state);
  static const char *const others[] = {GRID, "train.steps=2", "run.dir=run", NULL};
  static const char *const evaluation[] = {GRID, "run.dir=run", "--checkpoint", STEP, "--context",
                                           "64", NULL};
  make_runs(directory);
  check_hosts(directory, "cp -r one host0/run && cp -r one host1/run", (Case){.overrides = others});
  check_hosts(
      directory, "cp -r one host0/run && cp -r two host1/run",
      (Case){.overrides = others,
             .status = STATUS_DATA,
             .texts = {RANK_1 STEP ": is not the checkpoint that rank 0 sees there: run.dir must be "}});
  static const char *const one_file =
      "cp -r one host0/run && cp -r one host1/run && cp two/checkpoints/*/model.safetensors host1/" STEP;
  check_hosts(directory, one_file,
              (Case){.overrides = others,
                     .status = STATUS_DATA,
                     .texts = {RANK_1 STEP ": holds other weights than rank 0 sees there"}});
  check_hosts(directory, "cp -r one host0/run && cp -r one host1/run",
              (Case){.command = "eval", .overrides = evaluation});
  const Case refused = {
      .command = "eval",
      .overrides = evaluation,
      .status = STATUS_DATA,
      .texts = {RANK_1 STEP "/model.safetensors: holds other weights than rank 0 sees there"}};
  check_hosts(directory, one_file, refused);
}

/* The shards of an evaluation. */
static void test_evaluation_data(void **state) {
  const char *directory = training_directory(state);
  static const char *const evaluation[] = {
      GRID, "data.val=data/val_*.bin.gz", "--checkpoint", STEP, "--context", "64", NULL};
  check_hosts(directory,
              "cp -r one host0/run && cp -r one host1/run && "
              "cp host1/data/train_000000.bin.gz host1/data/val_000001.bin.gz",
              (Case){.command = "eval",
                     .overrides = evaluation,
                     .status = STATUS_DATA,
                     .texts = {RANK_1 "data/val_*.bin.gz: is another set of shards here, of "}});
}

/* Instead of all others in a build without MPI. */
static void test_without_mpi(void **state) {
  (void)state;
  skip();
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_options),     cmocka_unit_test(test_device),          cmocka_unit_test(test_data),
      cmocka_unit_test(test_checkpoints), cmocka_unit_test(test_evaluation_data),
  };
  const struct CMUnitTest skipped[] = {cmocka_unit_test(test_without_mpi)};
  if (!RINGGPT_MPI) return cmocka_run_group_tests(skipped, NULL, NULL);
  return cmocka_run_group_tests(tests, training_set_up, temp_dir_tear_down);
}
