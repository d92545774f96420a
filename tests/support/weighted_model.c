/* A model with given weights on a rank of a test. */
#include "tests/support/weighted_model.h"

#include <stdlib.h>
#include <string.h>

#include "model/params.h"
#include "tests/support/expect.h"
#include "tests/support/gpt_case.h"
#include "tests/support/unit.h"
#include "train/host_weights.h"

Weights weighted_model_draw(const ModelConfig *config) {
  TensorTable table;
  Error error = {0};
  expect_ok(params_build(config, &table, NULL, &error), &error);
  Weights weights = {
      .config = *config, .floats = calloc((size_t)table.total, sizeof(float)), .total = table.total};
  assert_non_null(weights.floats);
  gpt_case_weights(&table, weights.floats);
  params_free(&table, NULL);
  return weights;
}

Status weighted_model_make(const TestRank *rank, const Weights *weights, bool local_keys, Model **out,
                           Error *error) {
  const ModelOptions options = {.config = weights->config, .loss_chunk = 7, .local_keys = local_keys};
  HostWeights host;
  TRY(model_create(rank->device, rank->ring, &options, out, error));
  TRY(host_weights_open(rank->device, *out, &host, error));
  memcpy(host.floats, weights->floats, (size_t)weights->total * sizeof(float));
  return host_weights_close(&host, true, error);
}
