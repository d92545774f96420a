/* The frequencies of rotary positions (J. Su et al., "RoFormer", 2021) and their scaling for contexts longer
 * than those trained on. Pair j of a head, elements j and j + D/2, turns by w_j radians from one position to
 * the next:
 *
 *   default   w_j = theta^(-2j/D)
 *   linear    w_j / factor: positions are interpolated (S. Chen et al., 2023)
 *   dynamic   theta grows with the length T beyond P = max_position_embeddings, to
 *             theta (factor T / P - (factor - 1))^(D / (D - 2)), "NTK-aware" and as the text grows
 *   yarn      between w_j for fast pairs and w_j / factor for slow ones, linear in j from the pair that turns
 *             beta_fast times over the original positions to the one that turns beta_slow times; cosines and
 *             sines are multiplied by the attention factor (B. Peng et al., "YaRN", 2023)
 *   llama3    w_j where the pair turns more than high_freq_factor times over the original positions,
 *             w_j / factor where less than low_freq_factor times, and between them linear in the number of
 *             turns (Llama 3.1)
 *
 * Meaning and defaults are Hugging Face's, but in double: in float an angle at a million positions is wrong
 * by hundredths of a radian. Dynamic scaling goes by the length of the sequences at hand alone: the same
 * batch gives the same result, whatever was computed before.
 */
#ifndef RINGGPT_MODEL_ROPE_H
#define RINGGPT_MODEL_ROPE_H

#include <stdint.h>

#include "model/config.h"

/* What yarn takes where nothing is said. */
#define ROPE_BETA_FAST 32.0
#define ROPE_BETA_SLOW 1.0

/* frequency (D/2): w_j in radians, of a model that model_config_check accepts, for sequences of `length`
 * tokens, which the dynamic type alone reads. */
void rope_inverse_frequencies(const ModelConfig *config, int64_t length, double *frequency);

/* What cosines and sines are multiplied by, for queries and keys alike; 1 for all types but yarn. */
double rope_attention_factor(const RopeScaling *scaling);

#endif
