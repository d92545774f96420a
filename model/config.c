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

Status model_config_check(const ModelConfig *model, const char *source, const char *prefix, Error *error) {
  TRY(check_heads(model, source, prefix, error));
  return check_family(model, source, prefix, error);
}
