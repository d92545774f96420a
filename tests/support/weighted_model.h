/* A model with given weights on a rank of a test. */
#ifndef RINGGPT_SUPPORT_WEIGHTED_MODEL_H
#define RINGGPT_SUPPORT_WEIGHTED_MODEL_H

#include <stdbool.h>
#include <stdint.h>

#include "model/model.h"
#include "tests/support/ranks.h"

/* What ranks compute with: a configuration, and its weights as floats. */
typedef struct Weights {
  ModelConfig config;
  float *floats; /* (total) to be freed */
  int64_t total;
} Weights;

/* The weights of gpt_case_weights for a configuration; ends the test where there is no memory for them. */
Weights weighted_model_draw(const ModelConfig *config);

/* Makes the model on a rank, for evaluation, with these weights rounded to the elements of its device. */
Status weighted_model_make(const TestRank *rank, const Weights *weights, bool local_keys, Model **out,
                           Error *error);

#endif
