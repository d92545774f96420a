/* A model's configuration in the words of Hugging Face's config.json. */
#ifndef RINGGPT_TRAIN_HF_MODEL_H
#define RINGGPT_TRAIN_HF_MODEL_H

#include <stdint.h>

#include "kernels/base/status.h"
#include "model/config.h"

/* The text of config.json in *out, which the caller frees. end_of_document: token id, -1: none. STATUS_SYSTEM
 * without memory. */
Status hf_model_text(const ModelConfig *model, int32_t end_of_document, char **out, Error *error);

#endif
