/* Waiting for the GPU, with an ear for other ranks. */
#include <time.h>

#include "kernels/cuda/device_layer.h"

/* Between two looks at the GPU. */
static void pause_and_poll(const Device *device) {
  const struct timespec pause = {.tv_sec = 0, .tv_nsec = 20000};
  device_poll(device);
  (void)nanosleep(&pause, NULL);
}

cudaError_t cuda_wait_for_queue(Device *device) {
  cudaStream_t stream = cuda_stream(device);
  if (device->poll == NULL) return cudaStreamSynchronize(stream);
  cudaError_t code = cudaStreamQuery(stream);
  for (; code == cudaErrorNotReady; code = cudaStreamQuery(stream)) pause_and_poll(device);
  return code;
}

cudaError_t cuda_wait_for_event(Device *device, cudaEvent_t event) {
  if (device->poll == NULL) return cudaEventSynchronize(event);
  cudaError_t code = cudaEventQuery(event);
  for (; code == cudaErrorNotReady; code = cudaEventQuery(event)) pause_and_poll(device);
  return code;
}
