/* The shared object's one symbol: looks for CUDA devices and makes them. */
#include "kernels/cuda/plugin.h"

#include "kernels/cuda/device_layer.h"

static const DeviceTable cuda_table = {
    "cuda",    cuda_alloc,     cuda_free,    cuda_zero,    cuda_write,
    cuda_read, cuda_copy_rows, cuda_destroy, &cuda_queues, cuda_left,
};

/* ---------------------------------------------------------------- looking for devices */

static Status explain(cudaError_t code, Error *error) {
  int driver = 0;
  (void)cudaGetLastError();
  if (code == cudaErrorNoDevice) return fail(error, STATUS_CONFIG, "no CUDA device: the machine has no GPU");
  (void)cudaDriverGetVersion(&driver);
  if (code != cudaErrorInsufficientDriver) {
    return fail(error, STATUS_CONFIG, "no CUDA device: %s", cudaGetErrorString(code));
  }
  if (driver == 0) return fail(error, STATUS_CONFIG, "no CUDA device: there is no NVIDIA driver");
  return fail(error, STATUS_CONFIG, "no CUDA device: the driver is for CUDA %d.%d, this build needs %d.%d",
              driver / 1000, driver % 1000 / 10, CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10);
}

static Status count(int *devices, Error *error) {
  *devices = 0;
  const cudaError_t code = cudaGetDeviceCount(devices);
  if (code != cudaSuccess) return explain(code, error);
  if (*devices == 0) return explain(cudaErrorNoDevice, error);
  return STATUS_OK;
}

/* ---------------------------------------------------------------- making one */

template <typename T> static void fill(Ops *ops, const char *name) {
  ops->name = name;
  ops->elem_size = sizeof(T);
  cuda_activation_fill<T>(ops);
  cuda_norm_fill<T>(ops);
  cuda_embedding_fill<T>(ops);
  cuda_position_fill<T>(ops);
  cuda_dropout_fill<T>(ops);
  cuda_loss_fill<T>(ops);
  cuda_products_fill<T>(ops);
  cuda_attention_fill<T>(ops);
  cuda_optimizer_fill(ops);
}

static Status create(int index, ElementType elements, Device **out, Error *error) {
  int devices = 0;
  *out = NULL;
  TRY(count(&devices, error));
  if (index < 0 || index >= devices) {
    return fail(error, STATUS_CONFIG, "no CUDA device %d: there are %d, counted from 0", index, devices);
  }
  CudaDevice *cuda = NULL;
  TRY(cuda_open(index, &cuda_table, elements, &cuda, error));
  if (elements == ELEMENT_BF16) {
    fill<bf16>(&cuda->device.ops, "cuda bf16");
  } else {
    fill<float>(&cuda->device.ops, "cuda fp32");
  }
  *out = &cuda->device;
  return STATUS_OK;
}

static const CudaPlugin plugin = {CUDA_PLUGIN_VERSION, CUDA_PLUGIN_TABLE_BYTES, count, create};

__attribute__((visibility("default"))) const CudaPlugin *ringgpt_cuda_plugin(void) {
  return &plugin;
}
