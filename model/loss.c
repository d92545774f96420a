/* Final norm, head and loss, a chunk of tokens at a time: logits of more than a chunk never exist. */
#include "model/internal.h"

/* Logits, nll and, when asked, the gradient of rows [begin, begin + count) of the final norm's output. */
static void run_chunk(Model *model, int64_t begin, int64_t count, bool gradient) {
  const ModelConfig *config = &model->options.config;
  const Ops *ops = &model->device->ops;
  Device *device = model->device;
  const int64_t c = config->hidden_size;
  const int64_t v = config->vocab_size;
  const elem *head = model_weight(model, model->places.head);
  elem *logits = model->acts.logits;
  const elem *x = model_row(model, model->acts.final_norm, begin, c);
  ops->linear_forward(device, count, c, v, x, head, NULL, logits);
  ops->cross_entropy(device, count, v, logits, model->acts.targets + begin, gradient,
                     model->acts.nll + begin);
  if (!gradient) return;
  ops->linear_backward_weight(device, count, c, v, logits, x, model_gradient(model, model->places.head),
                              NULL);
  ops->linear_backward_input(device, count, c, v, logits, head,
                             model_row(model, model->acts.grad_norm, begin, c));
}

void loss_run(Model *model, bool gradient) {
  const Activations *acts = &model->acts;
  const ParamPlaces *places = &model->places;
  const size_t row_bytes = (size_t)model->options.config.hidden_size * model->device->ops.elem_size;
  norm_forward(model, places->final_norm, places->final_norm_bias, acts->output, acts->final_norm, acts->mean,
               acts->rstd);
  for (int64_t begin = 0; begin < model->n; begin += model->options.loss_chunk) {
    const int64_t left = model->n - begin;
    run_chunk(model, begin, left < model->options.loss_chunk ? left : model->options.loss_chunk, gradient);
  }
  if (!gradient) return;
  device_zero(model->device, acts->gradient, (size_t)model->n * row_bytes);
  norm_backward(model, places->final_norm, places->final_norm_bias, acts->grad_norm, acts->output, acts->mean,
                acts->rstd, acts->gradient);
}
