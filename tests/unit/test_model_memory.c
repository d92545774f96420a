/* Memory of a model: what is reserved at the beginning is what was planned, to the byte, and all that batches
 * of that form, and smaller ones, take of the device, on rings of one and of two; an evaluator shares it. */
#include <stdlib.h>

#include "kernels/cpu/cpu_device.h"
#include "model/memory.h"
#include "tests/support/expect.h"
#include "tests/support/gpt_case.h"
#include "tests/support/ranks.h"
#include "tests/support/unit.h"

enum { SEQUENCES = 2, LENGTH = 96, RANKS = 2 };

/* A device that counts what it is asked for. */
typedef struct Counted {
  DeviceTable table; /* first: the device's */
  const DeviceTable *real;
  int blocks;
  size_t latest; /* bytes of the latest block */
} Counted;

static Counted counted[RANKS];

static Status count_alloc(Device *device, size_t bytes, const char *what, void **out, Error *error) {
  for (int i = 0; i < RANKS; i++) {
    if (device->table != &counted[i].table) continue;
    counted[i].blocks += 1;
    counted[i].latest = bytes;
    return counted[i].real->alloc(device, bytes, what, out, error);
  }
  return fail(error, STATUS_INTERNAL, "a device that nobody counts");
}

static Counted *count(TestRank *rank) {
  Counted *mine = &counted[rank->ring->rank];
  *mine = (Counted){.table = *rank->device->table, .real = rank->device->table};
  mine->table.alloc = count_alloc;
  rank->device->table = &mine->table;
  return mine;
}

/* Forward and backward of zeros. */
static Status run_batch(const TestRank *rank, Model *model, int64_t sequences, int64_t length, Error *error) {
  const Layout layout = layout_zigzag(length, rank->ring->size);
  const size_t rows = (size_t)(sequences * layout.local_length);
  int32_t *tokens = calloc(2 * rows, sizeof *tokens);
  if (tokens == NULL) return fail(error, STATUS_SYSTEM, "no memory");
  const ModelBatch batch = {
      .sequences = sequences, .sequence_length = length, .tokens = tokens, .targets = tokens + rows};
  const Status status = model_forward_backward(model, &batch, NULL, error);
  free(tokens);
  return status;
}

/* The plan of the batches that check runs. */
static ModelMemory plan(const TestRank *rank, const ModelOptions *options) {
  ModelMemory memory = {0};
  const Ops *ops = &rank->device->ops;
  const Layout half = layout_zigzag(LENGTH / 2, rank->ring->size);
  const Layout whole = layout_zigzag(LENGTH, rank->ring->size);
  (void)model_memory_add(&memory, options, ops, 1, &half);
  (void)model_memory_add(&memory, options, ops, SEQUENCES, &whole);
  return memory;
}

/* Rows of an evaluator that shares the arena of `model`, larger than all before: the bytes of the arena. */
static Status check_evaluator(const TestRank *rank, Model *model, const ModelOptions *options, Error *error) {
  ModelOptions evaluation = *options;
  Model *evaluator = NULL;
  evaluation.training = false;
  evaluation.weights = model_weights(model);
  evaluation.arena = model_arena(model);
  TRY(model_create(rank->device, rank->ring, &evaluation, &evaluator, error));
  ModelMemory memory = {0};
  const Layout layout = layout_zigzag(16 * LENGTH, rank->ring->size);
  (void)model_memory_add(&memory, &evaluation, &rank->device->ops, 1, &layout);
  Status status = model_reserve(evaluator, 1, &layout, error);
  if (status == STATUS_OK && model_arena(model)->bytes != memory.bytes) {
    status = fail(error, STATUS_INTERNAL, "the arena has %zu bytes, not %zu", model_arena(model)->bytes,
                  memory.bytes);
  }
  model_destroy(evaluator);
  /* The arena was replaced under the model: it finds its way. */
  return status == STATUS_OK ? run_batch(rank, model, SEQUENCES, LENGTH, error) : status;
}

static Status check(const TestRank *rank, const Counted *mine, Model *model, const ModelOptions *options,
                    Error *error) {
  const int before = mine->blocks;
  Error refused = {0};
  TRY(run_batch(rank, model, 1, LENGTH / 2, error));
  if (mine->blocks != before + 1)
    return fail(error, STATUS_INTERNAL, "the first batch took no block, or two");
  const Layout layout = layout_zigzag(LENGTH, rank->ring->size);
  const Layout huge = layout_zigzag(INT64_C(1) << 40, rank->ring->size);
  TRY(model_reserve(model, SEQUENCES, &layout, error));
  const int reserved = mine->blocks;
  const size_t planned = plan(rank, options).bytes;
  if (mine->latest != planned) {
    return fail(error, STATUS_INTERNAL, "%zu bytes taken, %zu planned", mine->latest, planned);
  }
  TRY(run_batch(rank, model, SEQUENCES, LENGTH, error));
  TRY(run_batch(rank, model, 1, LENGTH - 7, error));
  TRY(run_batch(rank, model, SEQUENCES, LENGTH, error));
  if (mine->blocks != reserved) {
    return fail(error, STATUS_INTERNAL, "%d blocks beyond the reserved ones", mine->blocks - reserved);
  }
  TRY(check_evaluator(rank, model, options, error));
  if (model_reserve(model, 1, &huge, &refused) != STATUS_SYSTEM) {
    return fail(error, STATUS_INTERNAL, "memory for 2^40 tokens");
  }
  /* What did not fit leaves the model as it was. */
  return run_batch(rank, model, SEQUENCES, LENGTH, error);
}

static Status run_rank(TestRank *rank, void *context, Error *error) {
  const ModelOptions *options = context;
  const DeviceTable *real = rank->device->table;
  const Counted *mine = count(rank);
  Model *model = NULL;
  Status status = model_create(rank->device, rank->ring, options, &model, error);
  if (status == STATUS_OK) status = check(rank, mine, model, options, error);
  if (status != STATUS_OK) comm_abort(rank->world, error);
  model_destroy(model);
  rank->device->table = real;
  return status;
}

static void test_reserved(void **state) {
  (void)state;
  for (int ring = 1; ring <= RANKS; ring++) {
    for (int recompute = 0; recompute < 2; recompute++) {
      ModelOptions options = {.config = llama_config(2, 4, 2, 16, false),
                              .loss_chunk = 16,
                              .training = true,
                              .recompute = recompute != 0};
      Error error = {0};
      expect_ok(run_ranks(ring, 1, 1, run_rank, &options, &error), &error);
    }
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_reserved)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
