/* Saving and going on: the same bits on the same grid, the exact next sample on any other. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoints/checkpoint.h"
#include "model/params.h"
#include "tests/support/expect.h"
#include "tests/support/grids.h"
#include "tests/support/temp_dir.h"
#include "tests/support/training.h"
#include "tests/support/unit.h"
#include "train/grid.h"
#include "train/hf_model.h"
#include "train/sharding.h"

/* A schedule whose stages and epochs end between the steps of the resumes. */
#define COMMON                                                                                               \
  "train.sequence_schedule={0: 64, 9: 128}", "optimizer.weight_decay=0.1", "scheduler.warmup_steps=4",       \
      "data.shuffle=true", "model.hidden_size=32"

static Config whole_run(const char *directory) {
  const char *const overrides[] = {COMMON, "checkpoint.every=1", "checkpoint.keep=64", NULL};
  return training_config(directory, "whole", overrides);
}

/* The run `name` that goes on from step `step` of `whole` on another grid or the same. */
static Config resumed_run(const char *directory, const Config *whole, const char *name, int64_t step,
                          const char *ring, const char *data) {
  char *checkpoint = training_checkpoint(whole, step, "");
  char resume[CONFIG_TEXT_BYTES + 32];
  (void)snprintf(resume, sizeof resume, "checkpoint.resume=%s", checkpoint);
  const char *const overrides[] = {COMMON, resume, ring, data, NULL};
  const Config config = training_config(directory, name, overrides);
  free(checkpoint);
  return config;
}

static void test_resume_is_bit_identical(void **state) {
  const char *directory = training_directory(state);
  const Config whole = whole_run(directory);
  (void)training_metrics(&whole);
  const int64_t steps[] = {1, 8, 9, 10, 19};
  for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
    char name[32];
    (void)snprintf(name, sizeof name, "from-%lld", (long long)steps[i]);
    const Config resumed =
        resumed_run(directory, &whole, name, steps[i], "parallelism.ring=2", "parallelism.data=1");
    Error error = {0};
    expect_ok(training_run(&resumed, &error), &error);
    training_same_state(&whole, &resumed, 20);
  }
}

/* The number of threads is no part of the result. */
static void test_resume_with_other_threads(void **state) {
  const char *directory = training_directory(state);
  const Config whole = whole_run(directory);
  const Config resumed =
      resumed_run(directory, &whole, "threads", 10, "parallelism.ring=2", "parallelism.threads=2");
  Error error = {0};
  expect_ok(training_run(&resumed, &error), &error);
  training_same_state(&whole, &resumed, 20);
}

/* The losses of the steps behind the resume, against those of the run that was not interrupted. */
static void check_losses(const Config *whole, const Config *resumed, int64_t step) {
  char *path = training_path(resumed->run.dir, "metrics.jsonl");
  size_t bytes = 0;
  char *text = (char *)temp_file_read(path, &bytes);
  const Metrics expected = training_read_metrics(whole);
  char *rest = NULL;
  int64_t at = step;
  for (char *line = strtok_r(text, "\n", &rest); line != NULL; line = strtok_r(NULL, "\n", &rest)) {
    const char *loss = strstr(line, "\"loss\":");
    assert_non_null(loss);
    const double got = strtod(loss + strlen("\"loss\":"), NULL);
    if (!(got / expected.loss[at] - 1.0 < 1e-6 && got / expected.loss[at] - 1.0 > -1e-6)) {
      fail_msg("step %lld after a resume: loss %.9f, expected %.9f", (long long)at + 1, got,
               expected.loss[at]);
    }
    at++;
  }
  assert_int_equal(at, 20);
  free(text);
  free(path);
}

static void test_resume_on_another_grid(void **state) {
  const char *directory = training_directory(state);
  const Config whole = whole_run(directory);
  const char *const grids[][2] = {{"parallelism.ring=4", "parallelism.data=1"},
                                  {"parallelism.ring=1", "parallelism.data=2"},
                                  {"parallelism.ring=3", "parallelism.data=2"}};
  for (int i = 0; i < 3; i++) {
    char name[32];
    (void)snprintf(name, sizeof name, "grid-%d", i);
    const Config resumed = resumed_run(directory, &whole, name, 10, grids[i][0], grids[i][1]);
    Error error = {0};
    expect_ok(training_run(&resumed, &error), &error);
    check_losses(&whole, &resumed, 10);
    CheckpointManifest expected;
    CheckpointManifest got;
    char *a = training_checkpoint(&whole, 20, "");
    char *b = training_checkpoint(&resumed, 20, "");
    assert_int_equal(checkpoint_verify(a, &expected, &error), STATUS_OK);
    assert_int_equal(checkpoint_verify(b, &got, &error), STATUS_OK);
    assert_int_equal(got.tokens, expected.tokens);
    free(b);
    free(a);
  }
}

/* The whole state of a checkpoint. */
typedef struct State {
  const Config *config;
  Checkpoint checkpoint;
  TensorTable table;
  float *weights, *m, *v; /* (table.total) */
} State;

static void load_state(State *state, const Config *config, int64_t step) {
  char *path = training_checkpoint(config, step, "");
  Comm *world = NULL;
  Error error = {0};
  *state = (State){.config = config};
  expect_ok(params_build(&config->model, &state->table, NULL, &error), &error);
  const int64_t total = state->table.total;
  float *values = calloc((size_t)(3 * total), sizeof *values);
  assert_non_null(values);
  state->weights = values;
  state->m = values + total;
  state->v = values + 2 * total;
  const CheckpointRange all = {0, total};
  const CheckpointTarget target = {.table = &state->table,
                                   .weights = state->weights,
                                   .ranges = &all,
                                   .range_count = 1,
                                   .m = state->m,
                                   .v = state->v};
  expect_ok(comm_local_create(1, &world, &error), &error);
  expect_ok(checkpoint_open(path, world, &state->checkpoint, &error), &error);
  expect_ok(checkpoint_load(&state->checkpoint, &target, world, &error), &error);
  comm_destroy(world);
  free(path);
}

static bool same_floats(const float *a, const float *b, int64_t count) {
  return memcmp(a, b, (size_t)count * sizeof *a) == 0;
}

/* What a rank of the sharded optimizer loads must be, bit for bit, its part of the whole. */
static Status compare_share(Rank *rank, void *context, Error *error) {
  const State *state = context;
  const int64_t total = state->table.total;
  Sharding sharding = {0};
  Status status = STATUS_OK;
  float *values = calloc((size_t)(3 * total), sizeof *values);
  if (values == NULL) return fail(error, STATUS_SYSTEM, "no memory");
  TRY_GOTO(sharding_create(rank->world, &state->table, values, sizeof(float), values, &sharding, error),
           done);
  const CheckpointTarget target = {.table = &state->table,
                                   .weights = values,
                                   .ranges = sharding.own,
                                   .range_count = sharding.groups,
                                   .m = values + total,
                                   .v = values + 2 * total};
  TRY_GOTO(checkpoint_load(&state->checkpoint, &target, rank->world, error), done);
  bool same = same_floats(values, state->weights, total);
  int64_t at = 0;
  for (int64_t g = 0; g < sharding.groups; g++) {
    const CheckpointRange own = sharding.own[g];
    same = same && same_floats(target.m + at, state->m + own.begin, own.end - own.begin);
    same = same && same_floats(target.v + at, state->v + own.begin, own.end - own.begin);
    at += own.end - own.begin;
  }
  if (!same) status = fail(error, STATUS_INTERNAL, "other bits on rank %d", rank->world->rank);
done:
  sharding_destroy(&sharding);
  free(values);
  return status;
}

/* From any grid to any other, whatever the threads: the same state, bit for bit. */
static void test_state_on_every_grid(void **state) {
  const char *directory = training_directory(state);
  const char *const grids[][3] = {{"parallelism.ring=1", "parallelism.data=1", "parallelism.threads=2"},
                                  {"parallelism.ring=2", "parallelism.data=1", "parallelism.threads=1"},
                                  {"parallelism.ring=1", "parallelism.data=2", "parallelism.threads=1"},
                                  {"parallelism.ring=2", "parallelism.data=2", "parallelism.threads=1"},
                                  {"parallelism.ring=4", "parallelism.data=1", "parallelism.threads=2"},
                                  {"parallelism.ring=5", "parallelism.data=2", "parallelism.threads=1"}};
  enum { GRIDS = sizeof grids / sizeof grids[0] };
  for (int from = 0; from < GRIDS; from++) {
    char name[32];
    State loaded;
    (void)snprintf(name, sizeof name, "grid-from-%d", from);
    const char *const overrides[] = {grids[from][0], grids[from][1], grids[from][2], "train.steps=3", NULL};
    const Config config = training_config(directory, name, overrides);
    (void)training_metrics(&config);
    load_state(&loaded, &config, 3);
    for (int to = 0; to < GRIDS; to++) {
      const char *const others[] = {grids[to][0], grids[to][1], grids[to][2], NULL};
      const Config target = training_config(directory, "grid-to", others);
      Error error = {0};
      const Status status = grid_run(&target, NULL, compare_share, &loaded, &error);
      if (status != STATUS_OK) fail_msg("from grid %d to grid %d: %s", from, to, error.text);
    }
    free(loaded.weights);
    params_free(&loaded.table, NULL);
  }
}

/* The same run directory: the newest whole checkpoint is used, a damaged one is named and passed over, and
 * the metrics hold every step once. */
static void test_damaged_checkpoint(void **state) {
  const char *directory = training_directory(state);
  const char *const overrides[] = {COMMON, "checkpoint.every=5", "checkpoint.keep=4", NULL};
  const Config config = training_config(directory, "damaged", overrides);
  const Metrics before = training_metrics(&config);
  char *newest = training_checkpoint(&config, 20, "model.safetensors");
  size_t bytes = 0;
  uint8_t *model = temp_file_read(newest, &bytes);
  model[bytes / 2] ^= 1;
  temp_file_write(newest, model, bytes);
  const Metrics after = training_metrics(&config);
  assert_int_equal(after.count, 20);
  assert_memory_equal(before.loss, after.loss, sizeof before.loss);
  Error error = {0};
  CheckpointManifest manifest;
  char *path = training_checkpoint(&config, 20, "");
  assert_int_equal(checkpoint_verify(path, &manifest, &error), STATUS_OK);
  free(path);
  free(model);
  free(newest);
}

/* Another model is refused by name, and nothing is trained over it. */
static void test_other_model(void **state) {
  const char *directory = training_directory(state);
  const Config whole = whole_run(directory);
  char *checkpoint = training_checkpoint(&whole, 10, "");
  char resume[CONFIG_TEXT_BYTES + 32];
  (void)snprintf(resume, sizeof resume, "checkpoint.resume=%s", checkpoint);
  const char *const overrides[] = {COMMON, resume, "model.hidden_size=128", NULL};
  const Config config = training_config(directory, "other", overrides);
  Error error = {0};
  assert_int_equal(training_run(&config, &error), STATUS_CONFIG);
  assert_non_null(strstr(error.text, "embed_tokens"));
  free(checkpoint);
}

/* Starting before a checkpoint that the run directory holds is refused: the next start would go on from that.
 */
static void test_going_back(void **state) {
  const Config whole = whole_run(training_directory(state));
  char *checkpoint = training_checkpoint(&whole, 10, "");
  char resume[CONFIG_TEXT_BYTES + 32];
  (void)snprintf(resume, sizeof resume, "checkpoint.resume=%s", checkpoint);
  const char *const starts[] = {resume, "checkpoint.resume=never"};
  for (int i = 0; i < 2; i++) {
    const char *const overrides[] = {COMMON, starts[i], NULL};
    const Config config = training_config(training_directory(state), "whole", overrides);
    Error error = {0};
    assert_int_equal(training_run(&config, &error), STATUS_CONFIG);
    assert_non_null(strstr(error.text, "step_00000020"));
  }
  free(checkpoint);
}

/* Weights that fit the shapes but belong to another model are refused too. */
static void test_other_heads(void **state) {
  const Config whole = whole_run(training_directory(state));
  char *checkpoint = training_checkpoint(&whole, 10, "");
  char resume[CONFIG_TEXT_BYTES + 32];
  (void)snprintf(resume, sizeof resume, "checkpoint.resume=%s", checkpoint);
  const char *const models[][2] = {{"model.num_attention_heads=2", "model.num_key_value_heads=1"},
                                   {"model.norm_eps=0.1", "run.seed=1"}};
  const char *const names[] = {"num_attention_heads", "norm_eps"};
  for (int i = 0; i < 2; i++) {
    const char *const overrides[] = {COMMON, resume, models[i][0], models[i][1], NULL};
    const Config config = training_config(training_directory(state), "heads", overrides);
    Error error = {0};
    assert_int_equal(training_run(&config, &error), STATUS_CONFIG);
    assert_non_null(strstr(error.text, names[i]));
  }
  free(checkpoint);
}

/* Positions may be scaled from one start to the next, which is how contexts are extended: that is told, and
 * the run goes on with the new ones, which its own checkpoints carry. */
static void test_scaled_positions(void **state) {
  const Config whole = whole_run(training_directory(state));
  char *checkpoint = training_checkpoint(&whole, 10, "");
  char resume[CONFIG_TEXT_BYTES + 32];
  (void)snprintf(resume, sizeof resume, "checkpoint.resume=%s", checkpoint);
  const char *const overrides[] = {COMMON,
                                   resume,
                                   "checkpoint.every=5",
                                   "model.rope_scaling.rope_type=yarn",
                                   "model.rope_scaling.factor=4",
                                   "model.rope_scaling.original_max_position_embeddings=128",
                                   NULL};
  const Config config = training_config(training_directory(state), "scaled", overrides);
  Error error = {0};
  expect_ok(training_run(&config, &error), &error);
  char *path = training_path(config.run.dir, "log.txt");
  char *log = temp_file_read_text(path);
  assert_non_null(strstr(log, "warning: "));
  assert_non_null(
      strstr(log, "trained with rope_theta 10000 and sliding_window 0, computed with rope_theta 10000, "
                  "yarn scaling by 4 from 128 (beta_fast 32, beta_slow 1, attention_factor "
                  "1.13862944) and sliding_window 0"));
  char *last = training_checkpoint(&config, 20, "");
  char warning[1024];
  expect_ok(hf_model_check(&config.model, last, warning, sizeof warning, &error), &error);
  assert_string_equal(warning, "");
  free(last);
  free(log);
  free(path);
  free(checkpoint);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_resume_is_bit_identical),
      cmocka_unit_test(test_resume_with_other_threads),
      cmocka_unit_test(test_resume_on_another_grid),
      cmocka_unit_test(test_state_on_every_grid),
      cmocka_unit_test(test_damaged_checkpoint),
      cmocka_unit_test(test_other_model),
      cmocka_unit_test(test_other_heads),
      cmocka_unit_test(test_scaled_positions),
      cmocka_unit_test(test_going_back),
  };
  return cmocka_run_group_tests(tests, training_set_up, temp_dir_tear_down);
}
