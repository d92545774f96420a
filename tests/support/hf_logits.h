/* A model from a directory of Hugging Face's kind, put to work on some tokens: what is compared with
 * transformers. */
#ifndef RINGGPT_SUPPORT_HF_LOGITS_H
#define RINGGPT_SUPPORT_HF_LOGITS_H

#include <stdint.h>

#include "kernels/base/status.h"

typedef struct HfLogits {
  int64_t vocab; /* V */
  float *logits; /* (count, V); free() */
  double loss;   /* mean negative log likelihood of the tokens but the first */
} HfLogits;

/* Reads config.json and model.safetensors of a directory and computes the logits behind each of `count` (>=
 * 2) tokens by the decoder, in several chunks, and the loss by model_evaluate, as training does. Nothing is
 * to be freed when it fails. */
Status hf_logits_run(const char *directory, int64_t count, const int32_t *tokens, HfLogits *out,
                     Error *error);

#endif
