/* The GPT: forward and backward of one rank's share of a batch.
 *
 * The rank's rows are N = sequences x local length; every operation but attention works on them alone, and
 * attention goes round the ring. Weights and gradients are flat arrays described by the table of
 * model/params.h.
 */
#ifndef RINGGPT_MODEL_MODEL_H
#define RINGGPT_MODEL_MODEL_H

#include "kernels/base/status.h"
#include "kernels/base/tensor_table.h"
#include "kernels/comm/comm.h"
#include "kernels/comm/documents.h"
#include "kernels/comm/layout.h"
#include "kernels/device.h"
#include "model/config.h"

typedef struct Model Model;
typedef struct ModelArena ModelArena;

typedef struct ModelOptions {
  ModelConfig config;
  int64_t loss_chunk; /* tokens whose logits exist at one time */
  int64_t mlp_chunk;  /* tokens whose MLP exists at one time, and is computed again in backward; 0: all, kept
                         unless recompute says otherwise */
  elem *weights;      /* those of another model of the same kind, which outlives this one; NULL: own */
  ModelArena *arena;  /* that of another model of the same device and ring, which outlives this one and never
                         computes at the same time; NULL: own */
  bool training;      /* room for gradients; evaluation alone needs less */
  bool recompute;  /* keep per layer only its input, the attention output and lse; compute the rest again */
  bool local_keys; /* attention sees the keys on the query's own rank alone: a control for evaluations, by
                      which to show what comes over the ring */
  double dropout;  /* p in [0, 1) of model/dropout.h, in model_forward_backward alone */
  uint64_t seed;   /* of dropout */
} ModelOptions;

/* One rank's share of a batch. */
typedef struct ModelBatch {
  int64_t sequences;
  int64_t sequence_length; /* T, the same for all sequences */
  const Layout *layout;    /* how the ring cuts them; NULL: layout_zigzag */
  int64_t first_draw;      /* sequences drawn in the run before the first one here; read for dropout only */
  const int32_t *tokens;   /* (N), host memory */
  const int32_t *targets;  /* (N), host memory; IGNORED_TARGET weighs nothing */
  const Documents *documents; /* NULL: no document mask */
} ModelBatch;

/* Told when the weights of a group of parameters (TensorEntry.group) are about to be read for the first time
 * in a forward pass, from the first group to the last, and when all gradients of a group are complete, from
 * the last to the first, while the backward pass goes on. Either may be NULL. */
typedef struct ModelListener {
  Status (*group_needed)(void *context, int group, Error *error);
  Status (*group_done)(void *context, int group, Error *error);
  void *context;
} ModelListener;

/* Makes the model of one rank, with all weights zero. device and ring stay the caller's and outlive it. */
Status model_create(Device *device, Comm *ring, const ModelOptions *options, Model **out, Error *error);

/* Releases a model; NULL is allowed. */
void model_destroy(Model *model);

/* The table of parameters; the model's. */
const TensorTable *model_table(const Model *model);

/* Weights and float gradients (table->total), device memory, the model's. Gradients are NULL without
 * training. */
elem *model_weights(Model *model);
float *model_gradients(Model *model);

/* Where its buffers lie (model/memory.h), for another model to share. */
ModelArena *model_arena(Model *model);

/* Takes the memory for batches of `sequences` sequences cut as `layout` now, whoever has which chunk: later
 * ones that need no more than such a batch take none. Without it every batch that is larger than all before
 * takes its own. STATUS_SYSTEM. */
Status model_reserve(Model *model, int64_t sequences, const Layout *layout, Error *error);

/* What one rank knows of the loss: sums, to be added over all ranks and then divided once. */
typedef struct LossSum {
  double nll;      /* sum of the negative log likelihood of the valid targets, in double */
  int64_t targets; /* valid targets */
} LossSum;

/* Forward and backward. Adds to the gradients those of the sum of nll, as far as they come from this rank's
 * rows, and to the model's loss; the sum over all ranks and the division by the number of valid targets are
 * the caller's. listener may be NULL. Does not wait for a device that works on its own. Collective over the
 * ring. */
Status model_forward_backward(Model *model, const ModelBatch *batch, const ModelListener *listener,
                              Error *error);

/* *loss: of all forward and backward passes since the last call, or the beginning. Waits for the device. */
Status model_take_loss(Model *model, LossSum *loss, Error *error);

/* Forward alone: nll (N), host memory, 0 for ignored targets. Collective over the ring. */
Status model_evaluate(Model *model, const ModelBatch *batch, float *nll, Error *error);

/* Where model_predict predicts nothing: rows without a target, or none of whose logits is a number. */
#define PREDICTED_NONE (-1)

/* Forward alone: for rows with a target the likeliest token, of equal ones the first, to predictions (N),
 * host memory. What the target is does not matter. Collective over the ring. STATUS_SYSTEM without memory. */
Status model_predict(Model *model, const ModelBatch *batch, int32_t *predictions, Error *error);

#endif
