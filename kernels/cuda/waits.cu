/* How long the compute queue waits for what moves between ranks: an event before each wait and one behind it.
 */
#include "kernels/cuda/device_layer.h"

static cudaError_t mark(cudaEvent_t *event, cudaStream_t stream) {
  if (*event == NULL) {
    const cudaError_t code = cudaEventCreate(event);
    if (code != cudaSuccess) return code;
  }
  return cudaEventRecord(*event, stream);
}

cudaError_t cuda_timed_wait(CudaDevice *cuda, cudaEvent_t event) {
  CudaWaits *waits = &cuda->waits;
  cudaStream_t stream = cuda->streams[QUEUE_COMPUTE];
  if (waits->used == CUDA_WAITS) return cudaStreamWaitEvent(stream, event, 0);
  cudaError_t code = mark(&waits->begin[waits->used], stream);
  if (code == cudaSuccess) code = cudaStreamWaitEvent(stream, event, 0);
  if (code == cudaSuccess) code = mark(&waits->end[waits->used], stream);
  if (code == cudaSuccess) waits->used += 1;
  return code;
}

double cuda_waited(Device *device) {
  CudaDevice *cuda = cuda_device(device);
  CudaWaits *waits = &cuda->waits;
  const int previous = cuda_enter(cuda);
  double seconds = 0.0;
  int kept = 0;
  for (int i = 0; i < waits->used; i++) {
    float milliseconds = 0.0F;
    const cudaError_t code = cudaEventElapsedTime(&milliseconds, waits->begin[i], waits->end[i]);
    if (code == cudaSuccess) seconds += 1e-3 * (double)milliseconds;
    if (code != cudaErrorNotReady) continue;
    const cudaEvent_t begin = waits->begin[kept];
    const cudaEvent_t end = waits->end[kept];
    waits->begin[kept] = waits->begin[i];
    waits->end[kept] = waits->end[i];
    waits->begin[i] = begin;
    waits->end[i] = end;
    kept += 1;
  }
  waits->used = kept;
  (void)cudaGetLastError(); /* "not ready" is no failure */
  cuda_leave(cuda, previous);
  return seconds;
}

void cuda_waits_close(CudaDevice *cuda) {
  for (int i = CUDA_WAITS - 1; i >= 0; i--) {
    if (cuda->waits.end[i] != NULL) (void)cudaEventDestroy(cuda->waits.end[i]);
    if (cuda->waits.begin[i] != NULL) (void)cudaEventDestroy(cuda->waits.begin[i]);
  }
}
