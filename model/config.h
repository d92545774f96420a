/* What a model is: the numbers that fix its shapes and its equations. */
#ifndef RINGGPT_MODEL_CONFIG_H
#define RINGGPT_MODEL_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/base/status.h"

typedef enum PositionKind { POSITION_ROPE, POSITION_LEARNED } PositionKind;
typedef enum NormKind { NORM_RMSNORM, NORM_LAYERNORM } NormKind;
typedef enum ActivationKind { ACTIVATION_SWIGLU, ACTIVATION_GELU } ActivationKind;

/* The names are Hugging Face's. Two families are known to other programs: GPT-2 (learned positions,
 * LayerNorm, GELU, biases, tied head, kv heads = heads) and Llama (RoPE, RMSNorm, SwiGLU, no biases). */
typedef struct ModelConfig {
  int64_t vocab_size;              /* V */
  int64_t hidden_size;             /* C */
  int64_t num_hidden_layers;       /* L */
  int64_t num_attention_heads;     /* H; head size D = C / H */
  int64_t num_key_value_heads;     /* KV, divides H */
  int64_t intermediate_size;       /* F */
  int64_t max_position_embeddings; /* rows of the learned positions; for RoPE only recorded */
  double rope_theta;
  double norm_eps;
  double initializer_range; /* standard deviation of the initial weights */
  PositionKind position;
  NormKind norm;
  ActivationKind activation;
  bool bias;                /* biases in the linear layers */
  bool tie_word_embeddings; /* the head is the embedding */
  int64_t sliding_window;   /* a query sees at most this many keys, itself included; 0: all before it */
} ModelConfig;

/* Checks that the numbers, each of which is in its own range, make a model of one of the families. `source`
 * opens the message, `prefix` stands before each name in it ("model."). STATUS_CONFIG. */
Status model_config_check(const ModelConfig *model, const char *source, const char *prefix, Error *error);

#endif
