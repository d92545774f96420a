/* Buffers that share memory: over models and batches of many shapes, whose buffers lie in many orders, the
 * gradients with recompute are those of layers that are kept, and the losses of an evaluation those of a
 * forward pass in training, bit for bit. */
#include <stdlib.h>
#include <string.h>

#include "model/model.h"
#include "tests/support/compare.h"
#include "tests/support/expect.h"
#include "tests/support/gpt_case.h"
#include "tests/support/ranks.h"
#include "tests/support/unit.h"

enum { SHAPES = 80 };

typedef struct Shape {
  ModelOptions options;
  int ring;
  bool head_by_head;  /* one rank computes one key head at a time */
  bool by_operations; /* and not a sequence at once */
  int64_t sequences;
  int64_t length;
} Shape;

static Shape random_shape(Random *random) {
  const int64_t head_dim = 8 * (1 + random_below(random, 6));
  const int64_t kv_heads = 1 + random_below(random, 3);
  const int64_t heads = kv_heads * (1 + random_below(random, 3));
  const int64_t layers = 1 + random_below(random, 3);
  Shape shape = {.ring = 1 + (int)random_below(random, 3),
                 .sequences = 1 + random_below(random, 3),
                 .length = 40 + random_below(random, 120)};
  shape.options = (ModelOptions){
      .config = random_below(random, 2) == 0 ? gpt2_config(layers, heads, head_dim)
                                             : llama_config(layers, heads, kv_heads, head_dim, false),
      .loss_chunk = 1 + random_below(random, 100),
      .mlp_chunk = random_below(random, 2) * (1 + random_below(random, 60)),
  };
  shape.head_by_head = random_below(random, 2) == 0;
  shape.by_operations = random_below(random, 2) == 0;
  shape.options.config.max_position_embeddings = 256;
  shape.options.config.intermediate_size = 8 * (1 + random_below(random, 60));
  return shape;
}

/* What a forward and backward pass gives. */
typedef struct Result {
  float *gradients; /* (count), to be freed */
  size_t count;
  double nll;
} Result;

/* Draws the same weights for every model of a shape. */
static Status draw(Model *model, Device *device, Error *error) {
  const TensorTable *table = model_table(model);
  float *weights = malloc((size_t)table->total * sizeof *weights);
  if (weights == NULL) return fail(error, STATUS_SYSTEM, "no memory");
  gpt_case_weights(table, weights);
  device_write(device, model_weights(model), weights, (size_t)table->total * sizeof *weights);
  free(weights);
  return STATUS_OK;
}

static Status take_result(const TestRank *rank, Model *model, Result *result, Error *error) {
  LossSum loss;
  TRY(model_take_loss(model, &loss, error));
  result->nll = loss.nll;
  result->count = (size_t)model_table(model)->total;
  result->gradients = malloc(result->count * sizeof(float));
  if (result->gradients == NULL) return fail(error, STATUS_SYSTEM, "no memory");
  device_read(rank->device, result->gradients, model_gradients(model), result->count * sizeof(float));
  return STATUS_OK;
}

/* The losses of an evaluation of the batch, or, where nll is NULL, the result of forward and backward. */
static Status compute(const TestRank *rank, const ModelOptions *options, const ModelBatch *batch, float *nll,
                      Result *result, Error *error) {
  Model *model = NULL;
  TRY(model_create(rank->device, rank->ring, options, &model, error));
  Status status = draw(model, rank->device, error);
  if (status == STATUS_OK && nll != NULL) status = model_evaluate(model, batch, nll, error);
  if (status == STATUS_OK && nll == NULL) status = model_forward_backward(model, batch, NULL, error);
  if (status == STATUS_OK && nll == NULL) status = take_result(rank, model, result, error);
  if (status != STATUS_OK) comm_abort(rank->world, error);
  model_destroy(model);
  return status;
}

/* Sums an evaluation's losses as the device's sum does not: in double, in order. */
static Status compare_losses(const float *nll, int64_t rows, double expected, Error *error) {
  double sum = 0.0;
  for (int64_t i = 0; i < rows; i++) sum += (double)nll[i];
  const double off = (sum - expected) / expected;
  if (off < 1e-12 && off > -1e-12) return STATUS_OK;
  return fail(error, STATUS_INTERNAL, "the evaluation's losses are off by %g", off);
}

static Status compare(const TestRank *rank, const Shape *shape, const ModelBatch *batch, int64_t rows,
                      float *nll, Error *error) {
  ModelOptions options = shape->options;
  Result kept = {0};
  Result again = {0};
  Status status = compute(rank, &options, batch, nll, NULL, error);
  options.training = true;
  if (status == STATUS_OK) status = compute(rank, &options, batch, NULL, &kept, error);
  options.recompute = true;
  if (status == STATUS_OK) status = compute(rank, &options, batch, NULL, &again, error);
  if (status == STATUS_OK) status = compare_losses(nll, rows, kept.nll, error);
  if (status == STATUS_OK && (memcmp(kept.gradients, again.gradients, kept.count * sizeof(float)) != 0 ||
                              memcmp(&kept.nll, &again.nll, sizeof kept.nll) != 0)) {
    status = fail(error, STATUS_INTERNAL, "recompute gives other bits");
  }
  free(again.gradients);
  free(kept.gradients);
  return status;
}

static int64_t one_head(const AttentionDims *dims, int64_t length) {
  (void)dims;
  (void)length;
  return 1;
}

static Status run_rank(TestRank *rank, void *context, Error *error) {
  const Shape *shape = context;
  const Layout layout = layout_zigzag(shape->length, rank->ring->size);
  const int64_t rows = shape->sequences * layout.local_length;
  int32_t *tokens = calloc(2 * (size_t)rows, sizeof *tokens);
  float *nll = calloc((size_t)rows, sizeof *nll);
  Status status = STATUS_SYSTEM;
  AttentionOps *ops = &rank->device->ops.attention;
  if (shape->head_by_head) ops->heads_at_once = one_head;
  if (shape->by_operations) {
    ops->forward_alone = NULL;
    ops->backward_alone = NULL;
  }
  if (tokens != NULL && nll != NULL) {
    for (int64_t i = 0; i < 2 * rows; i++) tokens[i] = (int32_t)(i * i % 31);
    const ModelBatch batch = {.sequences = shape->sequences,
                              .sequence_length = shape->length,
                              .tokens = tokens,
                              .targets = tokens + rows};
    status = compare(rank, shape, &batch, rows, nll, error);
  }
  free(nll);
  free(tokens);
  return status;
}

static void test_shapes(void **state) {
  (void)state;
  Random random = {17};
  for (int i = 0; i < SHAPES; i++) {
    Shape shape = random_shape(&random);
    Error error = {0};
    const Status status = run_ranks(shape.ring, 1, 1, run_rank, &shape, &error);
    if (status != STATUS_OK) {
      fail_msg("shape %d, ring %d, %lld of %lld tokens: %s", i, shape.ring, (long long)shape.sequences,
               (long long)shape.length, error.text);
    }
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_shapes)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
