/* A model's configuration in the words of Hugging Face's config.json. */
#ifndef RINGGPT_TRAIN_HF_MODEL_H
#define RINGGPT_TRAIN_HF_MODEL_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/base/status.h"
#include "model/config.h"

/* The text of config.json in *out, which the caller frees. end_of_document: token id, -1: none. STATUS_SYSTEM
 * without memory. */
Status hf_model_text(const ModelConfig *model, int32_t end_of_document, char **out, Error *error);

/* Compares `model` with the config.json at `path` (a checkpoint or any Hugging Face directory or file;
 * nothing is compared where there is none): shapes alone would let weights of another model pass.
 * STATUS_CONFIG names the first difference that makes it another model. What may be changed on purpose for
 * longer contexts, rope_theta, rope_scaling and sliding_window, is told in `warning` (bytes), which is empty
 * otherwise. */
Status hf_model_check(const ModelConfig *model, const char *path, char *warning, size_t bytes, Error *error);

/* The token that ends a document by the config.json at `path`, -1: it names none. Fails as hf_config_read. */
Status hf_model_read_end(const char *path, int64_t *token, Error *error);

/* Reads the model of the config.json at `path` (as hf_config_read), without a word about weights. Fails as
 * hf_config_read; STATUS_CONFIG also for a model that this program's layers cannot compute: a head of another
 * size than a multiple of 8, biases in Llama's layers, a GPT-2 with a head of its own, a mixture of the two.
 */
Status hf_model_read(const char *path, ModelConfig *model, Error *error);

#endif
