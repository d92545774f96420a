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
 * longer contexts, rope_theta and sliding_window, is told in `warning` (bytes), which is empty otherwise. */
Status hf_model_check(const ModelConfig *model, const char *path, char *warning, size_t bytes, Error *error);

#endif
