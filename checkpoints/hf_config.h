/* config.json, the description of a model that Hugging Face transformers reads: written so that versions 4
 * and 5 load it as it is, and read back, also from models made elsewhere.
 *
 *   family    architecture             model
 *   gpt2      GPT2LMHeadModel          learned positions, LayerNorm, GELU, biases
 *   llama     LlamaForCausalLM         RoPE, RMSNorm, SwiGLU, with or without biases
 *   mistral   MistralForCausalLM       the same with a sliding window and no biases; Llama in transformers
 *                                      has no window and would ignore it
 *   ringgpt   none                     any other combination: plain keys that only this program reads
 */
#ifndef RINGGPT_CHECKPOINTS_HF_CONFIG_H
#define RINGGPT_CHECKPOINTS_HF_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/base/status.h"

typedef enum HfPosition { HF_POSITION_ROPE, HF_POSITION_LEARNED } HfPosition;
typedef enum HfNorm { HF_NORM_RMSNORM, HF_NORM_LAYERNORM } HfNorm;
typedef enum HfActivation { HF_ACTIVATION_SWIGLU, HF_ACTIVATION_GELU } HfActivation;

typedef enum HfRopeType {
  HF_ROPE_DEFAULT,
  HF_ROPE_LINEAR,
  HF_ROPE_DYNAMIC,
  HF_ROPE_YARN,
  HF_ROPE_LLAMA3
} HfRopeType;

/* Their names, by type; NULL behind the last. */
extern const char *const hf_rope_types[];

/* What rope_scaling, or rope_parameters, says. Keys that the type does not read are 0, truncate is true. */
typedef struct HfRopeScaling {
  HfRopeType rope_type;
  double factor;
  int64_t original_max_position_embeddings;
  double beta_fast;
  double beta_slow;
  double attention_factor; /* 0: what follows from factor */
  bool truncate;
  double low_freq_factor;
  double high_freq_factor;
} HfRopeScaling;

/* A model in the words of Llama's config.json; GPT-2's own words (n_embd, ...) are translated. */
typedef struct HfConfig {
  int64_t vocab_size;
  int64_t hidden_size;
  int64_t num_hidden_layers;
  int64_t num_attention_heads; /* divides hidden_size: head_dim is their quotient */
  int64_t num_key_value_heads; /* divides num_attention_heads */
  int64_t intermediate_size;
  int64_t max_position_embeddings;
  double rope_theta;
  HfRopeScaling rope_scaling;
  double norm_eps;
  double initializer_range;
  HfPosition position;
  HfNorm norm;
  HfActivation activation; /* HF_ACTIVATION_GELU: the tanh form, gelu_new */
  bool bias;               /* biases in all linear layers (attention_bias and mlp_bias) */
  bool tie_word_embeddings;
  int64_t sliding_window; /* keys that a query sees, itself included; 0: all before it */
  int64_t eos_token_id;   /* the end-of-document token; -1: none */
} HfConfig;

/* The text of config.json in *out, a new string that the caller frees. STATUS_SYSTEM without memory. */
Status hf_config_text(const HfConfig *config, char **out, Error *error);

/* Reads config.json at `path`: the file itself, the directory that holds it, or a .safetensors file beside
 * it. STATUS_NO_INPUT when it is not there, STATUS_DATA when it is not JSON or a value is missing or has the
 * wrong type, STATUS_CONFIG when it describes a model that this program cannot compute (another architecture,
 * another type of RoPE, another activation, ...): the message names the key. */
Status hf_config_read(const char *path, HfConfig *config, Error *error);

#endif
