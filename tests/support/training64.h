/* Training in float64, written from the equations: what the training loop is compared with, step by step. It
 * takes the reference model's loss and gradients, and the samples in the order of the loader on one rank;
 * schedule, norm, clipping and AdamW are its own and share no source with the program. */
#ifndef RINGGPT_SUPPORT_TRAINING64_H
#define RINGGPT_SUPPORT_TRAINING64_H

#include <stdbool.h>
#include <stdint.h>

#include "data/loader.h"
#include "kernels/base/tensor_table.h"
#include "tests/reference/gpt64.h"
#include "train/config.h"

typedef struct Training64 {
  const Config *config;
  int32_t end_of_document;
  Loader *loader;
  Gpt64 *model;    /* its weights after the last step */
  double *m;       /* (elements of all tensors, in the order of the model's) mean of the gradient */
  double *v;       /* likewise, mean of its square */
  int64_t step;    /* steps done */
  int64_t updates; /* of these, the ones that changed the weights */

  /* Of the last step. */
  double loss;
  double learning_rate;
  double grad_norm; /* before clipping */
  bool clipped;
  bool skipped; /* loss or norm is not finite: no update */
} Training64;

/* Begins at step 0 with `weights` (table->total). config stays the caller's; any grid of it is ignored. Ends
 * the test as failed when something does not work. Release with training64_end. */
void training64_begin(const Config *config, const TensorTable *table, const float *weights, Training64 *run);

/* One step of config.train.global_batch_size sequences. */
void training64_step(Training64 *run);

void training64_end(Training64 *run);

#endif
