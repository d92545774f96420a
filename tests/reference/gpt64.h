/* The reference model: a whole GPT in float64 with T x T attention matrices, its loss and every gradient,
 * written from the equations (equations64.h) and sharing no source with the program that it judges. */
#ifndef RINGGPT_REFERENCE_GPT64_H
#define RINGGPT_REFERENCE_GPT64_H

#include <stdbool.h>
#include <stdint.h>

#include "tests/reference/dropout64.h"
#include "tests/reference/rope64.h"

/* GPT-2 (A. Radford et al., 2019): learned positions, LayerNorm, biases, GELU in its tanh form. Llama (H.
 * Touvron et al., 2023): RoPE (rotate-half), RMSNorm, SwiGLU, grouped-query heads, no biases. */
typedef struct Gpt64Config {
  int64_t vocab;         /* V */
  int64_t hidden;        /* C */
  int64_t layers;        /* L */
  int64_t heads;         /* H; a head has D = C / H elements */
  int64_t kv_heads;      /* KV, divides H; equal to H for GPT-2 */
  int64_t intermediate;  /* F */
  int64_t max_positions; /* rows of GPT-2's learned positions; not read for Llama */
  double rope_theta;     /* not read for GPT-2 */
  double norm_eps;
  bool gpt2;      /* else Llama */
  bool tied;      /* the head is the embedding */
  int64_t window; /* a query sees at most this many keys, itself included; 0: all before it */
  Rope64 rope;    /* how positions are scaled; not read for GPT-2 */
} Gpt64Config;

/* One parameter under its Hugging Face name and in Hugging Face's orientation: linear layers (outputs,
 * inputs), GPT-2's Conv1D weights (inputs, outputs), a vector (length, 1); row-major without holes. */
typedef struct Gpt64Tensor {
  char name[96];
  int64_t rows;
  int64_t cols;
  double *value; /* (rows, cols) */
  double *grad;  /* (rows, cols) */
} Gpt64Tensor;

/* The tensors once more, by their place in the equations. */
typedef struct Gpt64Parts Gpt64Parts;

typedef struct Gpt64 {
  Gpt64Config config;
  Gpt64Tensor *tensors; /* (count), in the order of the forward pass */
  int64_t count;
  Gpt64Parts *parts;
  /* The masks of gpt64_loss, the caller's: on the embeddings' sum at place 0, on what the attention of layer
   * l adds at place 1 + 2 l, and its MLP at 2 + 2 l. NULL, as after gpt64_create: no dropout. */
  const RefDropout *dropout;
} Gpt64;

/* A model with all values and gradients 0; release it with gpt64_free. NULL where the configuration
 * contradicts itself or memory is missing. */
Gpt64 *gpt64_create(const Gpt64Config *config);

/* Frees a model; NULL is allowed. */
void gpt64_free(Gpt64 *model);

/* The tensor of that Hugging Face name, such as "transformer.h.0.attn.c_attn.weight" or
 * "model.layers.0.self_attn.q_proj.weight"; NULL where the model has none. An untied head is "lm_head.weight"
 * in both families. */
Gpt64Tensor *gpt64_find(const Gpt64 *model, const char *name);

/* Sets all gradients to 0. */
void gpt64_zero_gradients(Gpt64 *model);

/* Copies rows x cols floats to the tensor's value. `transposed`: they lie as (cols, rows), as where a program
 * keeps a Conv1D weight as (outputs, inputs). */
void gpt64_set_value(Gpt64Tensor *tensor, const float *from, bool transposed);

/* Copies the tensor's gradient to rows x cols doubles, as (cols, rows) where `transposed` is set. */
void gpt64_get_gradient(const Gpt64Tensor *tensor, double *to, bool transposed);

/* For each of T positions the first position of its document, to first_key (T). A document ends after the
 * token end_of_document. Positions are not counted anew in a document. */
void gpt64_document_starts(int64_t length, const int32_t *tokens, int32_t end_of_document,
                           int64_t *first_key);

/* The loss of one sequence of T = length tokens at positions 0 ... T - 1: the sum of the negative log
 * likelihoods of targets (T) divided by `divisor`; a negative target has no weight. Query i sees the keys
 * max(first_key[i], i - window + 1) ... i; first_key (T) may be NULL for 0 everywhere, and may have the
 * window folded in already. nll_per_token (T) may be NULL; it gets the undivided values, 0 for ignored
 * targets. With `gradients`, the gradient of the returned loss is added to every tensor's grad. Returns NaN,
 * and adds nothing, where a token or target is out of range, the sequence is longer than the learned
 * positions, or memory is missing. */
double gpt64_loss(Gpt64 *model, const int32_t *tokens, const int32_t *targets, const int64_t *first_key,
                  int64_t length, double divisor, double *nll_per_token, bool gradients);

/* The logits of all T = length positions of one sequence, to logits (T, V); no mask but the causal one and
 * the window. False, and nothing written, where a token is out of range, the sequence is longer than the
 * learned positions, or memory is missing. */
bool gpt64_logits(const Gpt64 *model, const int32_t *tokens, int64_t length, double *logits);

#endif
