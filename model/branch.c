/* Linear layers with their parameters, and the branches that end by one and add to the residual stream. */
#include "model/internal.h"

void linear_forward(const Model *model, Rows rows, int64_t inputs, int64_t outputs, int64_t weight,
                    int64_t bias, const elem *x, elem *y) {
  model->device->ops.linear_forward(model->device, rows.count, inputs, outputs, outputs, x,
                                    model_weight(model, weight), model_weight(model, bias), y);
}

void linear_backward(const Model *model, Rows rows, int64_t inputs, int64_t outputs, int64_t weight,
                     int64_t bias, const elem *x, const elem *dy, elem *dx) {
  const Ops *ops = &model->device->ops;
  ops->linear_backward_weight(model->device, rows.count, inputs, outputs, outputs, dy, x,
                              model_gradient(model, weight), model_gradient(model, bias));
  ops->linear_backward_input(model->device, rows.count, inputs, outputs, outputs, dy,
                             model_weight(model, weight), dx);
}

void branch_forward(const Model *model, Rows rows, uint32_t place, int64_t inputs, int64_t weight,
                    int64_t bias, const elem *x, elem *y) {
  linear_forward(model, rows, inputs, model->options.config.hidden_size, weight, bias, x, y);
  if (model->dropout) model_dropout(model, place, rows, y, y);
}

void branch_backward(const Model *model, Rows rows, uint32_t place, int64_t inputs, int64_t weight,
                     int64_t bias, const elem *x, elem *dx) {
  const int64_t c = model->options.config.hidden_size;
  const elem *dy = model_row(model, model->acts.gradient, rows.begin, c);
  if (model->dropout) {
    model_dropout(model, place, rows, dy, model->acts.grad_branch);
    dy = model->acts.grad_branch;
  }
  linear_backward(model, rows, inputs, c, weight, bias, x, dy, dx);
}
