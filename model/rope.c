/* The frequencies of rotary positions, and what scales them. */
#include "model/rope.h"

#include <math.h>
#include <stdbool.h>

static const double TWO_PI = 6.283185307179586476925286766559;

/* ---------------------------------------------------------------- the base */

static double dynamic_base(const ModelConfig *config, double d, int64_t length) {
  const double positions = (double)config->max_position_embeddings;
  const double factor = config->rope_scaling.factor;
  if (length <= config->max_position_embeddings) return config->rope_theta;
  return config->rope_theta * pow(factor * (double)length / positions - (factor - 1.0), d / (d - 2.0));
}

/* ---------------------------------------------------------------- yarn */

/* The pair, as a real number, that turns `turns` times over the original positions. */
static double pair_of_turns(const ModelConfig *config, double d, double turns) {
  const double positions = (double)config->rope_scaling.original_max_position_embeddings;
  return d * log(positions / (turns * TWO_PI)) / (2.0 * log(config->rope_theta));
}

/* The pairs between which yarn goes from one frequency to the other. */
typedef struct Ramp {
  double low;
  double high;
} Ramp;

static Ramp yarn_ramp(const ModelConfig *config, double d) {
  const RopeScaling *scaling = &config->rope_scaling;
  Ramp ramp = {.low = pair_of_turns(config, d, scaling->beta_fast),
               .high = pair_of_turns(config, d, scaling->beta_slow)};
  if (scaling->truncate) ramp = (Ramp){.low = floor(ramp.low), .high = ceil(ramp.high)};
  ramp.low = fmax(ramp.low, 0.0);
  /* D - 1 and not D / 2 - 1, and a step where both limits meet: as published, so that models agree. */
  ramp.high = fmin(ramp.high, d - 1.0);
  if (ramp.low == ramp.high) ramp.high += 0.001;
  return ramp;
}

static double yarn_frequency(const ModelConfig *config, const Ramp *ramp, int64_t j, double plain) {
  const double slowed = fmin(fmax(((double)j - ramp->low) / (ramp->high - ramp->low), 0.0), 1.0);
  return plain / config->rope_scaling.factor * slowed + plain * (1.0 - slowed);
}

double rope_attention_factor(const RopeScaling *scaling) {
  if (scaling->rope_type != ROPE_YARN) return 1.0;
  return scaling->attention_factor > 0.0 ? scaling->attention_factor : 0.1 * log(scaling->factor) + 1.0;
}

/* ---------------------------------------------------------------- llama3 */

static double llama3_frequency(const RopeScaling *scaling, double plain) {
  const double turns = (double)scaling->original_max_position_embeddings * plain / TWO_PI;
  const double kept =
      (turns - scaling->low_freq_factor) / (scaling->high_freq_factor - scaling->low_freq_factor);
  const double slow = plain / scaling->factor;
  if (kept <= 0.0) return slow;
  return kept >= 1.0 ? plain : slow * (1.0 - kept) + plain * kept;
}

/* ---------------------------------------------------------------- all */

void rope_inverse_frequencies(const ModelConfig *config, int64_t length, double *frequency) {
  const RopeScaling *scaling = &config->rope_scaling;
  const int64_t head_dim = config->hidden_size / config->num_attention_heads;
  const double d = (double)head_dim;
  const bool dynamic = scaling->rope_type == ROPE_DYNAMIC;
  const double base = dynamic ? dynamic_base(config, d, length) : config->rope_theta;
  const Ramp ramp = scaling->rope_type == ROPE_YARN ? yarn_ramp(config, d) : (Ramp){0};
  for (int64_t j = 0; j < head_dim / 2; j++) {
    const double plain = pow(base, -2.0 * (double)j / d);
    frequency[j] = plain;
    if (scaling->rope_type == ROPE_LINEAR) frequency[j] = plain / scaling->factor;
    if (scaling->rope_type == ROPE_YARN) frequency[j] = yarn_frequency(config, &ramp, j, plain);
    if (scaling->rope_type == ROPE_LLAMA3) frequency[j] = llama3_frequency(scaling, plain);
  }
}
