/* The buffers of one rank's rows: what forward leaves for backward, layer by layer, and what layers share. */
#ifndef RINGGPT_MODEL_ACTIVATIONS_H
#define RINGGPT_MODEL_ACTIVATIONS_H

#include "kernels/base/arena.h"
#include "kernels/base/status.h"
#include "kernels/ops.h"
#include "model/config.h"

/* What one layer computes. Layers whose values need not be kept share the same memory. N rows. */
typedef struct LayerActivations {
  elem *input;          /* (N, C), without its residual until the first norm (layer_residual) */
  float *mean1, *rstd1; /* (N) statistics of the first norm */
  elem *norm1;          /* (N, C) */
  elem *qkv;            /* (N, (H + 2 KV) D), rotated where the model has RoPE */
  elem *attention;      /* (N, H D) */
  float *lse;           /* (H x N) */
  elem *middle;         /* (N, C) input plus attention; the residual of the layer's output */
  float *mean2, *rstd2; /* (N) */
  elem *norm2;          /* (N, C) */
  elem *hidden;         /* (M, F) or, for SwiGLU, (M, 2F); M: all rows, or those of a chunk of the MLP */
  elem *activated;      /* (M, F) */
} LayerActivations;

typedef struct Activations {
  LayerActivations *layers; /* (L) */
  elem *output;             /* (N, C) of the last layer, without its residual until the final norm */
  float *mean, *rstd;       /* (N) of the final norm */
  elem *final_norm;         /* (N, C) */
  elem *logits;             /* (loss chunk, V), logits_stride apart */
  int64_t logits_stride;    /* V made even enough for the widest loads of each row */
  float *nll;               /* (N) */
  int32_t *tokens;          /* (N) */
  int32_t *targets;         /* (N) */
  int64_t *positions;       /* (N) */
  float *rope;              /* (N, D); NULL without RoPE */
  int64_t *token_numbers;   /* (N) for dropout, see model/dropout.h; NULL without */

  /* Backward only. */
  elem *gradient;       /* (N, C) of the residual stream */
  elem *grad_norm;      /* (N, C) of a norm's output, or (N, H D) of the attention output */
  elem *grad_qkv;       /* (N, (H + 2 KV) D) */
  elem *grad_hidden;    /* (M, F) or (M, 2F) */
  elem *grad_activated; /* (M, F) */
  elem *grad_branch;    /* (N, C) of a branch's output before dropout; NULL without */
} Activations;

typedef struct ActivationsPlan {
  const ModelConfig *config;
  size_t elem_size;
  int64_t rows;
  int64_t loss_chunk;
  int64_t mlp_chunk; /* 0: all rows */
  bool training;
  bool recompute;
  bool dropout; /* with training only */
} ActivationsPlan;

/* The buffers that the activations lie in; those that a plan has no use for have no bytes. */
typedef enum ActivationBuffer {
  BUFFER_KEPT, /* what is kept of each layer, layer after layer */
  BUFFER_INPUT,
  BUFFER_ATTENTION,
  BUFFER_LSE,
  BUFFER_NORM1,
  BUFFER_QKV,
  BUFFER_MIDDLE,
  BUFFER_NORM2,
  BUFFER_HIDDEN,
  BUFFER_ACTIVATED,
  BUFFER_OUTPUT,
  BUFFER_FINAL_NORM,
  BUFFER_LOGITS,
  BUFFER_ROWS, /* a few numbers for each row: norms' statistics, losses, tokens, positions, RoPE's table */
  BUFFER_GRADIENT,
  BUFFER_GRAD_NORM,
  BUFFER_GRAD_QKV,
  BUFFER_GRAD_HIDDEN,
  BUFFER_GRAD_ACTIVATED,
  BUFFER_GRAD_BRANCH,
  ACTIVATION_BUFFERS
} ActivationBuffer;

/* The bytes of each buffer and the phases (model/phases.h) in which it matters. */
void activations_buffers(const ActivationsPlan *plan, ArenaBuffer buffers[ACTIVATION_BUFFERS]);

/* Bytes that a layer keeps from forward to backward; 0 without training. */
size_t activations_layer_bytes(const ActivationsPlan *plan);

/* Fills in all pointers for buffers that are placed in the block at `base`; layers (L) is the caller's. */
void activations_bind(const ActivationsPlan *plan, const ArenaBuffer buffers[ACTIVATION_BUFFERS], char *base,
                      LayerActivations *layers, Activations *activations);

#endif
