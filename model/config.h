/* What a model is: the numbers that fix its shapes and its equations. */
#ifndef RINGGPT_MODEL_CONFIG_H
#define RINGGPT_MODEL_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/base/status.h"

typedef enum PositionKind { POSITION_ROPE, POSITION_LEARNED } PositionKind;
typedef enum NormKind { NORM_RMSNORM, NORM_LAYERNORM } NormKind;
typedef enum ActivationKind { ACTIVATION_SWIGLU, ACTIVATION_GELU } ActivationKind;

/* How rotary frequencies are changed for contexts longer than those trained on; model/rope.h has the
 * equations.
 */
typedef enum RopeType { ROPE_DEFAULT, ROPE_LINEAR, ROPE_DYNAMIC, ROPE_YARN, ROPE_LLAMA3 } RopeType;

/* The names are Hugging Face's, as of rope_scaling and rope_parameters. Each type has its own keys; those of
 * the other types are 0, truncate is true. */
typedef struct RopeScaling {
  RopeType rope_type;
  double factor;                            /* linear, dynamic, yarn, llama3: at least 1 */
  int64_t original_max_position_embeddings; /* yarn, llama3: positions before the scaling; dynamic goes by the
                                               model's max_position_embeddings instead */
  double beta_fast;        /* yarn: pairs that turn more often over the original positions stay as they are */
  double beta_slow;        /* yarn: pairs that turn less often are slowed by the factor */
  double attention_factor; /* yarn: of cosines and sines; 0: 0.1 ln(factor) + 1 */
  bool truncate;           /* yarn: the two limits are whole pairs */
  double low_freq_factor;  /* llama3: pairs that turn less often over the original positions are slowed */
  double high_freq_factor; /* llama3: pairs that turn more often stay as they are */
} RopeScaling;

/* The names are Hugging Face's. Two families are known to other programs: GPT-2 (learned positions,
 * LayerNorm, GELU, biases, tied head, kv heads = heads) and Llama (RoPE, RMSNorm, SwiGLU, no biases). */
typedef struct ModelConfig {
  int64_t vocab_size;              /* V */
  int64_t hidden_size;             /* C */
  int64_t num_hidden_layers;       /* L */
  int64_t num_attention_heads;     /* H; head size D = C / H */
  int64_t num_key_value_heads;     /* KV, divides H */
  int64_t intermediate_size;       /* F */
  int64_t max_position_embeddings; /* rows of the learned positions; for RoPE only recorded, unless it is
                                      scaled by the dynamic type */
  double rope_theta;
  RopeScaling rope_scaling;
  double norm_eps;
  double initializer_range; /* standard deviation of the initial weights */
  PositionKind position;
  NormKind norm;
  ActivationKind activation;
  bool bias;                /* biases in the linear layers */
  bool tie_word_embeddings; /* the head is the embedding */
  int64_t sliding_window;   /* a query sees at most this many keys, itself included; 0: all before it */
} ModelConfig;

/* The names of the types of scaling by RopeType, ended by NULL. */
extern const char *const rope_type_names[];

/* Checks that the numbers, each of which is in its own range, make a model of one of the families. `source`
 * opens the message, `prefix` stands before each name in it ("model."). STATUS_CONFIG. */
Status model_config_check(const ModelConfig *model, const char *source, const char *prefix, Error *error);

#endif
