/* A model's configuration in the words of Hugging Face's config.json. */
#include "train/hf_model.h"

#include <stdio.h>

#include "checkpoints/hf_config.h"

static HfConfig hf_model_config(const ModelConfig *model, int32_t end_of_document) {
  return (HfConfig){
      .vocab_size = model->vocab_size,
      .hidden_size = model->hidden_size,
      .num_hidden_layers = model->num_hidden_layers,
      .num_attention_heads = model->num_attention_heads,
      .num_key_value_heads = model->num_key_value_heads,
      .intermediate_size = model->intermediate_size,
      .max_position_embeddings = model->max_position_embeddings,
      .rope_theta = model->rope_theta,
      .norm_eps = model->norm_eps,
      .initializer_range = model->initializer_range,
      .position = model->position == POSITION_ROPE ? HF_POSITION_ROPE : HF_POSITION_LEARNED,
      .norm = model->norm == NORM_RMSNORM ? HF_NORM_RMSNORM : HF_NORM_LAYERNORM,
      .activation = model->activation == ACTIVATION_SWIGLU ? HF_ACTIVATION_SWIGLU : HF_ACTIVATION_GELU,
      .bias = model->bias,
      .tie_word_embeddings = model->tie_word_embeddings,
      .sliding_window = model->sliding_window,
      .eos_token_id = end_of_document,
  };
}

Status hf_model_text(const ModelConfig *model, int32_t end_of_document, char **out, Error *error) {
  const HfConfig config = hf_model_config(model, end_of_document);
  return hf_config_text(&config, out, error);
}

static Status differs(const char *path, const char *key, double theirs, double ours, Error *error) {
  if (theirs == ours) return STATUS_OK;
  return fail(error, STATUS_CONFIG, "%s: its model has %s %.9g, the configuration has %.9g", path, key,
              theirs, ours);
}

Status hf_model_check(const ModelConfig *model, const char *path, char *warning, size_t bytes, Error *error) {
  const HfConfig ours = hf_model_config(model, -1);
  HfConfig theirs;
  Error missing = {0};
  warning[0] = '\0';
  const Status status = hf_config_read(path, &theirs, &missing);
  if (status == STATUS_NO_INPUT) return STATUS_OK;
  if (status != STATUS_OK) return fail(error, status, "%s", missing.text);
  TRY(differs(path, "num_attention_heads", (double)theirs.num_attention_heads,
              (double)ours.num_attention_heads, error));
  TRY(differs(path, "num_key_value_heads", (double)theirs.num_key_value_heads,
              (double)ours.num_key_value_heads, error));
  TRY(differs(path, "norm_eps", theirs.norm_eps, ours.norm_eps, error));
  if (theirs.position != ours.position || theirs.norm != ours.norm || theirs.activation != ours.activation) {
    return fail(error, STATUS_CONFIG, "%s: its model is of another family (position, norm or activation)",
                path);
  }
  if ((ours.position == HF_POSITION_ROPE && theirs.rope_theta != ours.rope_theta) ||
      theirs.sliding_window != ours.sliding_window) {
    (void)snprintf(warning, bytes,
                   "%s: trained with rope_theta %.9g and sliding_window %lld, computed with %.9g and %lld",
                   path, theirs.rope_theta, (long long)theirs.sliding_window, ours.rope_theta,
                   (long long)ours.sliding_window);
  }
  return STATUS_OK;
}

Status hf_model_read_end(const char *path, int64_t *token, Error *error) {
  HfConfig config;
  TRY(hf_config_read(path, &config, error));
  *token = config.eos_token_id;
  return STATUS_OK;
}

Status hf_model_read(const char *path, ModelConfig *model, Error *error) {
  HfConfig config;
  TRY(hf_config_read(path, &config, error));
  *model = (ModelConfig){
      .vocab_size = config.vocab_size,
      .hidden_size = config.hidden_size,
      .num_hidden_layers = config.num_hidden_layers,
      .num_attention_heads = config.num_attention_heads,
      .num_key_value_heads = config.num_key_value_heads,
      .intermediate_size = config.intermediate_size,
      .max_position_embeddings = config.max_position_embeddings,
      .rope_theta = config.rope_theta,
      .norm_eps = config.norm_eps,
      .initializer_range = config.initializer_range,
      .position = config.position == HF_POSITION_ROPE ? POSITION_ROPE : POSITION_LEARNED,
      .norm = config.norm == HF_NORM_RMSNORM ? NORM_RMSNORM : NORM_LAYERNORM,
      .activation = config.activation == HF_ACTIVATION_SWIGLU ? ACTIVATION_SWIGLU : ACTIVATION_GELU,
      .bias = config.bias,
      .tie_word_embeddings = config.tie_word_embeddings,
      .sliding_window = config.sliding_window,
  };
  return model_config_check(model, path, "", error);
}
