/* Memory of a model: what is reserved at the beginning is all that batches of that form, and smaller ones,
 * take of the device, on rings of one and of two. */
#include <stdlib.h>

#include "kernels/cpu/cpu_device.h"
#include "model/model.h"
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
} Counted;

static Counted counted[RANKS];

static Status count_alloc(Device *device, size_t bytes, const char *what, void **out, Error *error) {
  for (int i = 0; i < RANKS; i++) {
    if (device->table != &counted[i].table) continue;
    counted[i].blocks += 1;
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
  const Layout layout = layout_zigzag(length, rank->ring->rank, rank->ring->size);
  const size_t rows = (size_t)(sequences * layout.local_length);
  int32_t *tokens = calloc(2 * rows, sizeof *tokens);
  if (tokens == NULL) return fail(error, STATUS_SYSTEM, "no memory");
  const ModelBatch batch = {
      .sequences = sequences, .sequence_length = length, .tokens = tokens, .targets = tokens + rows};
  const Status status = model_forward_backward(model, &batch, NULL, error);
  free(tokens);
  return status;
}

static Status check(const TestRank *rank, const Counted *mine, Model *model, Error *error) {
  const int before = mine->blocks;
  Error refused = {0};
  TRY(run_batch(rank, model, 1, LENGTH / 2, error));
  if (mine->blocks == before) return fail(error, STATUS_INTERNAL, "the first batch took no memory");
  TRY(model_reserve(model, SEQUENCES, LENGTH, error));
  const int reserved = mine->blocks;
  TRY(run_batch(rank, model, SEQUENCES, LENGTH, error));
  TRY(run_batch(rank, model, 1, LENGTH - 7, error));
  TRY(run_batch(rank, model, SEQUENCES, LENGTH, error));
  if (mine->blocks != reserved) {
    return fail(error, STATUS_INTERNAL, "%d blocks beyond the reserved ones", mine->blocks - reserved);
  }
  if (model_reserve(model, 1, INT64_C(1) << 40, &refused) == STATUS_SYSTEM) return STATUS_OK;
  return fail(error, STATUS_INTERNAL, "memory for 2^40 tokens");
}

static Status run_rank(TestRank *rank, void *context, Error *error) {
  const ModelOptions *options = context;
  const DeviceTable *real = rank->device->table;
  const Counted *mine = count(rank);
  Model *model = NULL;
  Status status = model_create(rank->device, rank->ring, options, &model, error);
  if (status == STATUS_OK) status = check(rank, mine, model, error);
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
