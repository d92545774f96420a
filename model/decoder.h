/* Text forward, a piece at a time: a model with the keys and values of all tokens seen so far, so that each
 * further token costs one row of work. For generation, and for the logits of every position.
 *
 * One rank, one sequence, no document mask; a sliding window is kept. A piece is computed in chunks of
 * tokens, so that a prompt of any length needs memory for a chunk of activations and for its keys and values,
 * and never for its logits. The logits of a position do not depend on how the text was cut into pieces and
 * chunks, but for rounding.
 *
 * RoPE whose scaling goes by the length of the text (dynamic) takes most_tokens for it from the first token
 * on: the logits are those of a forward pass over a text of that length. Hugging Face changes the frequencies
 * while the text grows, but keeps the keys that were turned by those before. */
#ifndef RINGGPT_MODEL_DECODER_H
#define RINGGPT_MODEL_DECODER_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/base/status.h"
#include "model/model.h"

typedef struct Decoder Decoder;

typedef struct DecoderOptions {
  int64_t most_tokens; /* of the whole text, at most */
  int64_t chunk;       /* tokens computed at once, >= 1 */
} DecoderOptions;

/* Bytes of device memory that a decoder takes of a model with such options, beside its weights: keys and
 * values of all tokens that a query may see, and a chunk of activations; or ARENA_TOO_LARGE
 * (kernels/base/arena.h). */
size_t decoder_bytes(const Ops *ops, const ModelOptions *model, const DecoderOptions *options);

/* Makes a decoder of `model`, whose weights it uses and which outlives it; the model may do other work in
 * between. STATUS_CONFIG where elements are not floats, where most_tokens is beyond the learned positions, or
 * where the model's ring has more than one rank; STATUS_SYSTEM without memory, all of which is taken here. */
Status decoder_create(Model *model, const DecoderOptions *options, Decoder **out, Error *error);

/* Releases it; NULL is allowed. */
void decoder_destroy(Decoder *decoder);

/* Called with the logits (count, V), host memory, of the positions [first, first + count), in order; they are
 * valid during the call. */
typedef Status (*DecoderVisit)(void *context, int64_t first, int64_t count, const float *logits,
                               Error *error);

/* Appends tokens (count) to the text. logits (V), host memory, gets those behind the last token; NULL: not
 * wanted. STATUS_DATA for a token that is none of the vocabulary, STATUS_CONFIG for more than most_tokens,
 * STATUS_SYSTEM. */
Status decoder_append(Decoder *decoder, int64_t count, const int32_t *tokens, float *logits, Error *error);

/* The same with the logits of every position, a chunk at a time, to `visit`. */
Status decoder_append_visit(Decoder *decoder, int64_t count, const int32_t *tokens, DecoderVisit visit,
                            void *context, Error *error);

/* Tokens seen so far. */
int64_t decoder_length(const Decoder *decoder);

/* Forgets the text. */
void decoder_reset(Decoder *decoder);

#endif
