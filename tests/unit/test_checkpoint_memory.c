/* The n-th allocation fails, for every n, once or from then on, while a checkpoint is saved, found and
 * loaded: a clean error, no memory lost, and the same works afterwards. This program's own malloc stands in
 * front of the C library's; under sanitizers, which have their own, there is nothing to run. */
#include <errno.h>
#include <jansson.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoints/hf_config.h"
#include "kernels/base/file.h"
#include "tests/support/checkpoint_case.h"
#include "tests/support/expect.h"
#include "tests/support/temp_dir.h"
#include "tests/support/unit.h"

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)

/* ---------------------------------------------------------------- memory that fails */

static atomic_bool armed;
static atomic_bool forever;
static atomic_long allocations; /* since it was armed */
static atomic_long blocks;      /* allocated less released, since it was armed */
static atomic_long failing;     /* the allocation that fails, from 1 */

/* The C library's own, under the names that it keeps for this. */
void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t count, size_t bytes);
void *__libc_realloc(void *block, size_t bytes);
void *__libc_memalign(size_t alignment, size_t bytes);
void __libc_free(void *block);

static bool fails_now(void) {
  if (!atomic_load(&armed)) return false;
  const long number = atomic_fetch_add(&allocations, 1) + 1;
  if (number != failing && !(forever && number > failing)) return false;
  errno = ENOMEM;
  return true;
}

static void *counted(void *block) {
  if (block != NULL && atomic_load(&armed)) atomic_fetch_add(&blocks, 1);
  return block;
}

void *malloc(size_t bytes) {
  return fails_now() ? NULL : counted(__libc_malloc(bytes));
}

void *calloc(size_t count, size_t bytes) {
  return fails_now() ? NULL : counted(__libc_calloc(count, bytes));
}

void *realloc(void *block, size_t bytes) {
  if (fails_now()) return NULL;
  void *moved = __libc_realloc(block, bytes);
  return block == NULL ? counted(moved) : moved;
}

void *aligned_alloc(size_t alignment, size_t bytes) {
  return fails_now() ? NULL : counted(__libc_memalign(alignment, bytes));
}

void free(void *block) {
  if (block != NULL && atomic_load(&armed)) atomic_fetch_sub(&blocks, 1);
  __libc_free(block);
}

/* ---------------------------------------------------------------- what runs short */

/* Everything that an attempt needs, made before memory gets short. */
typedef struct Attempt {
  const char *directory;
  char path[4096]; /* of step 1 */
  Comm *world;
  float *values; /* (3 total) */
  const HfConfig *config;
} Attempt;

typedef Status (*AttemptCall)(const Attempt *attempt, Error *error);

static Status try_save(const Attempt *attempt, Error *error) {
  const TensorTable *table = case_table();
  const CheckpointManifest manifest = {.step = 2, .transport = "local"};
  const CheckpointState state = {.table = table,
                                 .weights = attempt->values,
                                 .ranges = &(CheckpointRange){0, table->total},
                                 .range_count = 1,
                                 .m = attempt->values + table->total,
                                 .v = attempt->values + 2 * table->total,
                                 .model_config = "{}\n",
                                 .run_config = "run:\n"};
  return checkpoint_save(attempt->directory, 2, &manifest, &state, NULL, attempt->world, error);
}

/* Without memory it fails rather than takes an older checkpoint for the newest. */
static Status try_find(const Attempt *attempt, Error *error) {
  Checkpoint found;
  TRY(checkpoint_find(attempt->directory, NULL, attempt->world, &found, error));
  if (strcmp(found.path, "") != 0) return STATUS_OK;
  return fail(error, STATUS_INTERNAL, "no checkpoint was found");
}

static Status try_load(const Attempt *attempt, Error *error) {
  const TensorTable *table = case_table();
  const CheckpointTarget target = {.table = table,
                                   .weights = attempt->values,
                                   .ranges = &(CheckpointRange){0, table->total},
                                   .range_count = 1,
                                   .m = attempt->values + table->total,
                                   .v = attempt->values + 2 * table->total};
  Checkpoint found;
  TRY(checkpoint_open(attempt->path, attempt->world, &found, error));
  return checkpoint_load(&found, &target, attempt->world, error);
}

static Status try_weights(const Attempt *attempt, Error *error) {
  return checkpoint_load_weights(attempt->path, case_table(), attempt->values, attempt->world, error);
}

static Status try_config(const Attempt *attempt, Error *error) {
  char *text = NULL;
  TRY(hf_config_text(attempt->config, &text, error));
  const bool whole = strstr(text, "rope_parameters") != NULL && strstr(text, "head_dim") != NULL &&
                     strstr(text, "LlamaForCausalLM") != NULL && strstr(text, "mlp_bias") != NULL;
  free(text);
  return whole ? STATUS_OK : fail(error, STATUS_INTERNAL, "a part of the configuration is missing");
}

/* The reader of jansson 2.14 drops characters without a word where it cannot enlarge its buffer, so that want
 * of memory looks like damage. Its own small blocks are spared, but where it writes alone. */
static void *spared_malloc(size_t bytes) {
  return counted(__libc_malloc(bytes));
}

/* Fails each allocation of the attempt in turn until it makes fewer. */
static void starve(const Attempt *attempt, AttemptCall call, bool for_good) {
  long number = 0;
  bool failed_once = false;
  bool more = true;
  while (more) {
    Error error = {0};
    number++;
    atomic_store(&allocations, 0);
    atomic_store(&blocks, 0);
    atomic_store(&failing, number);
    atomic_store(&forever, for_good);
    atomic_store(&armed, true);
    const Status status = call(attempt, &error);
    atomic_store(&armed, false);
    more = allocations >= number;
    if (status != STATUS_OK && status != STATUS_SYSTEM) {
      fail_msg("allocation %ld, status %d: %s", number, status, error.text);
    }
    if (status != STATUS_OK && !more) fail_msg("failed without a reason: %s", error.text);
    if (blocks != 0) fail_msg("allocation %ld: %ld blocks are lost: %s", number, blocks, error.text);
    failed_once = failed_once || status != STATUS_OK;
  }
  assert_true(failed_once);
}

static void test_no_memory(void **state) {
  const TempDir *temp = *state;
  static const AttemptCall calls[] = {try_save, try_find, try_load, try_weights, try_config};
  const HfConfig config = {.vocab_size = 5,
                           .hidden_size = 8,
                           .num_hidden_layers = 1,
                           .num_attention_heads = 2,
                           .num_key_value_heads = 1,
                           .norm_eps = 1e-6};
  const char *directory = temp->path;
  char *path = case_path(directory, 1, "");
  Attempt attempt = {.directory = directory, .config = &config};
  Error error = {0};
  attempt.values = calloc((size_t)(3 * case_table()->total), sizeof *attempt.values);
  assert_non_null(attempt.values);
  (void)snprintf(attempt.path, sizeof attempt.path, "%s", path);
  case_save_step(directory, 1, 1);
  assert_int_equal(comm_local_create(1, &attempt.world, &error), STATUS_OK);
  for (size_t c = 0; c < sizeof calls / sizeof calls[0]; c++) {
    json_set_alloc_funcs(calls[c] == try_config ? malloc : spared_malloc, free);
    starve(&attempt, calls[c], false);
    starve(&attempt, calls[c], true);
  }
  json_set_alloc_funcs(malloc, free);
  /* Step 1 is as it was, whatever became of step 2. */
  expect_ok(case_load(path, 2, &error), &error);
  comm_destroy(attempt.world);
  free(attempt.values);
  free(path);
}

#else

static void test_no_memory(void **state) {
  (void)state;
  skip();
}

#endif

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(test_no_memory, temp_dir_set_up, temp_dir_tear_down)};
  return cmocka_run_group_tests_name("checkpoint_memory", tests, NULL, NULL);
}
