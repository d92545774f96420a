/* A model's configuration in the words of Hugging Face's config.json. */
#include "train/hf_model.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "checkpoints/hf_config.h"
#include "model/rope.h"

_Static_assert((int)HF_ROPE_LINEAR == (int)ROPE_LINEAR && (int)HF_ROPE_DYNAMIC == (int)ROPE_DYNAMIC &&
                   (int)HF_ROPE_YARN == (int)ROPE_YARN && (int)HF_ROPE_LLAMA3 == (int)ROPE_LLAMA3,
               "the types of RoPE have the same numbers");

static HfRopeScaling to_hf(const RopeScaling *scaling) {
  return (HfRopeScaling){.rope_type = (HfRopeType)scaling->rope_type,
                         .factor = scaling->factor,
                         .original_max_position_embeddings = scaling->original_max_position_embeddings,
                         .beta_fast = scaling->beta_fast,
                         .beta_slow = scaling->beta_slow,
                         .attention_factor = scaling->attention_factor,
                         .truncate = scaling->truncate,
                         .low_freq_factor = scaling->low_freq_factor,
                         .high_freq_factor = scaling->high_freq_factor};
}

static RopeScaling from_hf(const HfRopeScaling *scaling) {
  return (RopeScaling){.rope_type = (RopeType)scaling->rope_type,
                       .factor = scaling->factor,
                       .original_max_position_embeddings = scaling->original_max_position_embeddings,
                       .beta_fast = scaling->beta_fast,
                       .beta_slow = scaling->beta_slow,
                       .attention_factor = scaling->attention_factor,
                       .truncate = scaling->truncate,
                       .low_freq_factor = scaling->low_freq_factor,
                       .high_freq_factor = scaling->high_freq_factor};
}

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
      .rope_scaling = to_hf(&model->rope_scaling),
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

/* ---------------------------------------------------------------- what may change */

#define REACH_BYTES 384

/* The scaling in words that begin with a comma, with every number that it reads; empty without one. */
static void describe_scaling(const HfConfig *config, char *text, size_t bytes) {
  const RopeScaling scaling = from_hf(&config->rope_scaling);
  const char *name = rope_type_names[scaling.rope_type];
  const int64_t original = scaling.original_max_position_embeddings;
  switch (scaling.rope_type) {
  case ROPE_DEFAULT:
    text[0] = '\0';
    break;
  case ROPE_LINEAR:
    (void)snprintf(text, bytes, ", %s scaling by %.9g", name, scaling.factor);
    break;
  case ROPE_DYNAMIC:
    (void)snprintf(text, bytes, ", %s scaling by %.9g beyond %" PRId64, name, scaling.factor,
                   config->max_position_embeddings);
    break;
  case ROPE_YARN:
    (void)snprintf(text, bytes,
                   ", %s scaling by %.9g from %" PRId64 " (beta_fast %.9g, beta_slow %.9g, attention_factor "
                   "%.9g%s)",
                   name, scaling.factor, original, scaling.beta_fast, scaling.beta_slow,
                   rope_attention_factor(&scaling), scaling.truncate ? "" : ", not truncated");
    break;
  case ROPE_LLAMA3:
    (void)snprintf(text, bytes,
                   ", %s scaling by %.9g from %" PRId64 " (low_freq_factor %.9g, high_freq_factor %.9g)",
                   name, scaling.factor, original, scaling.low_freq_factor, scaling.high_freq_factor);
    break;
  }
}

/* What may be changed on purpose for longer contexts. */
static void describe_reach(const HfConfig *config, char text[REACH_BYTES]) {
  char scaling[REACH_BYTES / 2];
  const long long window = (long long)config->sliding_window;
  if (config->position != HF_POSITION_ROPE) {
    (void)snprintf(text, REACH_BYTES, "sliding_window %lld", window);
    return;
  }
  describe_scaling(config, scaling, sizeof scaling);
  (void)snprintf(text, REACH_BYTES, "rope_theta %.9g%s and sliding_window %lld", config->rope_theta, scaling,
                 window);
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
  char reach[2][REACH_BYTES];
  describe_reach(&theirs, reach[0]);
  describe_reach(&ours, reach[1]);
  if (strcmp(reach[0], reach[1]) != 0) {
    (void)snprintf(warning, bytes, "%s: trained with %s, computed with %s", path, reach[0], reach[1]);
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
      .rope_scaling = from_hf(&config.rope_scaling),
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
