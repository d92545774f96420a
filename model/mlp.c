/* The MLP of a layer, all rows at once or a chunk of them at a time: then its wide tensors are those of a
 * chunk, and backward computes them again. */
#include "model/internal.h"

static int64_t hidden_width(const Model *model) {
  const ModelConfig *config = &model->options.config;
  return config->activation == ACTIVATION_SWIGLU ? 2 * config->intermediate_size : config->intermediate_size;
}

/* The chunk that begins at row `begin`. */
static Rows chunk_at(const Model *model, int64_t begin) {
  const int64_t left = model->n - begin;
  const int64_t chunk = model->options.mlp_chunk;
  return (Rows){.begin = begin, .count = chunk > 0 && chunk < left ? chunk : left};
}

static elem *norm2_row(const Model *model, int64_t layer, int64_t row) {
  return model_row(model, model->acts.layers[layer].norm2, row, model->options.config.hidden_size);
}

/* From norm2 to the layer's hidden and activated, which hold these rows alone. */
static void widen(const Model *model, int64_t layer, Rows rows) {
  const ModelConfig *config = &model->options.config;
  const LayerParams *params = &model->places.layers[layer];
  const LayerActivations *acts = &model->acts.layers[layer];
  const Ops *ops = &model->device->ops;
  const int64_t f = config->intermediate_size;
  linear_forward(model, rows, config->hidden_size, hidden_width(model), params->up, params->up_bias,
                 norm2_row(model, layer, rows.begin), acts->hidden);
  if (config->activation == ACTIVATION_SWIGLU) {
    ops->swiglu_forward(model->device, rows.count, f, acts->hidden, acts->activated);
  } else {
    ops->gelu_forward(model->device, rows.count * f, acts->hidden, acts->activated);
  }
}

void mlp_forward(const Model *model, int64_t layer, elem *output) {
  const ModelConfig *config = &model->options.config;
  const LayerParams *params = &model->places.layers[layer];
  const LayerActivations *acts = &model->acts.layers[layer];
  for (int64_t begin = 0; begin < model->n;) {
    const Rows rows = chunk_at(model, begin);
    widen(model, layer, rows);
    branch_forward(model, rows, dropout_mlp(layer), config->intermediate_size, params->down,
                   params->down_bias, acts->activated, model_row(model, output, begin, config->hidden_size));
    begin += rows.count;
  }
}

static void backward_chunk(const Model *model, int64_t layer, Rows rows) {
  const ModelConfig *config = &model->options.config;
  const LayerParams *params = &model->places.layers[layer];
  const LayerActivations *kept = &model->acts.layers[layer];
  const Activations *acts = &model->acts;
  const Ops *ops = &model->device->ops;
  const int64_t c = config->hidden_size;
  const int64_t f = config->intermediate_size;
  branch_backward(model, rows, dropout_mlp(layer), f, params->down, params->down_bias, kept->activated,
                  acts->grad_activated);
  if (config->activation == ACTIVATION_SWIGLU) {
    ops->swiglu_backward(model->device, rows.count, f, kept->hidden, acts->grad_activated, acts->grad_hidden);
  } else {
    ops->gelu_backward(model->device, rows.count * f, kept->hidden, acts->grad_activated, acts->grad_hidden);
  }
  linear_backward(model, rows, c, hidden_width(model), params->up, params->up_bias,
                  norm2_row(model, layer, rows.begin), acts->grad_hidden,
                  model_row(model, acts->grad_norm, rows.begin, c));
}

void mlp_backward(const Model *model, int64_t layer) {
  const bool again = model->options.recompute || model->options.mlp_chunk > 0;
  for (int64_t begin = 0; begin < model->n;) {
    const Rows rows = chunk_at(model, begin);
    if (again) widen(model, layer, rows);
    backward_chunk(model, layer, rows);
    begin += rows.count;
  }
}
