/* The plan against what the program takes: runs as processes, their largest resident size within 5 % of the
 * plan. What the program itself and its threads take is small beside it in these cases. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "tests/support/launch.h"
#include "tests/support/shards.h"
#include "tests/support/temp_dir.h"
#include "tests/support/training.h"
#include "tests/support/unit.h"
#include "train/memory_plan.h"

/* Sanitizers take memory of their own, and the reference's products would take minutes. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || !RINGGPT_DNNL
#define MEASURABLE false
#else
#define MEASURABLE true
#endif

enum { TOKENS = 40000, VOCABULARY = 257, MOST = 24 };

#define MODEL                                                                                                \
  "model.hidden_size=256", "model.num_attention_heads=4", "model.num_key_value_heads=4",                     \
      "model.intermediate_size=768", "train.steps=1", "train.micro_batch_size=1",                            \
      "train.global_batch_size=2", "data.document_mask=false"

static int set_up(void **state) {
  if (temp_dir_set_up(state) != 0) return -1;
  temp_file_write_text(temp_dir_path(*state, "data/about.txt"), "shards of made-up text");
  int32_t *tokens = shards_tokens(TOKENS, VOCABULARY);
  static const char *const splits[] = {"train", "val"};
  for (int i = 0; i < 2; i++) {
    char name[64];
    (void)snprintf(name, sizeof name, "data/%s_000000.bin.gz", splits[i]);
    shards_write(temp_dir_path(*state, name), FORM_BGZF, tokens, TOKENS, 2);
  }
  free(tokens);
  return 0;
}

/* The peak of a run in bytes, which must succeed. */
static double peak_of(const Launch *launch) {
  struct rusage usage;
  int status = 0;
  const pid_t child = launch_start(launch);
  assert_int_equal(wait4(child, &status, 0, &usage), child);
  assert_true(WIFEXITED(status));
  assert_int_equal(WEXITSTATUS(status), 0);
  return 1024.0 * (double)usage.ru_maxrss;
}

/* Runs a command with overrides (ended by NULL) and `flags` (ended by NULL), and compares. */
static void check(void **state, const char *name, const char *const overrides[], const char *const flags[]) {
  const char *all[MOST] = {NULL};
  int count = 0;
  const bool training = flags == NULL;
  const Config config = training_config(training_directory(state), name, overrides);
  for (int i = 0; overrides[i] != NULL; i++) all[count++] = overrides[i];
  for (int i = 0; !training && flags[i] != NULL; i++) all[count++] = flags[i];
  assert_in_range(count, 1, MOST - 1);
  const MemoryRun run = {.purpose = training ? MEMORY_TRAINING : MEMORY_EVALUATION,
                         .ranks_here = (int)config_ranks(&config),
                         .threads = (int)config.parallelism.threads,
                         .one_process = true};
  MemoryPlan plan;
  Error error = {0};
  assert_int_equal(memory_plan(&config, &run, &plan, &error), STATUS_OK);
  const Launch launch = {.command = training ? NULL : "eval", .config = &config, .overrides = all};
  const double measured = peak_of(&launch);
  const double off = (double)plan.host / measured - 1.0;
  print_message("%s: planned %.1f MiB, measured %.1f MiB, %+.1f %%\n", name, (double)plan.host / 1048576.0,
                measured / 1048576.0, 100.0 * off);
  if (off < -0.05 || off > 0.05) fail_msg("%s: the plan is %.1f %% off", name, 100.0 * off);
}

static void test_training(void **state) {
  if (!MEASURABLE) skip();
  check(state, "all-kept",
        (const char *const[]){MODEL, "parallelism.ring=1", "train.sequence_length=4096", NULL}, NULL);
  check(state, "again",
        (const char *const[]){MODEL, "parallelism.ring=1", "train.sequence_length=8192",
                              "train.recompute=true", NULL},
        NULL);
  check(state, "chunks",
        (const char *const[]){MODEL, "parallelism.ring=2", "train.sequence_length=8192",
                              "train.recompute=true", "train.mlp_chunk=1024", NULL},
        NULL);
  check(state, "rounded",
        (const char *const[]){MODEL, "parallelism.ring=1", "train.sequence_length=8192",
                              "train.precision=bf16", NULL},
        NULL);
}

static void test_grids(void **state) {
  if (!MEASURABLE) skip();
  check(state, "ring", (const char *const[]){MODEL, "parallelism.ring=4", "train.sequence_length=6144", NULL},
        NULL);
  check(state, "data",
        (const char *const[]){MODEL, "parallelism.ring=1", "parallelism.data=2", "train.sequence_length=4096",
                              NULL},
        NULL);
  check(state, "then-evaluated",
        (const char *const[]){MODEL, "parallelism.ring=1", "train.sequence_length=4096", "eval.every=1",
                              "eval.contexts=[8192]", "eval.tokens=8192", NULL},
        NULL);
}

static void test_evaluation(void **state) {
  if (!MEASURABLE) skip();
  const Config small = training_config(training_directory(state), "small",
                                       (const char *const[]){MODEL, "train.sequence_length=64", NULL});
  (void)training_metrics(&small);
  char *checkpoint = training_path(small.run.dir, "checkpoints/step_00000001");
  const char *const flags[] = {"--checkpoint", checkpoint, NULL};
  check(state, "evaluated",
        (const char *const[]){MODEL, "parallelism.ring=4", "eval.contexts=[20480]", "eval.tokens=1",
                              "train.mlp_chunk=1024", NULL},
        flags);
  free(checkpoint);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_training), cmocka_unit_test(test_grids),
                                     cmocka_unit_test(test_evaluation)};
  return cmocka_run_group_tests(tests, set_up, temp_dir_tear_down);
}
