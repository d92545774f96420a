/* Ordering between queues and moving memory between ranks, from any thread of the process.
 *
 * A device's failure belongs to its maker's thread. What fails in another one is kept aside under a lock and
 * told at the maker's next device_read. */
#include <stdlib.h>

#include "kernels/cuda/device_layer.h"

struct DeviceEvent {
  cudaEvent_t event;
};

static bool is_maker(const CudaDevice *cuda) {
  return pthread_equal(pthread_self(), cuda->device.owner) != 0;
}

/* Whether anything more is to be put into a queue, as far as this thread may know. */
static bool is_usable(CudaDevice *cuda) {
  if (is_maker(cuda)) return cuda_usable(&cuda->device);
  (void)pthread_mutex_lock(&cuda->elsewhere_lock);
  const bool usable = cuda->elsewhere.status == STATUS_OK;
  (void)pthread_mutex_unlock(&cuda->elsewhere_lock);
  return usable;
}

/* Records the failure in `error`, if it is one. */
static void keep_failure(CudaDevice *cuda, const Error *error) {
  if (error->status == STATUS_OK) return;
  if (is_maker(cuda)) {
    device_fail(&cuda->device, error->status, "%s", error->text);
    return;
  }
  (void)pthread_mutex_lock(&cuda->elsewhere_lock);
  (void)fail(&cuda->elsewhere, error->status, "%s", error->text);
  (void)pthread_mutex_unlock(&cuda->elsewhere_lock);
}

void cuda_collect_failures(CudaDevice *cuda) {
  (void)pthread_mutex_lock(&cuda->elsewhere_lock);
  const Error error = cuda->elsewhere;
  (void)pthread_mutex_unlock(&cuda->elsewhere_lock);
  if (error.status != STATUS_OK) device_fail(&cuda->device, error.status, "%s", error.text);
}

static Status event_create(Device *device, DeviceEvent **out, Error *error) {
  const CudaDevice *cuda = cuda_device(device);
  *out = NULL;
  DeviceEvent *event = (DeviceEvent *)calloc(1, sizeof *event);
  if (event == NULL) return fail(error, STATUS_SYSTEM, "an event: the machine has no memory left");
  const int previous = cuda_enter(cuda);
  const cudaError_t code = cudaEventCreateWithFlags(&event->event, cudaEventDisableTiming);
  const Status status = cuda_status(cuda, code, "an event", error);
  cuda_leave(cuda, previous);
  if (status == STATUS_OK) {
    *out = event;
  } else {
    free(event);
  }
  return status;
}

static void event_finish(const DeviceEvent *event) {
  (void)cudaEventSynchronize(event->event);
}

static void event_destroy(DeviceEvent *event) {
  if (event == NULL) return;
  (void)cudaEventDestroy(event->event);
  free(event);
}

static void record(Device *device, DeviceQueue queue, DeviceEvent *event) {
  CudaDevice *cuda = cuda_device(device);
  if (!is_usable(cuda)) return;
  Error error = {};
  const int previous = cuda_enter(cuda);
  (void)cuda_status(cuda, cudaEventRecord(event->event, cuda->streams[queue]), "a mark in a queue", &error);
  cuda_leave(cuda, previous);
  keep_failure(cuda, &error);
}

static void wait(Device *device, DeviceQueue queue, const DeviceEvent *event) {
  CudaDevice *cuda = cuda_device(device);
  if (!is_usable(cuda)) return;
  Error error = {};
  const int previous = cuda_enter(cuda);
  const bool timed = queue == QUEUE_COMPUTE && is_maker(cuda);
  const cudaError_t code = timed ? cuda_timed_wait(cuda, event->event)
                                 : cudaStreamWaitEvent(cuda->streams[queue], event->event, 0);
  (void)cuda_status(cuda, code, "a wait in a queue", &error);
  cuda_leave(cuda, previous);
  keep_failure(cuda, &error);
}

/* Lets this GPU reach memory of another one, where the machine can; this one is the current. True where
 * kernels of this GPU can read it. */
static cudaError_t reach(const CudaDevice *cuda, const void *memory, bool *can_read) {
  cudaPointerAttributes attributes = {};
  *can_read = false;
  const cudaError_t code = cudaPointerGetAttributes(&attributes, memory);
  if (code != cudaSuccess) return code;
  *can_read = attributes.device == cuda->index;
  if (*can_read) return cudaSuccess;
  int can = 0;
  (void)cudaDeviceCanAccessPeer(&can, cuda->index, attributes.device);
  const cudaError_t enabled = can != 0 ? cudaDeviceEnablePeerAccess(attributes.device, 0) : cudaSuccess;
  (void)cudaGetLastError(); /* "already enabled" is no failure */
  *can_read = can != 0 && (enabled == cudaSuccess || enabled == cudaErrorPeerAccessAlreadyEnabled);
  return cudaSuccess;
}

/* Memory out of reach is copied too, by way of the host. */
static void copy(Device *device, DeviceQueue queue, void *to, const void *from, size_t bytes) {
  CudaDevice *cuda = cuda_device(device);
  if (bytes == 0 || !is_usable(cuda)) return;
  Error error = {};
  const int previous = cuda_enter(cuda);
  bool can_read = false;
  cudaError_t code = reach(cuda, from, &can_read);
  if (code == cudaSuccess) {
    code = cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, cuda->streams[queue]);
  }
  (void)cuda_status(cuda, code, "a copy between ranks", &error);
  cuda_leave(cuda, previous);
  keep_failure(cuda, &error);
}

static Status check_sum(const CudaDevice *cuda, int count, const float *const *sources, Error *error) {
  if (count < 1 || count > DEVICE_SOURCES) {
    return fail(error, STATUS_INTERNAL, "cuda %d: a sum of %d arrays; 1 to %d can be added", cuda->index,
                count, (int)DEVICE_SOURCES);
  }
  for (int i = 0; i < count; i++) {
    bool can_read = false;
    TRY(cuda_status(cuda, reach(cuda, sources[i], &can_read), "a sum over ranks", error));
    if (can_read) continue;
    return fail(error, STATUS_CONFIG,
                "cuda %d: cannot read the memory of another GPU here: parallelism.transport nccl works",
                cuda->index);
  }
  return STATUS_OK;
}

static void sum(Device *device, DeviceQueue queue, int count, const float *const *sources, int64_t elements,
                float *to) {
  CudaDevice *cuda = cuda_device(device);
  if (elements <= 0 || !is_usable(cuda)) return;
  Error error = {};
  const int previous = cuda_enter(cuda);
  if (check_sum(cuda, count, sources, &error) == STATUS_OK) {
    const cudaError_t code = cuda_sum(cuda, cuda->streams[queue], count, sources, elements, to);
    (void)cuda_status(cuda, code, "a sum over ranks", &error);
  }
  cuda_leave(cuda, previous);
  keep_failure(cuda, &error);
}

const DeviceQueues cuda_queues = {event_create, event_destroy, event_finish, record,
                                  wait,         cuda_waited,   copy,         sum};
