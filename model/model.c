/* The GPT: forward and backward of one rank's share of a batch. */
#include "model/model.h"

#include <math.h>
#include <stdlib.h>

#include "kernels/base/memory.h"
#include "model/internal.h"
#include "model/rope.h"

const elem *model_weight(const Model *model, int64_t offset) {
  if (offset == PARAM_ABSENT) return NULL;
  return (const char *)model->weights + (size_t)offset * model->device->ops.elem_size;
}

float *model_gradient(const Model *model, int64_t offset) {
  return offset == PARAM_ABSENT ? NULL : model->gradients + offset;
}

elem *model_row(const Model *model, elem *tensor, int64_t row, int64_t columns) {
  return (char *)tensor + (size_t)(row * columns) * model->device->ops.elem_size;
}

const TensorTable *model_table(const Model *model) {
  return &model->table;
}

elem *model_weights(Model *model) {
  return model->weights;
}

float *model_gradients(Model *model) {
  return model->gradients;
}

/* ---------------------------------------------------------------- life */

AttentionDims model_attention_dims(const ModelConfig *config) {
  const int64_t head_dim = config->hidden_size / config->num_attention_heads;
  /* A factor on the cosines and sines of queries and keys is its square on their products, and on both
   * gradients: rotations stay rotations, and keys on the ring and in the cache are without it. */
  const double factor =
      config->position == POSITION_ROPE ? rope_attention_factor(&config->rope_scaling) : 1.0;
  return (AttentionDims){.heads = config->num_attention_heads,
                         .kv_heads = config->num_key_value_heads,
                         .head_dim = head_dim,
                         .scale = (float)(factor * factor / sqrt((double)head_dim))};
}

static Status reserve_frequencies(Model *model, int64_t head_dim, Error *error) {
  const size_t count = (size_t)head_dim / 2;
  void *memory = NULL;
  TRY(memory_alloc(count, sizeof(double), "RoPE frequencies", &memory, error));
  model->host_frequency = memory;
  TRY(device_alloc(model->device, count * sizeof(double), "RoPE frequencies", &memory, error));
  model->inverse_frequency = memory;
  return STATUS_OK;
}

static Status build(Model *model, Error *error) {
  const ModelConfig *config = &model->options.config;
  const AttentionDims dims = model_attention_dims(config);
  void *memory = NULL;
  TRY(params_build(config, &model->table, &model->places, error));
  const size_t total = (size_t)model->table.total;
  model->weights = model->options.weights;
  if (model->weights == NULL) {
    TRY(device_alloc(model->device, total * model->device->ops.elem_size, "weights", &memory, error));
    model->weights = memory;
  }
  if (model->options.training) {
    TRY(device_alloc(model->device, total * sizeof(float), "gradients", &memory, error));
    model->gradients = memory;
    TRY(device_alloc(model->device, sizeof *model->nll_sum, "loss", &memory, error));
    model->nll_sum = memory;
  }
  if (config->position == POSITION_ROPE) TRY(reserve_frequencies(model, dims.head_dim, error));
  TRY(memory_alloc((size_t)config->num_hidden_layers, sizeof(LayerActivations), "table of layers", &memory,
                   error));
  model->layers = memory;
  model->own_arena.device = model->device;
  model->arena = model->options.arena == NULL ? &model->own_arena : model->options.arena;
  TRY(ring_attention_create(model->device, model->ring, &dims, &model->attention, error));
  if (model->options.local_keys) ring_attention_stay_local(model->attention);
  return STATUS_OK;
}

Status model_create(Device *device, Comm *ring, const ModelOptions *options, Model **out, Error *error) {
  void *memory = NULL;
  *out = NULL;
  TRY(memory_alloc(1, sizeof(Model), "model", &memory, error));
  Model *model = memory;
  *model = (Model){.device = device, .ring = ring, .options = *options};
  const Status status = build(model, error);
  if (status != STATUS_OK) {
    model_destroy(model);
    return status;
  }
  *out = model;
  return STATUS_OK;
}

void model_destroy(Model *model) {
  if (model == NULL) return;
  ring_attention_destroy(model->attention);
  model_arena_release(&model->own_arena);
  free(model->layers);
  device_free(model->device, model->inverse_frequency);
  free(model->host_frequency);
  device_free(model->device, model->nll_sum);
  device_free(model->device, model->gradients);
  if (model->options.weights == NULL) device_free(model->device, model->weights);
  params_free(&model->table, &model->places);
  free(model);
}

/* ---------------------------------------------------------------- a batch */

ModelArena *model_arena(Model *model) {
  return model->arena;
}

/* Points into the arena for a plan that has room in it. */
static void bind(Model *model, const ModelMemory *memory) {
  const ActivationsPlan plan = model_memory_activations(memory, &model->options, &model->device->ops);
  model->memory = *memory;
  model->arena_version = model->arena->version;
  model->staging = model->arena->host;
  activations_bind(&plan, memory->buffers, model->arena->memory, model->layers, &model->acts);
  ring_attention_give(model->attention, model->arena->memory, memory->buffers + ACTIVATION_BUFFERS,
                      model->arena->host);
}

/* Takes what a plan needs beyond what is there; `grew`: it is not the one at hand. */
static Status enter(Model *model, const ModelMemory *memory, bool grew, Error *error) {
  if (!grew && model->arena_version == model->arena->version) return STATUS_OK;
  TRY(model_arena_reserve(model->arena, memory->bytes, memory->host_bytes, error));
  bind(model, memory);
  return STATUS_OK;
}

Status model_reserve_rows(Model *model, int64_t rows, Error *error) {
  ModelMemory memory = model->memory;
  const bool grew = model_memory_add_rows(&memory, &model->options, &model->device->ops, rows);
  return enter(model, &memory, grew, error);
}

Status model_reserve(Model *model, int64_t sequences, const Layout *layout, Error *error) {
  ModelMemory memory = model->memory;
  const bool grew = model_memory_add(&memory, &model->options, &model->device->ops, sequences, layout);
  return enter(model, &memory, grew, error);
}

/* Global positions of the rows. Padding lies behind the sequence and may lie behind the learned positions: it
 * gets position 0, nothing depends on it. */
static void fill_positions(const Layout *layout, int rank, int64_t sequences, int64_t *positions) {
  for (int64_t b = 0; b < sequences; b++) {
    for (Run run = {0}; layout_next_run(layout, b, rank, &run);) {
      for (int64_t j = 0; j < run.length; j++) {
        const int64_t position = run.start + j;
        *positions++ = position < layout->sequence_length ? position : 0;
      }
    }
  }
}

/* The frequencies of sequences of `length` tokens, to the device unless they are there. */
static void load_frequencies(Model *model, int64_t length) {
  const ModelConfig *config = &model->options.config;
  const int64_t pairs = config->hidden_size / config->num_attention_heads / 2;
  if (length == model->frequency_length) return;
  rope_inverse_frequencies(config, length, model->host_frequency);
  device_write(model->device, model->inverse_frequency, model->host_frequency,
               (size_t)pairs * sizeof(double));
  model->frequency_length = length;
}

void model_load_rows(Model *model, int64_t n, int64_t length, const int32_t *tokens) {
  const ModelConfig *config = &model->options.config;
  const Activations *acts = &model->acts;
  Device *device = model->device;
  model->n = n;
  model->dropout = false;
  device_write(device, acts->tokens, tokens, (size_t)n * sizeof(int32_t));
  device_write(device, acts->positions, model->staging, (size_t)n * sizeof(int64_t));
  if (acts->rope != NULL) {
    load_frequencies(model, length);
    device->ops.rope_table(device, n, config->hidden_size / config->num_attention_heads, acts->positions,
                           model->inverse_frequency, acts->rope);
  }
}

static Status load_batch(Model *model, const ModelBatch *batch, bool backward, Error *error) {
  const Layout layout =
      batch->layout != NULL ? *batch->layout : layout_zigzag(batch->sequence_length, model->ring->size);
  const int64_t n = batch->sequences * layout.local_length;
  TRY(model_reserve(model, batch->sequences, &layout, error));
  TRY(ring_attention_prepare(model->attention, batch->sequences, &layout, batch->documents,
                             model->options.config.sliding_window, backward, error));
  int64_t *positions = model->staging;
  fill_positions(&layout, model->ring->rank, batch->sequences, positions);
  model_load_rows(model, n, batch->sequence_length, batch->tokens);
  model->dropout = backward && model->options.dropout > 0.0;
  if (model->dropout) {
    dropout_token_numbers(batch->first_draw, batch->sequence_length, n, layout.local_length, positions);
    device_write(model->device, model->acts.token_numbers, positions, (size_t)n * sizeof(int64_t));
  }
  device_write(model->device, model->acts.targets, batch->targets, (size_t)n * sizeof(int32_t));
  return STATUS_OK;
}

void model_embed(Model *model) {
  const Activations *acts = &model->acts;
  model->device->ops.embedding_forward(model->device, model->n, model->options.config.hidden_size,
                                       acts->tokens, acts->positions,
                                       model_weight(model, model->places.tokens),
                                       model_weight(model, model->places.positions), acts->layers[0].input);
  if (model->dropout) {
    model_dropout(model, DROPOUT_EMBEDDING, model_rows(model), acts->layers[0].input, acts->layers[0].input);
  }
}

Rows model_rows(const Model *model) {
  return (Rows){.begin = 0, .count = model->n};
}

void model_dropout(const Model *model, uint32_t place, Rows rows, const elem *x, elem *y) {
  const DropoutKey key = dropout_key(model->options.dropout, model->options.seed, place);
  model->device->ops.dropout(model->device, rows.count, model->options.config.hidden_size, &key,
                             model->acts.token_numbers + rows.begin, x, y);
}

static Status group_needed(const ModelListener *listener, int64_t group, Error *error) {
  if (listener == NULL || listener->group_needed == NULL) return STATUS_OK;
  return listener->group_needed(listener->context, (int)group, error);
}

/* Embeddings and layers, to acts.output. Tied, the head is in the group of the embeddings. */
static Status run_layers(Model *model, const ModelListener *listener, Error *error) {
  const int64_t layers = model->options.config.num_hidden_layers;
  const Activations *acts = &model->acts;
  TRY(group_needed(listener, 0, error));
  model_embed(model);
  for (int64_t l = 0; l < layers; l++) {
    TRY(group_needed(listener, l + 1, error));
    TRY(layer_forward(model, l, l + 1 < layers ? acts->layers[l + 1].input : acts->output, error));
  }
  return group_needed(listener, layers + 1, error);
}

static Status group_done(const ModelListener *listener, int64_t group, Error *error) {
  if (listener == NULL || listener->group_done == NULL) return STATUS_OK;
  return listener->group_done(listener->context, (int)group, error);
}

static Status run_backward(Model *model, const ModelListener *listener, Error *error) {
  const ModelConfig *config = &model->options.config;
  const Activations *acts = &model->acts;
  TRY(group_done(listener, config->num_hidden_layers + 1, error));
  for (int64_t l = config->num_hidden_layers - 1; l >= 0; l--) {
    TRY(layer_backward(model, l, error));
    TRY(group_done(listener, l + 1, error));
  }
  if (model->dropout)
    model_dropout(model, DROPOUT_EMBEDDING, model_rows(model), acts->gradient, acts->gradient);
  model->device->ops.embedding_backward(
      model->device, model->n, config->hidden_size, acts->tokens, acts->positions, acts->gradient,
      model_gradient(model, model->places.tokens), model_gradient(model, model->places.positions));
  TRY(device_check(model->device, error));
  return group_done(listener, 0, error);
}

Status model_forward_backward(Model *model, const ModelBatch *batch, const ModelListener *listener,
                              Error *error) {
  TRY(load_batch(model, batch, true, error));
  TRY(run_layers(model, listener, error));
  loss_run(model, true);
  /* The sum over 10^6 tokens would lose digits in float: it is made in double. */
  model->device->ops.sum(model->device, model->n, model->acts.nll, model->nll_sum);
  for (int64_t i = 0; i < model->n; i++) model->targets += batch->targets[i] != IGNORED_TARGET;
  return run_backward(model, listener, error);
}

Status model_take_loss(Model *model, LossSum *loss, Error *error) {
  *loss = (LossSum){.targets = model->targets};
  device_read(model->device, &loss->nll, model->nll_sum, sizeof loss->nll);
  device_zero(model->device, model->nll_sum, sizeof loss->nll);
  model->targets = 0;
  return device_check(model->device, error);
}

Status model_run_forward(Model *model, const ModelBatch *batch, Error *error) {
  TRY(load_batch(model, batch, false, error));
  return run_layers(model, NULL, error);
}

Status model_evaluate(Model *model, const ModelBatch *batch, float *nll, Error *error) {
  TRY(model_run_forward(model, batch, error));
  loss_run(model, false);
  device_read(model->device, nll, model->acts.nll, (size_t)model->n * sizeof(float));
  return device_check(model->device, error);
}
