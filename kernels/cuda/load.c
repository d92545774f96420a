/* Finds the CUDA device: see the header. */
#include "kernels/cuda/load.h"

#include "kernels/cuda/object.h"
#include "kernels/cuda/plugin.h"

static Status load(const CudaPlugin **out, Error *error) {
  CudaObject object = {.variable = "RINGGPT_CUDA",
                       .file = "ringgpt-cuda.so",
                       .symbol = CUDA_PLUGIN_SYMBOL,
                       .lacking = "no CUDA device"};
  const CudaPlugin *(*plugin)(void) = NULL;
  TRY(cuda_object_load(&object, (void **)&plugin, error));
  *out = plugin();
  return cuda_object_check(&object, (*out)->version, CUDA_PLUGIN_VERSION, (*out)->table_bytes, error);
}

Status cuda_device_count(int *devices, Error *error) {
  const CudaPlugin *plugin = NULL;
  *devices = 0;
  TRY(load(&plugin, error));
  return plugin->count(devices, error);
}

Status cuda_device_create(int index, ElementType elements, Device **out, Error *error) {
  const CudaPlugin *plugin = NULL;
  *out = NULL;
  TRY(load(&plugin, error));
  return plugin->create(index, elements, out, error);
}
