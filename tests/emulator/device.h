/* The emulated devices, and the last error of a host thread. */
#ifndef RINGGPT_EMULATOR_DEVICE_H
#define RINGGPT_EMULATOR_DEVICE_H

#include <cuda_runtime.h>

namespace emulator {

int device_count(void);
/* Of the calling host thread. */
int current_device(void);
size_t device_memory_bytes(void);

/* Whether kernels of a device may touch the memory of another: its own, or enabled for it. */
bool can_reach(int device, int other);

/* Keeps `error` for cudaGetLastError and returns it. */
cudaError_t fail(cudaError_t error);

} // namespace emulator

#endif
