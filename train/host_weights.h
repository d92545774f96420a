/* A model's weights as floats in host memory, whatever its device and its elements: for drawing and loading.
 */
#ifndef RINGGPT_TRAIN_HOST_WEIGHTS_H
#define RINGGPT_TRAIN_HOST_WEIGHTS_H

#include "kernels/base/status.h"
#include "kernels/comm/comm.h"
#include "kernels/device.h"
#include "model/model.h"

typedef struct HostWeights {
  Device *device;
  Model *model;
  float *floats;         /* (total of the model's table) */
  DeviceMapping mapping; /* what floats is of, where the model's weights are floats */
} HostWeights;

/* Makes floats readable, with the model's weights in it where these are floats, and writable. STATUS_SYSTEM
 * without host memory. */
Status host_weights_open(Device *device, Model *model, HostWeights *weights, Error *error);

/* Ends it; with `changed`, the model's weights are what floats holds, rounded to its elements. The struct may
 * be zero. STATUS_SYSTEM without device memory for the rounding. */
Status host_weights_close(HostWeights *weights, bool changed, Error *error);

/* Loads the weights at `path`, what checkpoint_load_weights takes, into the model of `device`. Collective
 * over `world`; fails as checkpoint_load_weights, or with STATUS_SYSTEM without memory. */
Status host_weights_load(const char *path, Device *device, Model *model, Comm *world, Error *error);

#endif
