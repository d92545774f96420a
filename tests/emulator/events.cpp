/* Events: marks in the queues of streams. */
#include "device.h"
#include "streams.h"

struct CUevent_st {
  std::shared_ptr<emulator::EventState> state;
};

using namespace emulator;

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags) {
  Lock lock(global_lock());
  if (device_count() == 0) return fail(cudaErrorNoDevice);
  const bool timed = !(flags & cudaEventDisableTiming);
  *event = new CUevent_st{std::make_shared<EventState>(EventState{current_device(), timed, 0, 0, 0.0})};
  return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t *event) {
  return cudaEventCreateWithFlags(event, cudaEventDefault);
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  Lock lock(global_lock());
  if (!event) return fail(cudaErrorInvalidResourceHandle);
  delete event;
  return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t handle) {
  Lock lock(global_lock());
  CUstream_st *stream = find_stream(handle);
  if (!event || !stream || stream_device(stream) != event->state->device)
    return fail(cudaErrorInvalidResourceHandle);
  put(stream, {Operation::RECORD, nullptr, event->state, ++event->state->recorded});
  return cudaSuccess;
}

/* Waits for the last record so far; for none where there is none. */
cudaError_t cudaStreamWaitEvent(cudaStream_t handle, cudaEvent_t event, unsigned) {
  Lock lock(global_lock());
  CUstream_st *stream = find_stream(handle);
  if (!event || !stream) return fail(cudaErrorInvalidResourceHandle);
  put(stream, {Operation::WAIT, nullptr, event->state, event->state->recorded});
  return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  Lock lock(global_lock());
  if (!event) return fail(cudaErrorInvalidResourceHandle);
  const std::shared_ptr<EventState> state = event->state;
  drain_until(state.get(), state->recorded);
  return cudaSuccess;
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
  Lock lock(global_lock());
  if (!event) return fail(cudaErrorInvalidResourceHandle);
  work_a_little();
  return event->state->reached >= event->state->recorded ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t start, cudaEvent_t end) {
  Lock lock(global_lock());
  if (!start || !end) return fail(cudaErrorInvalidResourceHandle);
  for (const cudaEvent_t event : {start, end}) {
    const EventState *state = event->state.get();
    if (!state->timed || state->recorded == 0) return fail(cudaErrorInvalidResourceHandle);
    if (state->reached < state->recorded) return cudaErrorNotReady;
  }
  *milliseconds = (float)(end->state->milliseconds - start->state->milliseconds);
  return cudaSuccess;
}
