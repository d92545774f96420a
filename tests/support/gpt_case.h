/* A small model and a batch for tests of the whole model: our model on any grid, and the float64 reference
 * with the same weights on the same tokens. */
#ifndef RINGGPT_SUPPORT_GPT_CASE_H
#define RINGGPT_SUPPORT_GPT_CASE_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/base/status.h"
#include "kernels/base/tensor_table.h"
#include "model/config.h"
#include "tests/reference/gpt64.h"
#include "tests/support/test_device.h"

/* What is computed: the same on every grid. */
typedef struct GptCase {
  ModelConfig config;
  int64_t sequences;       /* whole batch, divisible by the number of data-parallel ranks */
  int64_t sequence_length; /* T */
  int64_t loss_chunk;
  int64_t mlp_chunk; /* 0: none */
  bool document_mask;
  int64_t rank_chunks; /* of each sequence, given to the ranks of a ring by chance; 0: zigzag */
  bool recompute;
  int64_t ignore_every; /* every so-many-th target is ignored; 0: none */
  int threads;
  int64_t micro_batch; /* sequences of one forward and backward; 0: all that a rank has */
  double dropout;      /* p; the loss and the gradient are with it, the nll without */
  uint64_t seed;       /* of dropout */
  int64_t first_draw;  /* the draw of the first sequence */
  TestDevice device;   /* what computes */
} GptCase;

/* A model of GPT-2's kind and one of Llama's (tied or not), with `heads` heads of `head_dim`. */
ModelConfig gpt2_config(int64_t layers, int64_t heads, int64_t head_dim);
ModelConfig llama_config(int64_t layers, int64_t heads, int64_t kv_heads, int64_t head_dim, bool tied);

/* The weights of all cases, to weights (table->total): params_init's, with the norms and biases moved off
 * their start so that no gradient is trivial. */
void gpt_case_weights(const TensorTable *table, float *weights);

/* Result of one forward and backward over the whole batch. */
typedef struct GptResult {
  double loss;       /* mean nll over the valid targets of the batch */
  double *gradient;  /* (table.total) of that mean, in memory order of the table; free() */
  double *nll;       /* (sequences, T) in evaluation, 0 for ignored targets; free() */
  TensorTable table; /* params_free */
} GptResult;

/* Our model on ring x data ranks. */
Status gpt_case_run(const GptCase *test, int ring, int data, GptResult *result, Error *error);

/* The float64 reference. */
Status gpt_case_reference(const GptCase *test, GptResult *result, Error *error);

/* Runs a case on each of `count` grids (ring, data) and ends the test as failed unless loss, nll and every
 * gradient agree with the reference: within 1e-7, 1e-6 and 3e-6, 1e-5 for weights of queries and keys; in
 * bf16, whose reference has the rounded weights, within 2e-3, 1e-2 and 3e-2. */
void gpt_case_check(const char *what, const GptCase *test, const int (*grids)[2], int count);

/* The reference model of a configuration with `weights` (table->total); NULL where gpt64_create gives none.
 * Release with gpt64_free. */
Gpt64 *gpt_case_model(const ModelConfig *config, const TensorTable *table, const float *weights);

/* The scaling of a configuration's rotary positions in the words of the reference. */
Rope64 gpt_case_rope(const ModelConfig *config);

void gpt_result_free(GptResult *result);

#endif
