/* config.json: the writer. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "checkpoints/hf_config.h"

static void set_integer(json_t *object, const char *key, int64_t value) {
  (void)json_object_set_new(object, key, json_integer(value));
}

static void set_real(json_t *object, const char *key, double value) {
  (void)json_object_set_new(object, key, json_real(value));
}

static void set_string(json_t *object, const char *key, const char *value) {
  (void)json_object_set_new(object, key, json_string(value));
}

static void set_bool(json_t *object, const char *key, bool value) {
  (void)json_object_set_new(object, key, json_boolean(value));
}

static void set_null(json_t *object, const char *key) {
  (void)json_object_set_new(object, key, json_null());
}

/* The end-of-document token stands at both ends of a document. */
static void set_tokens(json_t *root, const HfConfig *config) {
  if (config->eos_token_id >= 0) {
    set_integer(root, "bos_token_id", config->eos_token_id);
    set_integer(root, "eos_token_id", config->eos_token_id);
  } else {
    set_null(root, "bos_token_id");
    set_null(root, "eos_token_id");
  }
}

/* What all families share. transformers 4 reads torch_dtype, 5 reads dtype. */
static json_t *common_to_json(const HfConfig *config, const char *architecture, const char *type) {
  json_t *root = json_object();
  if (architecture != NULL) {
    (void)json_object_set_new(root, "architectures", json_pack("[s]", architecture));
  }
  set_string(root, "model_type", type);
  set_integer(root, "vocab_size", config->vocab_size);
  set_real(root, "initializer_range", config->initializer_range);
  set_bool(root, "tie_word_embeddings", config->tie_word_embeddings);
  set_bool(root, "use_cache", true);
  set_tokens(root, config);
  set_string(root, "torch_dtype", "float32");
  set_string(root, "dtype", "float32");
  return root;
}

/* The dropouts are 0 because the model was trained without; left out they would be 0.1. */
static json_t *gpt2_to_json(const HfConfig *config) {
  json_t *root = common_to_json(config, "GPT2LMHeadModel", "gpt2");
  set_integer(root, "n_positions", config->max_position_embeddings);
  set_integer(root, "n_ctx", config->max_position_embeddings);
  set_integer(root, "n_embd", config->hidden_size);
  set_integer(root, "n_layer", config->num_hidden_layers);
  set_integer(root, "n_head", config->num_attention_heads);
  set_integer(root, "n_inner", config->intermediate_size);
  set_string(root, "activation_function", "gelu_new");
  set_real(root, "layer_norm_epsilon", config->norm_eps);
  set_real(root, "resid_pdrop", 0);
  set_real(root, "embd_pdrop", 0);
  set_real(root, "attn_pdrop", 0);
  set_bool(root, "scale_attn_weights", true);
  return root;
}

/* transformers 4 reads rope_theta and rope_scaling, 5 reads rope_parameters; each would take 10000 without a
 * warning where its own key is missing. */
static void set_rope(json_t *root, const HfConfig *config) {
  json_t *parameters = json_object();
  set_string(parameters, "rope_type", "default");
  set_real(parameters, "rope_theta", config->rope_theta);
  (void)json_object_set_new(root, "rope_parameters", parameters);
  set_real(root, "rope_theta", config->rope_theta);
  set_null(root, "rope_scaling");
}

static void set_sizes(json_t *root, const HfConfig *config) {
  set_integer(root, "hidden_size", config->hidden_size);
  set_integer(root, "intermediate_size", config->intermediate_size);
  set_integer(root, "num_hidden_layers", config->num_hidden_layers);
  set_integer(root, "num_attention_heads", config->num_attention_heads);
  set_integer(root, "num_key_value_heads", config->num_key_value_heads);
  set_integer(root, "head_dim", config->hidden_size / config->num_attention_heads);
  set_integer(root, "max_position_embeddings", config->max_position_embeddings);
}

static void set_llama(json_t *root, const HfConfig *config) {
  set_sizes(root, config);
  set_string(root, "hidden_act", "silu");
  set_real(root, "rms_norm_eps", config->norm_eps);
  set_real(root, "attention_dropout", 0);
  set_rope(root, config);
}

static json_t *llama_to_json(const HfConfig *config) {
  json_t *root = common_to_json(config, "LlamaForCausalLM", "llama");
  set_llama(root, config);
  set_bool(root, "attention_bias", config->bias);
  set_bool(root, "mlp_bias", config->bias);
  return root;
}

static json_t *mistral_to_json(const HfConfig *config) {
  json_t *root = common_to_json(config, "MistralForCausalLM", "mistral");
  set_llama(root, config);
  set_integer(root, "sliding_window", config->sliding_window);
  return root;
}

static json_t *own_to_json(const HfConfig *config) {
  json_t *root = common_to_json(config, NULL, "ringgpt");
  set_sizes(root, config);
  set_string(root, "position", config->position == HF_POSITION_ROPE ? "rope" : "learned");
  set_string(root, "norm", config->norm == HF_NORM_RMSNORM ? "rmsnorm" : "layernorm");
  set_string(root, "activation", config->activation == HF_ACTIVATION_SWIGLU ? "swiglu" : "gelu");
  set_real(root, "norm_eps", config->norm_eps);
  set_rope(root, config);
  set_bool(root, "bias", config->bias);
  set_integer(root, "sliding_window", config->sliding_window);
  return root;
}

static json_t *config_to_json(const HfConfig *config) {
  const bool gpt2 = config->position == HF_POSITION_LEARNED && config->norm == HF_NORM_LAYERNORM &&
                    config->activation == HF_ACTIVATION_GELU && config->bias && config->sliding_window == 0 &&
                    config->num_key_value_heads == config->num_attention_heads;
  const bool llama = config->position == HF_POSITION_ROPE && config->norm == HF_NORM_RMSNORM &&
                     config->activation == HF_ACTIVATION_SWIGLU;
  if (gpt2) return gpt2_to_json(config);
  if (llama && config->sliding_window == 0) return llama_to_json(config);
  if (llama && !config->bias) return mistral_to_json(config);
  return own_to_json(config);
}

/* The shortest text in which every number reads back as itself: 1e-6 and not 9.9999999999999995e-7. */
static char *dump_exactly(const json_t *root) {
  for (size_t digits = 8;; digits++) {
    char *text = json_dumps(root, JSON_INDENT(2) | JSON_REAL_PRECISION(digits));
    json_error_t ignored;
    json_t *copy = text != NULL && digits < 17 ? json_loads(text, 0, &ignored) : NULL;
    const bool exact = copy != NULL && json_equal(copy, root);
    json_decref(copy);
    if (exact || text == NULL || digits == 17) return text;
    free(text);
  }
}

Status hf_config_text(const HfConfig *config, char **out, Error *error) {
  json_t *root = config_to_json(config);
  char *text = dump_exactly(root);
  json_decref(root);
  const bool made = text != NULL && asprintf(out, "%s\n", text) >= 0;
  free(text);
  if (!made) *out = NULL;
  return made ? STATUS_OK : fail(error, STATUS_SYSTEM, "config.json: no memory left");
}
