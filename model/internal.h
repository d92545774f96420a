/* What the files of the model share: the model's state and its parts. Not for other folders. */
#ifndef RINGGPT_MODEL_INTERNAL_H
#define RINGGPT_MODEL_INTERNAL_H

#include "model/activations.h"
#include "model/dropout.h"
#include "model/memory.h"
#include "model/model.h"
#include "model/params.h"
#include "model/ring_attention.h"

struct Model {
  Device *device;
  Comm *ring;
  ModelOptions options;
  TensorTable table;
  ParamPlaces places;
  elem *weights;             /* (table.total) */
  float *gradients;          /* (table.total), NULL without training */
  double *nll_sum;           /* (1) device memory: of the passes whose loss was not taken yet */
  int64_t targets;           /* their valid targets */
  double *inverse_frequency; /* (D / 2) of RoPE, device memory, NULL without */
  double *host_frequency;    /* the same in host memory */
  int64_t frequency_length;  /* of the sequences that they are for; 0: none yet */
  RingAttention *attention;
  ModelMemory memory;       /* what its batches were planned for */
  ModelArena own_arena;     /* of a model that shares none */
  ModelArena *arena;        /* where its buffers lie */
  int64_t arena_version;    /* of the blocks that the pointers below are into */
  LayerActivations *layers; /* (L) those of acts */
  Activations acts;
  int64_t *staging; /* (rows) host memory: a number for each row on its way to the device */
  int64_t n;        /* rows of the batch at hand */
  bool dropout;     /* the batch at hand is trained on, with dropout */
};

/* The weight at an offset of the flat array; NULL where the model has none. */
const elem *model_weight(const Model *model, int64_t offset);

/* Its gradient; NULL where the model has none. */
float *model_gradient(const Model *model, int64_t offset);

/* Row `row` of a tensor with `columns` columns of elem. */
elem *model_row(const Model *model, elem *tensor, int64_t row, int64_t columns);

/* Rows [begin, begin + count) of the batch at hand, and all of them. */
typedef struct Rows {
  int64_t begin;
  int64_t count;
} Rows;
Rows model_rows(const Model *model);

/* x += residual, unless that is NULL, and the norm of the model's kind of this x, all (n, C); and the norm's
 * gradient: dx +=. mean is used by LayerNorm only. */
void norm_forward(const Model *model, int64_t weight, int64_t bias, const elem *residual, elem *x, elem *y,
                  float *mean, float *rstd);
void norm_backward(const Model *model, int64_t weight, int64_t bias, const elem *dy, const elem *x,
                   const float *mean, const float *rstd, elem *dx);

/* y = dropout of x (rows, C) at a place of model/dropout.h, for a batch at hand with dropout; y may be x. It
 * is its own gradient, with dy for x. */
void model_dropout(const Model *model, uint32_t place, Rows rows, const elem *x, elem *y);

/* y (rows, outputs) = x (rows, inputs) w^T + bias, for parameters at two offsets. */
void linear_forward(const Model *model, Rows rows, int64_t inputs, int64_t outputs, int64_t weight,
                    int64_t bias, const elem *x, elem *y);

/* Gradients of linear_forward: added to those of its weights, and of its input to dx (rows, inputs). */
void linear_backward(const Model *model, Rows rows, int64_t inputs, int64_t outputs, int64_t weight,
                     int64_t bias, const elem *x, const elem *dy, elem *dx);

/* A branch of the residual stream: y (rows, C) = linear, and dropout at `place`. */
void branch_forward(const Model *model, Rows rows, uint32_t place, int64_t inputs, int64_t weight,
                    int64_t bias, const elem *x, elem *y);

/* Gradients of branch_forward, from that of the residual stream in acts.gradient. */
void branch_backward(const Model *model, Rows rows, uint32_t place, int64_t inputs, int64_t weight,
                     int64_t bias, const elem *x, elem *dx);

/* The MLP of a layer, from its norm2 to `output` (N, C) without the residual; and from acts.gradient to
 * acts.grad_norm, the gradient of norm2. */
void mlp_forward(const Model *model, int64_t layer, elem *output);
void mlp_backward(const Model *model, int64_t layer);

/* Makes room for `rows` rows whose attention is the caller's; what the activations held is lost where they
 * had less. */
Status model_reserve_rows(Model *model, int64_t rows, Error *error);

/* What attention computes with: the scale is 1 / sqrt(D) times the square of RoPE's attention factor. */
AttentionDims model_attention_dims(const ModelConfig *config);

/* Takes tokens (n), host memory, at the positions in `staging` (n), which the caller has filled
 * after model_reserve_rows: n, the tokens, positions and RoPE's table of the rows at hand, which are without
 * dropout and belong to sequences of `length` >= 1 tokens. */
void model_load_rows(Model *model, int64_t n, int64_t length, const int32_t *tokens);

/* Takes a batch for a forward pass alone, and puts it through all layers, to acts.output. Collective over the
 * ring. */
Status model_run_forward(Model *model, const ModelBatch *batch, Error *error);

/* The embeddings of the rows at hand, to the input of the first layer. */
void model_embed(Model *model);

/* What the layer before `layer` left out of its output, the layer's input, and the norm that reads it first
 * is to add: (N, C), or NULL at the first layer. Behind the last layer that norm is the final one. */
const elem *layer_residual(const Model *model, int64_t layer);

/* The two halves of layer_forward, before and after attention: acts.layers[layer].input to its qkv, and its
 * attention to `output` (N, C). */
void layer_forward_qkv(const Model *model, int64_t layer);
Status layer_forward_rest(Model *model, int64_t layer, elem *output, Error *error);

/* Layer `layer` from acts.layers[layer].input, which it makes whole, to `output` (N, C) without its residual.
 */
Status layer_forward(Model *model, int64_t layer, elem *output, Error *error);

/* Turns acts.gradient (N, C) of the layer's output into that of its input and adds the gradients of its
 * weights; computes first again what was not kept. */
Status layer_backward(Model *model, int64_t layer, Error *error);

/* The final norm of the last layer's output, which it makes whole: once a pass. And the logits of rows
 * [begin, begin + count) of it, at most loss_chunk, to acts.logits (count, V), `stride` elements apart, from
 * V to logits_stride. */
void loss_final_norm(const Model *model);
void loss_logits(const Model *model, int64_t begin, int64_t count, int64_t stride);

/* Final norm, head and loss of the last layer's output, a chunk of tokens at a time, to acts.nll (N). With
 * `gradient` the gradient of their sum goes back into acts.gradient and the weights' gradients. */
void loss_run(Model *model, bool gradient);

#endif
