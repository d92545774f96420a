/* The parameters of a model: names, shapes, places in one flat array, initial values. */
#ifndef RINGGPT_MODEL_PARAMS_H
#define RINGGPT_MODEL_PARAMS_H

#include "kernels/base/status.h"
#include "kernels/base/tensor_table.h"
#include "model/config.h"

/* Builds the table of a model's parameters with Hugging Face names: GPT-2's where the positions are learned,
 * Llama's otherwise. Tensors that one product uses together lie side by side: q, k, v and gate, up.
 * The caller frees table->entries. Fails with STATUS_SYSTEM without memory. */
Status params_build(const ModelConfig *config, TensorTable *table, Error *error);

/* Draws the initial value of every parameter into weights (table->total): normal numbers from Philox, keyed by
 * seed, tensor and element, the same for every grid and device. */
void params_init(const TensorTable *table, uint64_t seed, float *weights);

#endif
