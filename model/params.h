/* The parameters of a model: names, shapes, places in one flat array, initial values. */
#ifndef RINGGPT_MODEL_PARAMS_H
#define RINGGPT_MODEL_PARAMS_H

#include "kernels/base/status.h"
#include "kernels/base/tensor_table.h"
#include "model/config.h"

/* Offset of a parameter that this kind of model does not have. */
#define PARAM_ABSENT (-1)

/* Where one layer's parameters begin in the flat array, in elements. */
typedef struct LayerParams {
  int64_t norm1, norm1_bias; /* (C) */
  int64_t qkv;               /* ((H + 2 KV) D, C): q, k and v rows one behind the other */
  int64_t qkv_bias;          /* ((H + 2 KV) D) */
  int64_t out, out_bias;     /* (C, H D), (C) */
  int64_t norm2, norm2_bias; /* (C) */
  int64_t up;                /* (F, C); SwiGLU: (2F, C), gate and up rows one behind the other */
  int64_t up_bias;           /* (F) */
  int64_t down, down_bias;   /* (C, F), (C) */
} LayerParams;

typedef struct ParamPlaces {
  int64_t tokens;    /* (V, C) */
  int64_t positions; /* (max_position_embeddings, C) */
  int64_t final_norm, final_norm_bias;
  int64_t head;        /* (V, C); tied: the same as tokens */
  LayerParams *layers; /* (L) */
} ParamPlaces;

/* Builds the table of a model's parameters with Hugging Face names: GPT-2's where the positions are learned,
 * Llama's otherwise; and, unless NULL, where each role's parameters begin. Tensors that one product uses
 * together lie side by side: q, k, v and gate, up. Released with params_free.
 * Fails with STATUS_SYSTEM without memory. */
Status params_build(const ModelConfig *config, TensorTable *table, ParamPlaces *places, Error *error);

/* Releases what params_build made; places may be NULL. */
void params_free(TensorTable *table, ParamPlaces *places);

/* Draws the initial value of every parameter into weights (table->total): normal numbers from Philox, keyed
 * by seed, tensor and element, the same for every grid and device. */
void params_init(const TensorTable *table, uint64_t seed, float *weights);

#endif
