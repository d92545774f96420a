/* Generating text: a prompt through the model, then one token after the other, each drawn from what the model
 * expects behind all before it. */
#ifndef RINGGPT_TRAIN_GENERATE_H
#define RINGGPT_TRAIN_GENERATE_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/base/status.h"
#include "train/grid.h"
#include "train/sampler.h"

typedef struct GenerateOptions {
  const char *checkpoint; /* directory of config.json and model.safetensors */
  const char *tokenizer;  /* as tokenizer_open takes it; NULL: the checkpoint's own, which it overrides */
  const char *prompt;     /* (prompt_bytes); an empty one stands for the start of a document */
  size_t prompt_bytes;
  int64_t tokens; /* to generate at most, >= 1 */
  int64_t chunk;  /* tokens of the prompt computed at once, >= 1 */
  SamplerOptions sampler;
  /* Called with the text of each token as it comes, which may be a part of a character; a failure ends the
     generation. */
  Status (*write)(void *context, const char *text, size_t bytes, Error *error);
  /* Called while the prompt is computed; may be NULL. */
  void (*progress)(void *context, int64_t done, int64_t total);
  void *context;
} GenerateOptions;

typedef enum GenerateEnd {
  GENERATE_END_TOKENS,   /* as many tokens as were asked for */
  GENERATE_END_DOCUMENT, /* the model ended the document */
  GENERATE_END_POSITIONS /* the model has no learned position for a further token */
} GenerateEnd;

typedef struct GenerateReport {
  GenerateEnd end;
  int64_t prompt_tokens;
  int64_t tokens; /* generated; the end of the document is not counted */
  double prompt_seconds;
  double seconds; /* of generating */
} GenerateReport;

/* Generates on one rank, with all the threads of its device. The token at a place of the text depends on the
 * text before it, the options and that place alone: a text that is continued goes on as it would have.
 * STATUS_CONFIG when the model and the tokenizer do not fit each other, the checkpoint has no tokenizer, or
 * the prompt is longer than the learned positions; STATUS_USAGE for an unknown tokenizer; STATUS_DATA when a
 * file is damaged or the model's logits are not numbers; STATUS_SYSTEM where keys and values of all
 * tokens do not fit the memory that is left, told in tokens that do; otherwise as checkpoint_load_weights and
 * `write`. */
Status generate(Rank *rank, const GenerateOptions *options, GenerateReport *report, Error *error);

#endif
