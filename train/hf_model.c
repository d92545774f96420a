/* A model's configuration in the words of Hugging Face's config.json. */
#include "train/hf_model.h"

#include "checkpoints/hf_config.h"

Status hf_model_text(const ModelConfig *model, int32_t end_of_document, char **out, Error *error) {
  const HfConfig config = {
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
  return hf_config_text(&config, out, error);
}
