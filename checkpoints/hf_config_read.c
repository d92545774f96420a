/* config.json: the reader, strict about whatever changes what the model computes. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "checkpoints/directory.h"
#include "checkpoints/hf_config.h"
#include "kernels/base/file.h"

#define CONFIG_NAME "config.json"
#define MAX_BYTES ((size_t)1 << 20)

/* No default: the key must be there. */
#define REQUIRED INT64_MIN

typedef struct Reader {
  const char *path;
  const json_t *root;
  Error *error;
} Reader;

/* The value of a key; null counts as absent, as it does for transformers. */
static const json_t *get(const Reader *reader, const char *key) {
  const json_t *value = json_object_get(reader->root, key);
  return json_is_null(value) ? NULL : value;
}

static Status wrong_type(const Reader *reader, const char *key, const char *what) {
  return fail(reader->error, STATUS_DATA, "%s: %s should be %s", reader->path, key, what);
}

/* A model that this program cannot compute. */
static Status unsupported(const Reader *reader, const char *key, const char *what) {
  return fail(reader->error, STATUS_CONFIG, "%s: %s: this program computes %s alone", reader->path, key,
              what);
}

/* A number in [least, 2^31). */
static Status get_size(const Reader *reader, const char *key, int64_t least, int64_t absent, int64_t *value) {
  const json_t *json = get(reader, key);
  if (json == NULL && absent == REQUIRED) {
    return fail(reader->error, STATUS_DATA, "%s: has no %s", reader->path, key);
  }
  *value = json == NULL ? absent : json_integer_value(json);
  if (json != NULL && (!json_is_integer(json) || *value < least || *value > INT32_MAX)) {
    return wrong_type(reader, key, "a whole number, positive and below 2^31");
  }
  return STATUS_OK;
}

static Status get_real(const Reader *reader, const char *key, double absent, double *value) {
  const json_t *json = get(reader, key);
  *value = json == NULL ? absent : json_number_value(json);
  if (json != NULL && (!json_is_number(json) || *value < 0)) {
    return wrong_type(reader, key, "a number of 0 or more");
  }
  return STATUS_OK;
}

static Status get_bool(const Reader *reader, const char *key, bool absent, bool *value) {
  const json_t *json = get(reader, key);
  *value = json == NULL ? absent : json_is_true(json);
  return json == NULL || json_is_boolean(json) ? STATUS_OK : wrong_type(reader, key, "true or false");
}

/* A text of the key, or `absent`; it lives as long as the JSON. */
static Status get_text(const Reader *reader, const char *key, const char *absent, const char **value) {
  const json_t *json = get(reader, key);
  *value = json == NULL ? absent : json_string_value(json);
  if (*value == NULL) return wrong_type(reader, key, "a text");
  return STATUS_OK;
}

/* Refuses a switch that is not at the one value that this program knows. */
static Status require_bool(const Reader *reader, const char *key, bool required) {
  bool value = required;
  TRY(get_bool(reader, key, required, &value));
  return value == required ? STATUS_OK : unsupported(reader, key, required ? "true" : "false");
}

/* ---------------------------------------------------------------- parts */

static Status read_common(const Reader *reader, bool tied_by_default, HfConfig *config) {
  TRY(get_size(reader, "vocab_size", 1, REQUIRED, &config->vocab_size));
  TRY(get_real(reader, "initializer_range", 0.02, &config->initializer_range));
  TRY(get_bool(reader, "tie_word_embeddings", tied_by_default, &config->tie_word_embeddings));
  /* A list, as of Llama 3, does not say which one stands between documents. */
  if (json_is_array(get(reader, "eos_token_id"))) {
    config->eos_token_id = -1;
    return STATUS_OK;
  }
  return get_size(reader, "eos_token_id", -1, -1, &config->eos_token_id);
}

static Status read_sizes(const Reader *reader, HfConfig *config) {
  int64_t head_dim = 0;
  TRY(get_size(reader, "hidden_size", 1, REQUIRED, &config->hidden_size));
  TRY(get_size(reader, "intermediate_size", 1, REQUIRED, &config->intermediate_size));
  TRY(get_size(reader, "num_hidden_layers", 1, REQUIRED, &config->num_hidden_layers));
  TRY(get_size(reader, "num_attention_heads", 1, REQUIRED, &config->num_attention_heads));
  TRY(get_size(reader, "num_key_value_heads", 1, config->num_attention_heads, &config->num_key_value_heads));
  TRY(get_size(reader, "max_position_embeddings", 1, 2048, &config->max_position_embeddings));
  TRY(get_size(reader, "head_dim", 1, config->hidden_size / config->num_attention_heads, &head_dim));
  if (head_dim != config->hidden_size / config->num_attention_heads) {
    return unsupported(reader, "head_dim", "hidden_size / num_attention_heads");
  }
  return STATUS_OK;
}

/* ---------------------------------------------------------------- RoPE */

/* A number that must be there. */
static Status get_given(const Reader *reader, const char *key, double *value) {
  if (get(reader, key) == NULL) return fail(reader->error, STATUS_DATA, "%s: has no %s", reader->path, key);
  return get_real(reader, key, 0, value);
}

static Status read_rope_type(const Reader *inner, const char *key, HfRopeType *type) {
  const char *name = NULL;
  TRY(get_text(inner, "type", "default", &name));
  TRY(get_text(inner, "rope_type", name, &name));
  for (int i = 0; hf_rope_types[i] != NULL; i++) {
    if (strcmp(name, hf_rope_types[i]) != 0) continue;
    *type = (HfRopeType)i;
    return STATUS_OK;
  }
  return fail(
      inner->error, STATUS_CONFIG,
      "%s: %s is of type %.60s: this program computes default, linear, dynamic, yarn and llama3 alone",
      inner->path, key, name);
}

/* What transformers reads for yarn; 0 counts as absent there, but for the attention factor. */
static Status read_yarn(const Reader *inner, HfRopeScaling *scaling) {
  TRY(get_real(inner, "beta_fast", 0, &scaling->beta_fast));
  TRY(get_real(inner, "beta_slow", 0, &scaling->beta_slow));
  if (scaling->beta_fast == 0) scaling->beta_fast = 32;
  if (scaling->beta_slow == 0) scaling->beta_slow = 1;
  TRY(get_bool(inner, "truncate", true, &scaling->truncate));
  TRY(get_real(inner, "attention_factor", 0, &scaling->attention_factor));
  if (scaling->attention_factor == 0 && get(inner, "attention_factor") != NULL) {
    return wrong_type(inner, "attention_factor", "above 0");
  }
  if (get(inner, "mscale") != NULL && get(inner, "mscale_all_dim") != NULL) {
    return unsupported(inner, "mscale", "an attention_factor");
  }
  return STATUS_OK;
}

/* The keys that the type reads. The positions before the scaling are the model's where nothing is said. */
static Status read_scaling(const Reader *reader, const Reader *inner, int64_t positions,
                           HfRopeScaling *scaling) {
  const HfRopeType type = scaling->rope_type;
  if (type == HF_ROPE_DEFAULT) return STATUS_OK;
  TRY(get_given(inner, "factor", &scaling->factor));
  if (type == HF_ROPE_LINEAR || type == HF_ROPE_DYNAMIC) return STATUS_OK;
  const char *key = "original_max_position_embeddings";
  TRY(get_size(inner, key, 1, positions, &scaling->original_max_position_embeddings));
  TRY(get_size(reader, key, 1, scaling->original_max_position_embeddings,
               &scaling->original_max_position_embeddings));
  if (type == HF_ROPE_YARN) return read_yarn(inner, scaling);
  TRY(get_given(inner, "low_freq_factor", &scaling->low_freq_factor));
  return get_given(inner, "high_freq_factor", &scaling->high_freq_factor);
}

/* One of the two places where RoPE is described: `key` is rope_parameters or rope_scaling. Without it scaling
 * and theta stay as they are. */
static Status read_rope_object(const Reader *reader, const char *key, const HfConfig *config,
                               HfRopeScaling *scaling, double *theta) {
  const json_t *object = get(reader, key);
  if (object == NULL) return STATUS_OK;
  if (!json_is_object(object)) return wrong_type(reader, key, "an object");
  const Reader inner = {.path = reader->path, .root = object, .error = reader->error};
  double part = 1;
  *scaling = (HfRopeScaling){.truncate = true};
  TRY(read_rope_type(&inner, key, &scaling->rope_type));
  TRY(read_scaling(reader, &inner, config->max_position_embeddings, scaling));
  TRY(get_real(&inner, "partial_rotary_factor", 1, &part));
  if (part != 1) return unsupported(reader, "partial_rotary_factor", "1");
  const double before = *theta;
  const bool again = get(reader, "rope_theta") != NULL && get(&inner, "rope_theta") != NULL;
  TRY(get_real(&inner, "rope_theta", before, theta));
  if (!again || *theta == before) return STATUS_OK;
  return fail(reader->error, STATUS_CONFIG, "%s: rope_theta is %.9g, and %.9g in %s", reader->path, before,
              *theta, key);
}

static bool same_scaling(const HfRopeScaling *a, const HfRopeScaling *b) {
  return a->rope_type == b->rope_type && a->factor == b->factor &&
         a->original_max_position_embeddings == b->original_max_position_embeddings &&
         a->beta_fast == b->beta_fast && a->beta_slow == b->beta_slow &&
         a->attention_factor == b->attention_factor && a->truncate == b->truncate &&
         a->low_freq_factor == b->low_freq_factor && a->high_freq_factor == b->high_freq_factor;
}

/* transformers 4 reads rope_scaling alone, 5 prefers it, each without a word about the other place: which
 * model is meant by two that differ nobody knows. */
static Status read_rope(const Reader *reader, HfConfig *config) {
  double part = 1;
  HfRopeScaling scaling = config->rope_scaling;
  TRY(get_real(reader, "partial_rotary_factor", 1, &part));
  if (part != 1) return unsupported(reader, "partial_rotary_factor", "1");
  TRY(get_real(reader, "rope_theta", 10000, &config->rope_theta));
  TRY(read_rope_object(reader, "rope_scaling", config, &config->rope_scaling, &config->rope_theta));
  const bool both = get(reader, "rope_scaling") != NULL && get(reader, "rope_parameters") != NULL;
  TRY(read_rope_object(reader, "rope_parameters", config, &scaling, &config->rope_theta));
  if (both && !same_scaling(&scaling, &config->rope_scaling)) {
    return fail(reader->error, STATUS_CONFIG, "%s: rope_scaling and rope_parameters contradict each other",
                reader->path);
  }
  if (get(reader, "rope_scaling") == NULL) config->rope_scaling = scaling;
  return STATUS_OK;
}

/* ---------------------------------------------------------------- families */

static Status read_gpt2(const Reader *reader, HfConfig *config) {
  const char *activation = NULL;
  config->position = HF_POSITION_LEARNED;
  config->norm = HF_NORM_LAYERNORM;
  config->activation = HF_ACTIVATION_GELU;
  config->bias = true;
  config->rope_theta = 10000;
  TRY(read_common(reader, true, config));
  TRY(get_size(reader, "n_positions", 1, REQUIRED, &config->max_position_embeddings));
  TRY(get_size(reader, "n_embd", 1, REQUIRED, &config->hidden_size));
  TRY(get_size(reader, "n_layer", 1, REQUIRED, &config->num_hidden_layers));
  TRY(get_size(reader, "n_head", 1, REQUIRED, &config->num_attention_heads));
  TRY(get_size(reader, "n_inner", 1, 4 * config->hidden_size, &config->intermediate_size));
  TRY(get_real(reader, "layer_norm_epsilon", 1e-5, &config->norm_eps));
  TRY(get_text(reader, "activation_function", "gelu_new", &activation));
  config->num_key_value_heads = config->num_attention_heads;
  if (strcmp(activation, "gelu_new") != 0 && strcmp(activation, "gelu_pytorch_tanh") != 0) {
    return unsupported(reader, "activation_function", "gelu_new");
  }
  TRY(require_bool(reader, "scale_attn_weights", true));
  TRY(require_bool(reader, "scale_attn_by_inverse_layer_idx", false));
  return require_bool(reader, "add_cross_attention", false);
}

static Status read_llama_core(const Reader *reader, HfConfig *config) {
  const char *activation = NULL;
  config->position = HF_POSITION_ROPE;
  config->norm = HF_NORM_RMSNORM;
  config->activation = HF_ACTIVATION_SWIGLU;
  TRY(read_common(reader, false, config));
  TRY(read_sizes(reader, config));
  TRY(get_real(reader, "rms_norm_eps", 1e-6, &config->norm_eps));
  TRY(get_text(reader, "hidden_act", "silu", &activation));
  if (strcmp(activation, "silu") != 0) return unsupported(reader, "hidden_act", "silu");
  return read_rope(reader, config);
}

/* Llama in transformers has no sliding window, whatever the key says. */
static Status read_llama(const Reader *reader, HfConfig *config) {
  bool mlp_bias = false;
  TRY(read_llama_core(reader, config));
  TRY(get_bool(reader, "attention_bias", false, &config->bias));
  TRY(get_bool(reader, "mlp_bias", false, &mlp_bias));
  if (mlp_bias != config->bias) {
    return unsupported(reader, "mlp_bias", "biases everywhere or nowhere: it should be as attention_bias");
  }
  return STATUS_OK;
}

/* A missing window is 4096, null is none. */
static Status read_mistral(const Reader *reader, HfConfig *config) {
  const bool missing = json_object_get(reader->root, "sliding_window") == NULL;
  TRY(read_llama_core(reader, config));
  return get_size(reader, "sliding_window", 1, missing ? 4096 : 0, &config->sliding_window);
}

/* Reads a choice of two words: 0 for the first, 1 for the second. */
static Status get_choice(const Reader *reader, const char *key, const char *first, const char *second,
                         int *choice) {
  const char *text = NULL;
  TRY(get_text(reader, key, "", &text));
  *choice = strcmp(text, second) == 0 ? 1 : 0;
  if (*choice == 1 || strcmp(text, first) == 0) return STATUS_OK;
  return fail(reader->error, STATUS_DATA, "%s: %s should be %s or %s", reader->path, key, first, second);
}

static Status read_own(const Reader *reader, HfConfig *config) {
  int position = 0;
  int norm = 0;
  int activation = 0;
  TRY(read_common(reader, false, config));
  TRY(read_sizes(reader, config));
  TRY(get_choice(reader, "position", "rope", "learned", &position));
  TRY(get_choice(reader, "norm", "rmsnorm", "layernorm", &norm));
  TRY(get_choice(reader, "activation", "swiglu", "gelu", &activation));
  config->position = position == 0 ? HF_POSITION_ROPE : HF_POSITION_LEARNED;
  config->norm = norm == 0 ? HF_NORM_RMSNORM : HF_NORM_LAYERNORM;
  config->activation = activation == 0 ? HF_ACTIVATION_SWIGLU : HF_ACTIVATION_GELU;
  TRY(get_real(reader, "norm_eps", 1e-5, &config->norm_eps));
  TRY(get_bool(reader, "bias", false, &config->bias));
  TRY(get_size(reader, "sliding_window", 0, 0, &config->sliding_window));
  return read_rope(reader, config);
}

static Status check_heads(const Reader *reader, const HfConfig *config) {
  if (config->hidden_size % config->num_attention_heads != 0) {
    return unsupported(reader, "the number of heads", "one that divides the hidden size");
  }
  if (config->num_attention_heads % config->num_key_value_heads != 0) {
    return unsupported(reader, "num_key_value_heads", "one that divides num_attention_heads");
  }
  return STATUS_OK;
}

static Status read_config(const Reader *reader, HfConfig *config) {
  const char *type = NULL;
  TRY(get_text(reader, "model_type", "", &type));
  if (strcmp(type, "gpt2") == 0) {
    TRY(read_gpt2(reader, config));
  } else if (strcmp(type, "llama") == 0) {
    TRY(read_llama(reader, config));
  } else if (strcmp(type, "mistral") == 0) {
    TRY(read_mistral(reader, config));
  } else if (strcmp(type, "ringgpt") == 0) {
    TRY(read_own(reader, config));
  } else {
    return unsupported(reader, "model_type", "gpt2, llama and mistral");
  }
  return check_heads(reader, config);
}

/* The config.json that `path` means: itself, in the directory, or beside the file of weights. */
static Status config_path(const char *path, char file[PATH_MAX], Error *error) {
  struct stat info;
  if (stat(path, &info) == 0 && S_ISDIR(info.st_mode)) return directory_join(path, CONFIG_NAME, file, error);
  TRY(directory_copy(path, file, error));
  const char *end = strrchr(path, '.');
  if (end == NULL || strcmp(end, ".safetensors") != 0) return STATUS_OK;
  char *slash = strrchr(file, '/');
  if (slash == NULL) return directory_copy(CONFIG_NAME, file, error);
  *slash = '\0';
  char directory[PATH_MAX];
  TRY(directory_copy(file, directory, error));
  return directory_join(directory, CONFIG_NAME, file, error);
}

Status hf_config_read(const char *path, HfConfig *config, Error *error) {
  char file[PATH_MAX];
  char *text = NULL;
  size_t bytes = 0;
  json_error_t reason;
  Status status = STATUS_OK;
  *config = (HfConfig){.rope_scaling = {.truncate = true}, .eos_token_id = -1};
  TRY(config_path(path, file, error));
  TRY(file_read_whole(file, MAX_BYTES, &text, &bytes, error));
  json_t *root = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &reason);
  free(text);
  if (root == NULL) {
    return fail(error, STATUS_DATA, "%s:%d: is not valid JSON: %s", file, reason.line, reason.text);
  }
  const Reader reader = {.path = file, .root = root, .error = error};
  status = read_config(&reader, config);
  json_decref(root);
  return status;
}
