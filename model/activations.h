/* The buffers of one rank's rows: what forward leaves for backward, layer by layer, and scratch. */
#ifndef RINGGPT_MODEL_ACTIVATIONS_H
#define RINGGPT_MODEL_ACTIVATIONS_H

#include "kernels/base/status.h"
#include "kernels/device.h"
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
  Device *device;
  int64_t rows;             /* N that there is room for */
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
  int64_t *host_positions;  /* (N) host memory: positions on their way to the device */
  float *rope;              /* (N, D); NULL without RoPE */
  int64_t *token_numbers;   /* (N) for dropout, see model/dropout.h; NULL without */

  /* Backward only. */
  elem *gradient;       /* (N, C) of the residual stream */
  elem *grad_norm;      /* (N, C) of a norm's output, or (N, H D) of the attention output */
  elem *grad_qkv;       /* (N, (H + 2 KV) D) */
  elem *grad_hidden;    /* (M, F) or (M, 2F) */
  elem *grad_activated; /* (M, F) */
  elem *grad_branch;    /* (N, C) of a branch's output before dropout; NULL without */

  void *memory; /* one block of device memory that all of it lies in but host_positions */
} Activations;

typedef struct ActivationsPlan {
  const ModelConfig *config;
  int64_t rows;
  int64_t loss_chunk;
  int64_t mlp_chunk; /* 0: all rows */
  bool training;
  bool recompute;
  bool dropout; /* with training only */
} ActivationsPlan;

/* Takes the memory for a plan. Fails with STATUS_SYSTEM and names the bytes. */
Status activations_create(Device *device, const ActivationsPlan *plan, Activations *activations,
                          Error *error);

/* Releases it; the struct may be zero. */
void activations_destroy(Activations *activations);

#endif
