/* config.json: the writer. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "checkpoints/hf_config.h"
#include "checkpoints/json_write.h"

/* The end-of-document token stands at both ends of a document. */
static void set_tokens(JsonWriter *root, const HfConfig *config) {
  if (config->eos_token_id >= 0) {
    json_write_integer(root, "bos_token_id", config->eos_token_id);
    json_write_integer(root, "eos_token_id", config->eos_token_id);
  } else {
    json_write_null(root, "bos_token_id");
    json_write_null(root, "eos_token_id");
  }
}

/* What all families share. transformers 4 reads torch_dtype, 5 reads dtype. */
static void set_common(JsonWriter *root, const HfConfig *config, const char *architecture, const char *type) {
  if (architecture != NULL) json_write_value(root, "architectures", json_pack("[s]", architecture));
  json_write_string(root, "model_type", type);
  json_write_integer(root, "vocab_size", config->vocab_size);
  json_write_real(root, "initializer_range", config->initializer_range);
  json_write_bool(root, "tie_word_embeddings", config->tie_word_embeddings);
  json_write_bool(root, "use_cache", true);
  set_tokens(root, config);
  json_write_string(root, "torch_dtype", "float32");
  json_write_string(root, "dtype", "float32");
}

/* The dropouts are 0 because the model was trained without; left out they would be 0.1. */
static void write_gpt2(JsonWriter *root, const HfConfig *config) {
  set_common(root, config, "GPT2LMHeadModel", "gpt2");
  json_write_integer(root, "n_positions", config->max_position_embeddings);
  json_write_integer(root, "n_ctx", config->max_position_embeddings);
  json_write_integer(root, "n_embd", config->hidden_size);
  json_write_integer(root, "n_layer", config->num_hidden_layers);
  json_write_integer(root, "n_head", config->num_attention_heads);
  json_write_integer(root, "n_inner", config->intermediate_size);
  json_write_string(root, "activation_function", "gelu_new");
  json_write_real(root, "layer_norm_epsilon", config->norm_eps);
  json_write_real(root, "resid_pdrop", 0);
  json_write_real(root, "embd_pdrop", 0);
  json_write_real(root, "attn_pdrop", 0);
  json_write_bool(root, "scale_attn_weights", true);
}

const char *const hf_rope_types[] = {
    [HF_ROPE_DEFAULT] = "default", [HF_ROPE_LINEAR] = "linear", [HF_ROPE_DYNAMIC] = "dynamic",
    [HF_ROPE_YARN] = "yarn",       [HF_ROPE_LLAMA3] = "llama3", NULL};

/* The keys of a scaling: those that its type reads, since transformers warns of others. */
static void set_rope_scaling(JsonWriter *object, const HfRopeScaling *scaling) {
  const bool yarn = scaling->rope_type == HF_ROPE_YARN;
  const bool llama3 = scaling->rope_type == HF_ROPE_LLAMA3;
  json_write_string(object, "rope_type", hf_rope_types[scaling->rope_type]);
  if (scaling->rope_type != HF_ROPE_DEFAULT) json_write_real(object, "factor", scaling->factor);
  if (yarn || llama3) {
    json_write_integer(object, "original_max_position_embeddings", scaling->original_max_position_embeddings);
  }
  if (yarn) {
    json_write_real(object, "beta_fast", scaling->beta_fast);
    json_write_real(object, "beta_slow", scaling->beta_slow);
    if (scaling->attention_factor > 0) {
      json_write_real(object, "attention_factor", scaling->attention_factor);
    }
    if (!scaling->truncate) json_write_bool(object, "truncate", false);
  }
  if (llama3) {
    json_write_real(object, "low_freq_factor", scaling->low_freq_factor);
    json_write_real(object, "high_freq_factor", scaling->high_freq_factor);
  }
}

/* transformers 4 reads rope_theta and rope_scaling, 5 reads rope_parameters, or the former two where
 * rope_scaling is not null; each would take theta for 10000 and no scaling without a warning where its own
 * key is missing. */
static void set_rope(JsonWriter *root, const HfConfig *config) {
  JsonWriter parameters = json_write_begin();
  set_rope_scaling(&parameters, &config->rope_scaling);
  json_write_real(&parameters, "rope_theta", config->rope_theta);
  json_write_object(root, "rope_parameters", &parameters);
  json_write_real(root, "rope_theta", config->rope_theta);
  if (config->rope_scaling.rope_type == HF_ROPE_DEFAULT) {
    json_write_null(root, "rope_scaling");
    return;
  }
  JsonWriter scaling = json_write_begin();
  set_rope_scaling(&scaling, &config->rope_scaling);
  json_write_object(root, "rope_scaling", &scaling);
}

static void set_sizes(JsonWriter *root, const HfConfig *config) {
  json_write_integer(root, "hidden_size", config->hidden_size);
  json_write_integer(root, "intermediate_size", config->intermediate_size);
  json_write_integer(root, "num_hidden_layers", config->num_hidden_layers);
  json_write_integer(root, "num_attention_heads", config->num_attention_heads);
  json_write_integer(root, "num_key_value_heads", config->num_key_value_heads);
  json_write_integer(root, "head_dim", config->hidden_size / config->num_attention_heads);
  json_write_integer(root, "max_position_embeddings", config->max_position_embeddings);
}

static void set_llama(JsonWriter *root, const HfConfig *config) {
  set_sizes(root, config);
  json_write_string(root, "hidden_act", "silu");
  json_write_real(root, "rms_norm_eps", config->norm_eps);
  json_write_real(root, "attention_dropout", 0);
  set_rope(root, config);
}

static void write_llama(JsonWriter *root, const HfConfig *config) {
  set_common(root, config, "LlamaForCausalLM", "llama");
  set_llama(root, config);
  json_write_bool(root, "attention_bias", config->bias);
  json_write_bool(root, "mlp_bias", config->bias);
}

static void write_mistral(JsonWriter *root, const HfConfig *config) {
  set_common(root, config, "MistralForCausalLM", "mistral");
  set_llama(root, config);
  json_write_integer(root, "sliding_window", config->sliding_window);
}

static void write_own(JsonWriter *root, const HfConfig *config) {
  set_common(root, config, NULL, "ringgpt");
  set_sizes(root, config);
  json_write_string(root, "position", config->position == HF_POSITION_ROPE ? "rope" : "learned");
  json_write_string(root, "norm", config->norm == HF_NORM_RMSNORM ? "rmsnorm" : "layernorm");
  json_write_string(root, "activation", config->activation == HF_ACTIVATION_SWIGLU ? "swiglu" : "gelu");
  json_write_real(root, "norm_eps", config->norm_eps);
  set_rope(root, config);
  json_write_bool(root, "bias", config->bias);
  json_write_integer(root, "sliding_window", config->sliding_window);
}

static void write_config(JsonWriter *root, const HfConfig *config) {
  const bool gpt2 = config->position == HF_POSITION_LEARNED && config->norm == HF_NORM_LAYERNORM &&
                    config->activation == HF_ACTIVATION_GELU && config->bias && config->sliding_window == 0 &&
                    config->num_key_value_heads == config->num_attention_heads;
  const bool llama = config->position == HF_POSITION_ROPE && config->norm == HF_NORM_RMSNORM &&
                     config->activation == HF_ACTIVATION_SWIGLU;
  if (gpt2) {
    write_gpt2(root, config);
  } else if (llama && config->sliding_window == 0) {
    write_llama(root, config);
  } else if (llama && !config->bias) {
    write_mistral(root, config);
  } else {
    write_own(root, config);
  }
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
  JsonWriter root = json_write_begin();
  write_config(&root, config);
  char *text = root.failed ? NULL : dump_exactly(root.object);
  json_decref(root.object);
  const bool made = text != NULL && asprintf(out, "%s\n", text) >= 0;
  free(text);
  if (!made) *out = NULL;
  return made ? STATUS_OK : fail(error, STATUS_SYSTEM, "config.json: no memory left");
}
