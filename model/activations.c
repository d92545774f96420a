/* The buffers of one rank's rows. They are laid out twice by the same function: first to learn the size of
 * the block, then to place them in it. */
#include "model/activations.h"

#include <stdlib.h>

#include "kernels/base/memory.h"

/* Rows of logits begin at multiples of so many elements, whatever the vocabulary: products of matrices whose
 * rows lie unevenly are slow, most of all on GPUs. */
#define LOGITS_ALIGNMENT 64

typedef struct Cursor {
  char *base; /* NULL while measuring */
  size_t used;
} Cursor;

static void *take(Cursor *cursor, int64_t elements, size_t size) {
  void *place = cursor->base == NULL ? NULL : cursor->base + cursor->used;
  const size_t bytes = (size_t)elements * size;
  cursor->used += (bytes + MEMORY_ALIGNMENT - 1) / MEMORY_ALIGNMENT * MEMORY_ALIGNMENT;
  return place;
}

/* Columns of the tensors of a layer. */
typedef struct Widths {
  int64_t c, qkv, attention, hidden, f;
} Widths;

static Widths widths_of(const ModelConfig *config) {
  const int64_t head_dim = config->hidden_size / config->num_attention_heads;
  const int64_t f = config->intermediate_size;
  return (Widths){
      .c = config->hidden_size,
      .qkv = (config->num_attention_heads + 2 * config->num_key_value_heads) * head_dim,
      .attention = config->num_attention_heads * head_dim,
      .hidden = config->activation == ACTIVATION_SWIGLU ? 2 * f : f,
      .f = f,
  };
}

/* What backward needs of a layer even when the rest is computed again. */
static void place_kept(Cursor *cursor, const ActivationsPlan *plan, size_t size, LayerActivations *layer) {
  const Widths widths = widths_of(plan->config);
  layer->input = take(cursor, plan->rows * widths.c, size);
  layer->attention = take(cursor, plan->rows * widths.attention, size);
  layer->lse = take(cursor, plan->rows * plan->config->num_attention_heads, sizeof(float));
}

static void place_recomputable(Cursor *cursor, const ActivationsPlan *plan, size_t size,
                               LayerActivations *layer) {
  const Widths widths = widths_of(plan->config);
  const int64_t n = plan->rows;
  layer->mean1 = take(cursor, n, sizeof(float));
  layer->rstd1 = take(cursor, n, sizeof(float));
  layer->norm1 = take(cursor, n * widths.c, size);
  layer->qkv = take(cursor, n * widths.qkv, size);
  layer->middle = take(cursor, n * widths.c, size);
  layer->mean2 = take(cursor, n, sizeof(float));
  layer->rstd2 = take(cursor, n, sizeof(float));
  layer->norm2 = take(cursor, n * widths.c, size);
}

/* Rows whose MLP exists at one time. */
static int64_t mlp_rows(const ActivationsPlan *plan) {
  return plan->mlp_chunk > 0 && plan->mlp_chunk < plan->rows ? plan->mlp_chunk : plan->rows;
}

static void place_mlp(Cursor *cursor, const ActivationsPlan *plan, size_t size, LayerActivations *layer) {
  const Widths widths = widths_of(plan->config);
  layer->hidden = take(cursor, mlp_rows(plan) * widths.hidden, size);
  layer->activated = take(cursor, mlp_rows(plan) * widths.f, size);
}

static void place_layers(Cursor *cursor, const ActivationsPlan *plan, size_t size, Activations *out) {
  LayerActivations shared = {0};
  const bool all_kept = plan->training && !plan->recompute;
  const bool mlp_kept = all_kept && plan->mlp_chunk == 0;
  if (!plan->training) place_kept(cursor, plan, size, &shared);
  if (!all_kept) place_recomputable(cursor, plan, size, &shared);
  if (!mlp_kept) place_mlp(cursor, plan, size, &shared);
  for (int64_t l = 0; l < plan->config->num_hidden_layers; l++) {
    LayerActivations layer = shared;
    if (plan->training) place_kept(cursor, plan, size, &layer);
    if (all_kept) place_recomputable(cursor, plan, size, &layer);
    if (mlp_kept) place_mlp(cursor, plan, size, &layer);
    out->layers[l] = layer;
  }
  /* Without layers to keep, the residual stream is updated in place. */
  out->output = plan->training ? take(cursor, plan->rows * plan->config->hidden_size, size) : shared.input;
}

static void place_backward(Cursor *cursor, const ActivationsPlan *plan, size_t size, Activations *out) {
  const Widths widths = widths_of(plan->config);
  const int64_t n = plan->rows;
  out->gradient = take(cursor, n * widths.c, size);
  out->grad_norm = take(cursor, n * (widths.c > widths.attention ? widths.c : widths.attention), size);
  out->grad_qkv = take(cursor, n * widths.qkv, size);
  out->grad_hidden = take(cursor, mlp_rows(plan) * widths.hidden, size);
  out->grad_activated = take(cursor, mlp_rows(plan) * widths.f, size);
  out->grad_branch = plan->dropout ? take(cursor, n * widths.c, size) : NULL;
}

static void place(Cursor *cursor, const ActivationsPlan *plan, size_t size, Activations *out) {
  const ModelConfig *config = plan->config;
  const int64_t n = plan->rows;
  const int64_t chunk = plan->loss_chunk < n ? plan->loss_chunk : n;
  place_layers(cursor, plan, size, out);
  out->mean = take(cursor, n, sizeof(float));
  out->rstd = take(cursor, n, sizeof(float));
  out->final_norm = take(cursor, n * config->hidden_size, size);
  out->logits_stride = (config->vocab_size + LOGITS_ALIGNMENT - 1) / LOGITS_ALIGNMENT * LOGITS_ALIGNMENT;
  out->logits = take(cursor, chunk * out->logits_stride, size);
  out->nll = take(cursor, n, sizeof(float));
  out->tokens = take(cursor, n, sizeof(int32_t));
  out->targets = take(cursor, n, sizeof(int32_t));
  out->positions = take(cursor, n, sizeof(int64_t));
  out->rope = NULL;
  if (config->position == POSITION_ROPE) {
    out->rope = take(cursor, n * (config->hidden_size / config->num_attention_heads), sizeof(float));
  }
  out->token_numbers = plan->training && plan->dropout ? take(cursor, n, sizeof(int64_t)) : NULL;
  if (plan->training) place_backward(cursor, plan, size, out);
}

Status activations_create(Device *device, const ActivationsPlan *plan, Activations *activations,
                          Error *error) {
  const size_t size = device->ops.elem_size;
  Status status = STATUS_OK;
  void *layers = NULL;
  void *positions = NULL;
  *activations = (Activations){0};
  TRY_GOTO(memory_alloc((size_t)plan->config->num_hidden_layers, sizeof(LayerActivations), "table of layers",
                        &layers, error),
           failed);
  TRY_GOTO(memory_alloc((size_t)plan->rows, sizeof(int64_t), "positions", &positions, error), failed);
  Activations made = {.device = device, .rows = plan->rows, .layers = layers, .host_positions = positions};
  Cursor measure = {0};
  place(&measure, plan, size, &made);
  TRY_GOTO(device_alloc(device, measure.used, "activations", &made.memory, error), failed);
  Cursor cursor = {.base = made.memory};
  place(&cursor, plan, size, &made);
  *activations = made;
  return STATUS_OK;
failed:
  free(positions);
  free(layers);
  return status;
}

void activations_destroy(Activations *activations) {
  if (activations->device != NULL) device_free(activations->device, activations->memory);
  free(activations->host_positions);
  free(activations->layers);
  *activations = (Activations){0};
}
