/* One transformer layer, forward and backward: x + attention(norm(x)), then x + mlp(norm(x)). A branch is
 * added to the residual stream by the norm that reads it next: the attention's by the layer's second norm,
 * the MLP's by the first norm of the layer behind it, or the final one. */
#include "model/internal.h"

typedef struct Sizes {
  int64_t n, c, q, qkv, head_dim, rotated_heads;
} Sizes;

static Sizes sizes_of(const Model *model) {
  const ModelConfig *config = &model->options.config;
  const int64_t head_dim = config->hidden_size / config->num_attention_heads;
  return (Sizes){
      .n = model->n,
      .c = config->hidden_size,
      .q = config->num_attention_heads * head_dim,
      .qkv = (config->num_attention_heads + 2 * config->num_key_value_heads) * head_dim,
      .head_dim = head_dim,
      .rotated_heads = config->num_attention_heads + config->num_key_value_heads,
  };
}

void norm_forward(const Model *model, int64_t weight, int64_t bias, const elem *residual, elem *x, elem *y,
                  float *mean, float *rstd) {
  const ModelConfig *config = &model->options.config;
  const Ops *ops = &model->device->ops;
  const float eps = (float)config->norm_eps;
  if (config->norm == NORM_LAYERNORM) {
    ops->layernorm_forward(model->device, model->n, config->hidden_size, eps, residual, x,
                           model_weight(model, weight), model_weight(model, bias), y, mean, rstd);
  } else {
    ops->rmsnorm_forward(model->device, model->n, config->hidden_size, eps, residual, x,
                         model_weight(model, weight), y, rstd);
  }
}

void norm_backward(const Model *model, int64_t weight, int64_t bias, const elem *dy, const elem *x,
                   const float *mean, const float *rstd, elem *dx) {
  const ModelConfig *config = &model->options.config;
  const Ops *ops = &model->device->ops;
  if (config->norm == NORM_LAYERNORM) {
    ops->layernorm_backward(model->device, model->n, config->hidden_size, dy, x, model_weight(model, weight),
                            mean, rstd, dx, model_gradient(model, weight), model_gradient(model, bias));
  } else {
    ops->rmsnorm_backward(model->device, model->n, config->hidden_size, dy, x, model_weight(model, weight),
                          rstd, dx, model_gradient(model, weight));
  }
}

const elem *layer_residual(const Model *model, int64_t layer) {
  return layer > 0 ? model->acts.layers[layer - 1].middle : NULL;
}

/* The layer's input, with the residual that it lacks -> norm -> qkv. */
static void forward_qkv(const Model *model, int64_t layer, const elem *residual) {
  const LayerParams *params = &model->places.layers[layer];
  const LayerActivations *acts = &model->acts.layers[layer];
  const Sizes s = sizes_of(model);
  norm_forward(model, params->norm1, params->norm1_bias, residual, acts->input, acts->norm1, acts->mean1,
               acts->rstd1);
  linear_forward(model, model_rows(model), s.c, s.qkv, params->qkv, params->qkv_bias, acts->norm1, acts->qkv);
  if (model->acts.rope != NULL) {
    model->device->ops.rope_apply(model->device, s.n, s.rotated_heads, s.head_dim, s.qkv, model->acts.rope,
                                  false, acts->qkv);
  }
}

void layer_forward_qkv(const Model *model, int64_t layer) {
  forward_qkv(model, layer, layer_residual(model, layer));
}

/* Attention output -> residual -> norm. */
static void forward_middle(const Model *model, int64_t layer) {
  const LayerParams *params = &model->places.layers[layer];
  const LayerActivations *acts = &model->acts.layers[layer];
  const Sizes s = sizes_of(model);
  branch_forward(model, model_rows(model), dropout_attention(layer), s.q, params->out, params->out_bias,
                 acts->attention, acts->middle);
  norm_forward(model, params->norm2, params->norm2_bias, acts->input, acts->middle, acts->norm2, acts->mean2,
               acts->rstd2);
}

Status layer_forward_rest(Model *model, int64_t layer, elem *output, Error *error) {
  forward_middle(model, layer);
  mlp_forward(model, layer, output);
  return device_check(model->device, error);
}

Status layer_forward(Model *model, int64_t layer, elem *output, Error *error) {
  const LayerActivations *acts = &model->acts.layers[layer];
  layer_forward_qkv(model, layer);
  TRY(ring_attention_forward(model->attention, acts->qkv, acts->attention, acts->lse, error));
  return layer_forward_rest(model, layer, output, error);
}

/* From the gradient of `middle` to that of the layer's input, in acts.gradient. */
static Status backward_attention(const Model *model, int64_t layer, Error *error) {
  const LayerParams *params = &model->places.layers[layer];
  const LayerActivations *kept = &model->acts.layers[layer];
  const Activations *acts = &model->acts;
  const Sizes s = sizes_of(model);
  branch_backward(model, model_rows(model), dropout_attention(layer), s.q, params->out, params->out_bias,
                  kept->attention, acts->grad_norm);
  TRY(ring_attention_backward(model->attention, kept->qkv, kept->attention, kept->lse, acts->grad_norm,
                              acts->grad_qkv, error));
  if (acts->rope != NULL) {
    model->device->ops.rope_apply(model->device, s.n, s.rotated_heads, s.head_dim, s.qkv, acts->rope, true,
                                  acts->grad_qkv);
  }
  linear_backward(model, model_rows(model), s.c, s.qkv, params->qkv, params->qkv_bias, kept->norm1,
                  acts->grad_qkv, acts->grad_norm);
  norm_backward(model, params->norm1, params->norm1_bias, acts->grad_norm, kept->input, kept->mean1,
                kept->rstd1, acts->gradient);
  return STATUS_OK;
}

/* From the gradient of the layer's output to that of `middle`, in acts.gradient. */
static void backward_mlp(const Model *model, int64_t layer) {
  const LayerParams *params = &model->places.layers[layer];
  const LayerActivations *kept = &model->acts.layers[layer];
  mlp_backward(model, layer);
  norm_backward(model, params->norm2, params->norm2_bias, model->acts.grad_norm, kept->middle, kept->mean2,
                kept->rstd2, model->acts.gradient);
}

Status layer_backward(Model *model, int64_t layer, Error *error) {
  if (model->options.recompute) {
    forward_qkv(model, layer, NULL); /* the input is whole since the forward pass */
    forward_middle(model, layer);
  }
  backward_mlp(model, layer);
  TRY(backward_attention(model, layer, error));
  return device_check(model->device, error);
}
