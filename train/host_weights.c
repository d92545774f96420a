/* A model's weights as floats in host memory: see the header. */
#include "train/host_weights.h"

#include <stdlib.h>

#include "checkpoints/checkpoint.h"
#include "kernels/base/memory.h"

/* Weights that are rounded at a time. */
#define PIECE_ELEMENTS ((int64_t)1 << 22)

Status host_weights_open(Device *device, Model *model, HostWeights *weights, Error *error) {
  const size_t bytes = (size_t)model_table(model)->total * sizeof(float);
  void *memory = NULL;
  *weights = (HostWeights){.device = device, .model = model};
  if (device->ops.elem_size == sizeof(float)) {
    TRY(device_map(device, model_weights(model), bytes, "weights", &weights->mapping, error));
    weights->floats = weights->mapping.host;
    return STATUS_OK;
  }
  TRY(memory_alloc(bytes, 1, "weights", &memory, error));
  weights->floats = memory;
  return STATUS_OK;
}

/* Rounds the floats to elements, on the device. */
static Status store(const HostWeights *weights, Error *error) {
  Device *device = weights->device;
  const int64_t total = model_table(weights->model)->total;
  const int64_t most = total < PIECE_ELEMENTS ? total : PIECE_ELEMENTS;
  char *elements = model_weights(weights->model);
  void *piece = NULL;
  TRY(device_alloc(device, (size_t)most * sizeof(float), "weights on their way", &piece, error));
  for (int64_t at = 0; at < total; at += most) {
    const int64_t count = total - at < most ? total - at : most;
    device_write(device, piece, weights->floats + at, (size_t)count * sizeof(float));
    device->ops.from_floats(device, count, piece, elements + (size_t)at * device->ops.elem_size);
  }
  device_free(device, piece);
  return device_check(device, error);
}

Status host_weights_close(HostWeights *weights, bool changed, Error *error) {
  Status status = STATUS_OK;
  if (weights->mapping.device != NULL) {
    device_unmap(&weights->mapping, changed);
  } else if (weights->floats != NULL) {
    if (changed) status = store(weights, error);
    free(weights->floats);
  }
  *weights = (HostWeights){0};
  return status;
}

Status host_weights_load(const char *path, Device *device, Model *model, Comm *world, Error *error) {
  HostWeights weights;
  TRY(host_weights_open(device, model, &weights, error));
  const Status loaded = checkpoint_load_weights(path, model_table(model), weights.floats, world, error);
  const Status closed = host_weights_close(&weights, loaded == STATUS_OK, error);
  return loaded != STATUS_OK ? loaded : closed;
}
