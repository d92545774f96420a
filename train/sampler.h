/* From the logits of a position to the token that follows: the most likely one, or a draw from the
 * probabilities, sharpened by a temperature and cut to the likely tokens (A. Fan et al., "Hierarchical neural
 * story generation", 2018, for top-k; A. Holtzman et al., "The curious case of neural text degeneration",
 * 2020, for top-p).
 *
 * Probabilities and their sums are in double. The random number of a token depends on the seed and the
 * token's place in the text alone. */
#ifndef RINGGPT_TRAIN_SAMPLER_H
#define RINGGPT_TRAIN_SAMPLER_H

#include <stdint.h>

#include "kernels/base/status.h"

/* The cuts apply in this order, as in Hugging Face's generate: the logits are divided by the temperature, the
 * top_k largest stay, and of those the smallest set whose probability reaches top_p. Of equal logits the
 * lower token comes first. Cuts that leave every token give the draws that there are without them. */
typedef struct SamplerOptions {
  double temperature; /* >= 0; 0: always the most likely token, whatever the others say */
  int64_t top_k;      /* 0: all */
  double top_p;       /* [0, 1]; at least one token stays; 1: all */
  uint64_t seed;
} SamplerOptions;

typedef struct Sampler Sampler;

/* Makes a sampler for `vocab` tokens (>= 1). STATUS_SYSTEM. */
Status sampler_create(int64_t vocab, const SamplerOptions *options, Sampler **out, Error *error);

/* Releases a sampler; NULL is allowed. */
void sampler_destroy(Sampler *sampler);

/* Draws the token at place `number` of the text from logits (vocab). -INFINITY is a token that cannot come;
 * STATUS_DATA when a logit is NaN or INFINITY, or no token can come. */
Status sampler_draw(Sampler *sampler, const float *logits, uint64_t number, int32_t *token, Error *error);

#endif
