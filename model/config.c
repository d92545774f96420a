/* Which models there are: what their numbers demand of each other. */
#include "model/config.h"

#include <inttypes.h>
#include <stddef.h>

#define MOST_HEAD_SIZE 256

static Status check_heads(const ModelConfig *model, const char *source, const char *prefix, Error *error) {
  const int64_t width = model->hidden_size;
  const int64_t heads = model->num_attention_heads;
  const int64_t kv_heads = model->num_key_value_heads;
  if (width % heads != 0) {
    return fail(error, STATUS_CONFIG,
                "%s: %shidden_size (%" PRId64 ") must be a multiple of %snum_attention_heads (%" PRId64 ")",
                source, prefix, width, prefix, heads);
  }
  if (width / heads % 8 != 0 || width / heads > MOST_HEAD_SIZE) {
    return fail(error, STATUS_CONFIG,
                "%s: %shidden_size / %snum_attention_heads is %" PRId64
                "; the size of a head must be a multiple of 8 and at most %d",
                source, prefix, prefix, width / heads, MOST_HEAD_SIZE);
  }
  if (heads % kv_heads != 0) {
    return fail(error, STATUS_CONFIG,
                "%s: %snum_attention_heads (%" PRId64
                ") must be a multiple of %snum_key_value_heads (%" PRId64 ")",
                source, prefix, heads, prefix, kv_heads);
  }
  return STATUS_OK;
}

/* Checkpoints carry Hugging Face's names, which exist for two families; a mixture could be loaded nowhere. */
static Status check_family(const ModelConfig *model, const char *source, const char *prefix, Error *error) {
  const bool gpt2 = model->position == POSITION_LEARNED;
  const struct {
    bool good;
    const char *what;
    const char *value;
  } demands[] = {
      {(model->norm == NORM_LAYERNORM) == gpt2, "norm", gpt2 ? ": layernorm" : ": rmsnorm"},
      {(model->activation == ACTIVATION_GELU) == gpt2, "activation", gpt2 ? ": gelu" : ": swiglu"},
      {model->bias == gpt2, "bias", gpt2 ? ": true" : ": false"},
      {model->tie_word_embeddings || !gpt2, "tie_word_embeddings", ": true"},
      {model->num_key_value_heads == model->num_attention_heads || !gpt2, "num_key_value_heads",
       " as many as attention heads"},
      {model->sliding_window == 0 || !gpt2, "sliding_window", ": 0"},
  };
  for (size_t i = 0; i < sizeof demands / sizeof demands[0]; i++) {
    if (demands[i].good) continue;
    return fail(error, STATUS_CONFIG,
                "%s: %sposition: %s is the %s family, which needs %s%s%s; other programs could not load "
                "another mixture",
                source, prefix, gpt2 ? "learned" : "rope", gpt2 ? "GPT-2" : "Llama", prefix, demands[i].what,
                demands[i].value);
  }
  return STATUS_OK;
}

/* ---------------------------------------------------------------- scaled positions */

const char *const rope_type_names[] = {
    [ROPE_DEFAULT] = "default", [ROPE_LINEAR] = "linear", [ROPE_DYNAMIC] = "dynamic",
    [ROPE_YARN] = "yarn",       [ROPE_LLAMA3] = "llama3", NULL};

/* A key that only other types read would be there in vain: what was meant is another type. */
static Status check_rope_keys(const RopeScaling *scaling, const char *source, const char *prefix,
                              Error *error) {
  const RopeType type = scaling->rope_type;
  const bool yarn = type == ROPE_YARN;
  const bool llama3 = type == ROPE_LLAMA3;
  const struct {
    bool given;
    bool read;
    const char *key;
    const char *types;
  } keys[] = {
      {scaling->factor != 0, type != ROPE_DEFAULT, "factor", "linear, dynamic, yarn and llama3"},
      {scaling->original_max_position_embeddings != 0, yarn || llama3, "original_max_position_embeddings",
       "yarn and llama3"},
      {scaling->beta_fast != 0, yarn, "beta_fast", "yarn"},
      {scaling->beta_slow != 0, yarn, "beta_slow", "yarn"},
      {scaling->attention_factor != 0, yarn, "attention_factor", "yarn"},
      {!scaling->truncate, yarn, "truncate", "yarn"},
      {scaling->low_freq_factor != 0, llama3, "low_freq_factor", "llama3"},
      {scaling->high_freq_factor != 0, llama3, "high_freq_factor", "llama3"},
  };
  for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
    if (!keys[i].given || keys[i].read) continue;
    return fail(error, STATUS_CONFIG, "%s: %srope_scaling.%s is for rope_type %s, not %s; leave it out",
                source, prefix, keys[i].key, keys[i].types, rope_type_names[type]);
  }
  return STATUS_OK;
}

/* Two limits of a type: both are there, and `low` is below `high`. */
static Status check_rope_limits(const char *source, const char *prefix, const char *low_key, double low,
                                const char *high_key, double high, Error *error) {
  if (low > 0 && low < high) return STATUS_OK;
  return fail(error, STATUS_CONFIG,
              "%s: %srope_scaling.%s (%g) must be above 0 and below %srope_scaling.%s (%g)", source, prefix,
              low_key, low, prefix, high_key, high);
}

static Status check_rope(const ModelConfig *model, const char *source, const char *prefix, Error *error) {
  const RopeScaling *scaling = &model->rope_scaling;
  const RopeType type = scaling->rope_type;
  const char *name = rope_type_names[type];
  if (type != ROPE_DEFAULT && model->position != POSITION_ROPE) {
    return fail(error, STATUS_CONFIG, "%s: %srope_scaling.rope_type: %s scales %sposition: rope, not learned",
                source, prefix, name, prefix);
  }
  TRY(check_rope_keys(scaling, source, prefix, error));
  if (type == ROPE_DEFAULT) return STATUS_OK;
  if (!(scaling->factor >= 1)) {
    return fail(error, STATUS_CONFIG, "%s: %srope_scaling.factor is %g; rope_type %s needs one of 1 or more",
                source, prefix, scaling->factor, name);
  }
  if ((type == ROPE_YARN || type == ROPE_LLAMA3) && scaling->original_max_position_embeddings < 1) {
    return fail(error, STATUS_CONFIG,
                "%s: %srope_scaling.original_max_position_embeddings is missing; rope_type %s needs the "
                "length that the model was trained for before",
                source, prefix, name);
  }
  if (type == ROPE_LLAMA3) {
    return check_rope_limits(source, prefix, "low_freq_factor", scaling->low_freq_factor, "high_freq_factor",
                             scaling->high_freq_factor, error);
  }
  if (type != ROPE_YARN) return STATUS_OK;
  if (!(model->rope_theta > 1)) {
    return fail(error, STATUS_CONFIG, "%s: %srope_theta is %g; rope_type yarn needs one above 1", source,
                prefix, model->rope_theta);
  }
  return check_rope_limits(source, prefix, "beta_slow", scaling->beta_slow, "beta_fast", scaling->beta_fast,
                           error);
}

Status model_config_check(const ModelConfig *model, const char *source, const char *prefix, Error *error) {
  TRY(check_heads(model, source, prefix, error));
  TRY(check_family(model, source, prefix, error));
  return check_rope(model, source, prefix, error);
}
