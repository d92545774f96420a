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

/* What is computed: the same on every grid. */
typedef struct GptCase {
  ModelConfig config;
  int64_t sequences;       /* whole batch, divisible by the number of data-parallel ranks */
  int64_t sequence_length; /* T */
  int64_t loss_chunk;
  bool document_mask;
  bool recompute;
  int64_t ignore_every; /* every so-many-th target is ignored; 0: none */
  int threads;
} GptCase;

/* A model of GPT-2's kind and one of Llama's (tied or not), with `heads` heads of `head_dim`. */
ModelConfig gpt2_config(int64_t layers, int64_t heads, int64_t head_dim);
ModelConfig llama_config(int64_t layers, int64_t heads, int64_t kv_heads, int64_t head_dim, bool tied);

/* Result of one forward and backward over the whole batch. */
typedef struct GptResult {
  double loss;       /* mean nll over the valid targets of the batch */
  double *gradient;  /* (table.total) of that mean, in memory order of the table; free() */
  double *nll;       /* (sequences, T), 0 for ignored targets; free() */
  TensorTable table; /* params_free */
} GptResult;

/* Our model on ring x data ranks. The weights are params_init's, with the norms and biases moved off their
 * start so that no gradient is trivial. */
Status gpt_case_run(const GptCase *test, int ring, int data, GptResult *result, Error *error);

/* The float64 reference. */
Status gpt_case_reference(const GptCase *test, GptResult *result, Error *error);

/* The reference model of a configuration with `weights` (table->total); NULL where gpt64_create gives none.
 * Release with gpt64_free. */
Gpt64 *gpt_case_model(const ModelConfig *config, const TensorTable *table, const float *weights);

void gpt_result_free(GptResult *result);

#endif
