/* Final norm, head and loss, a chunk of tokens at a time: logits of more than a chunk never exist. */
#include "model/internal.h"

void loss_final_norm(const Model *model) {
  const Activations *acts = &model->acts;
  const ParamPlaces *places = &model->places;
  norm_forward(model, places->final_norm, places->final_norm_bias,
               layer_residual(model, model->options.config.num_hidden_layers), acts->output, acts->final_norm,
               acts->mean, acts->rstd);
}

void loss_logits(const Model *model, int64_t begin, int64_t count, int64_t stride) {
  const ModelConfig *config = &model->options.config;
  const int64_t c = config->hidden_size;
  model->device->ops.linear_forward(model->device, count, c, config->vocab_size, stride,
                                    model_row(model, model->acts.final_norm, begin, c),
                                    model_weight(model, model->places.head), NULL, model->acts.logits);
}

/* Logits, nll and, when asked, the gradient of rows [begin, begin + count) of the final norm's output. */
static void run_chunk(Model *model, int64_t begin, int64_t count, bool gradient) {
  const ModelConfig *config = &model->options.config;
  const Ops *ops = &model->device->ops;
  Device *device = model->device;
  const int64_t c = config->hidden_size;
  const int64_t v = config->vocab_size;
  const int64_t stride = model->acts.logits_stride;
  elem *logits = model->acts.logits;
  loss_logits(model, begin, count, stride);
  ops->cross_entropy(device, count, v, stride, logits, model->acts.targets + begin, gradient,
                     model->acts.nll + begin);
  if (!gradient) return;
  ops->linear_backward_weight(device, count, c, v, stride, logits,
                              model_row(model, model->acts.final_norm, begin, c),
                              model_gradient(model, model->places.head), NULL);
  ops->linear_backward_input(device, count, c, v, stride, logits, model_weight(model, model->places.head),
                             model_row(model, model->acts.grad_norm, begin, c));
}

void loss_run(Model *model, bool gradient) {
  const Activations *acts = &model->acts;
  const ParamPlaces *places = &model->places;
  const size_t row_bytes = (size_t)model->options.config.hidden_size * model->device->ops.elem_size;
  loss_final_norm(model);
  for (int64_t begin = 0; begin < model->n; begin += model->options.loss_chunk) {
    const int64_t left = model->n - begin;
    run_chunk(model, begin, left < model->options.loss_chunk ? left : model->options.loss_chunk, gradient);
  }
  if (!gradient) return;
  device_zero(model->device, acts->gradient, (size_t)model->n * row_bytes);
  norm_backward(model, places->final_norm, places->final_norm_bias, acts->grad_norm, acts->output, acts->mean,
                acts->rstd, acts->gradient);
}
