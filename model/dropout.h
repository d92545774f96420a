/* Dropout: in training an element of the embeddings' sum, and of what each branch (attention's output
 * projection, the MLP's down projection) is about to add to the residual stream, is set to zero with
 * probability p; the others are multiplied by 1 / (1 - p). N. Srivastava et al., 2014, placed as in GPT-2.
 *
 * Masks are those of DropoutKey (kernels/ops.h), whole numbers from start to end:
 *   seed       that of the run
 *   stream     the place in the model: 0 for the embeddings, 1 + 2 l for layer l's attention, 2 + 2 l for its
 *              MLP
 *   threshold  p 2^32, made in double and rounded to the nearest whole number, 2^32 - 1 at most
 *   rows       the token's number: draw T + position, where the draw counts the sequences of the whole run in
 *              the order in which training visits them (data/loader.h)
 * The token's number stands for the step and the place in it, so that masks differ from step to step and are
 * the same for every grid, every cut into micro-batches and behind every resume. */
#ifndef RINGGPT_MODEL_DROPOUT_H
#define RINGGPT_MODEL_DROPOUT_H

#include <stdint.h>

#include "kernels/ops.h"

/* Places in the model. */
#define DROPOUT_EMBEDDING 0U
uint32_t dropout_attention(int64_t layer);
uint32_t dropout_mlp(int64_t layer);

/* The key of p in [0, 1) at a place. */
DropoutKey dropout_key(double p, uint64_t seed, uint32_t place);

/* Turns the positions (n) of n rows, local_length rows for each sequence of T tokens, where the first
 * sequence is the draw first_draw, into the numbers of their tokens. Those of padding mean nothing. Host
 * memory. */
void dropout_token_numbers(int64_t first_draw, int64_t sequence_length, int64_t n, int64_t local_length,
                           int64_t *rows);

#endif
