/* What the model takes for the likeliest token where an answer is expected. The logits of those rows alone
 * come to the host: answers are few, and a row is read there as fast as it is sent. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/memory.h"
#include "model/internal.h"

/* Logit j of a row of the device's elements. */
static float logit_at(const elem *row, int64_t j, size_t elem_size) {
  if (elem_size == sizeof(float)) return ((const float *)row)[j];
  /* bf16: the upper half of a float. */
  const uint32_t bits = (uint32_t)((const uint16_t *)row)[j] << 16;
  float wide;
  memcpy(&wide, &bits, sizeof wide);
  return wide;
}

/* The place of the largest number of a row, of equal ones the first; PREDICTED_NONE where none is a number.
 */
static int32_t largest(const elem *row, int64_t count, size_t elem_size) {
  int32_t place = PREDICTED_NONE;
  float most = -INFINITY;
  for (int64_t j = 0; j < count; j++) {
    const float logit = logit_at(row, j, elem_size);
    if (!(logit > most)) continue;
    most = logit;
    place = (int32_t)j;
  }
  return place;
}

/* Predicts rows [begin, begin + count) of the final norm's output; without a target among them nothing is
 * computed. `row` has room for one row of logits. */
static void predict_chunk(const Model *model, int64_t begin, int64_t count, const int32_t *targets, elem *row,
                          int32_t *predictions) {
  const int64_t vocab = model->options.config.vocab_size;
  const int64_t stride = model->acts.logits_stride;
  const size_t elem_size = model->device->ops.elem_size;
  bool computed = false;
  for (int64_t i = 0; i < count; i++) {
    predictions[begin + i] = PREDICTED_NONE;
    if (targets[begin + i] == IGNORED_TARGET) continue;
    if (!computed) loss_logits(model, begin, count, stride);
    computed = true;
    device_read(model->device, row, model_row(model, model->acts.logits, i, stride),
                (size_t)vocab * elem_size);
    predictions[begin + i] = largest(row, vocab, elem_size);
  }
}

Status model_predict(Model *model, const ModelBatch *batch, int32_t *predictions, Error *error) {
  const int64_t chunk = model->options.loss_chunk;
  const size_t row_bytes = (size_t)model->options.config.vocab_size * model->device->ops.elem_size;
  void *row = NULL;
  TRY(memory_alloc(1, row_bytes, "a row of logits", &row, error));
  const Status status = model_run_forward(model, batch, error);
  if (status == STATUS_OK) loss_final_norm(model);
  for (int64_t begin = 0; status == STATUS_OK && begin < model->n; begin += chunk) {
    const int64_t left = model->n - begin;
    predict_chunk(model, begin, left < chunk ? left : chunk, batch->targets, row, predictions);
  }
  free(row);
  return status == STATUS_OK ? device_check(model->device, error) : status;
}
