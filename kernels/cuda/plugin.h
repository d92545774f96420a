/* The seam between the program and the shared object ringgpt-cuda.so, which holds the CUDA device: the
 * program loads it when a device of that kind is asked for or looked for, so that it runs on machines without
 * the toolkit and pays for cuBLAS only where it computes with it. */
#ifndef RINGGPT_CUDA_PLUGIN_H
#define RINGGPT_CUDA_PLUGIN_H

#include <stddef.h>

#include "kernels/device.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Counted up with every change of this table, of DeviceTable or of Ops. */
#define CUDA_PLUGIN_VERSION 4

typedef struct CudaPlugin {
  int version;        /* CUDA_PLUGIN_VERSION of the build */
  size_t table_bytes; /* CUDA_PLUGIN_TABLE_BYTES, likewise */
  /* *devices: how many this process can use. STATUS_CONFIG with the driver's reason where there is none. */
  Status (*count)(int *devices, Error *error);
  /* Makes device `index` ready for one rank; several ranks may share it. STATUS_CONFIG where there is none of
   * this number, STATUS_SYSTEM where the device has not the memory. The maker's thread uses it; it is
   * released by device_destroy. */
  Status (*create)(int index, ElementType elements, Device **out, Error *error);
} CudaPlugin;

#define CUDA_PLUGIN_TABLE_BYTES (sizeof(Device) + sizeof(DeviceTable) + sizeof(DeviceQueues))

/* The one symbol of the shared object: CUDA_PLUGIN_SYMBOL. */
const CudaPlugin *ringgpt_cuda_plugin(void);
#define CUDA_PLUGIN_SYMBOL "ringgpt_cuda_plugin"

#ifdef __cplusplus
}
#endif

#endif
