/* Launches of kernels: checked at the call, run when the queue comes to them. */
#include <map>

#include "block.h"
#include "device.h"
#include "shared_memory.h"
#include "streams.h"

namespace emulator {

/* The dynamic shared memory that cudaFuncSetAttribute has allowed to a kernel. */
static std::map<const void *, int> *shared_limits(void) {
  static std::map<const void *, int> *limits = new std::map<const void *, int>;
  return limits;
}

static size_t shared_limit(const void *kernel) {
  const auto limit = shared_limits()->find(kernel);
  return limit == shared_limits()->end() ? (size_t)SHARED_DEFAULT_LIMIT : (size_t)limit->second;
}

static cudaError_t check_launch(const Launch *launch, const CUstream_st *stream) {
  const dim3 grid = launch->grid;
  const dim3 extent = launch->block;
  if (!stream || stream_device(stream) != current_device()) return cudaErrorInvalidResourceHandle;
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > 2147483647 || grid.y > 65535 || grid.z > 65535)
    return cudaErrorInvalidConfiguration;
  const uint64_t count = (uint64_t)extent.x * extent.y * extent.z;
  if (count == 0 || count > BLOCK_THREADS || extent.z > 64) return cudaErrorInvalidConfiguration;
  if (launch->shared > shared_limit(launch->kernel)) return cudaErrorInvalidValue;
  return cudaSuccess;
}

void enqueue_launch(const Launch &launch, std::function<void()> thread) {
  Lock lock(global_lock());
  if (device_count() == 0) {
    fail(cudaErrorNoDevice);
    return;
  }
  CUstream_st *stream = find_stream(launch.stream);
  const cudaError_t error = check_launch(&launch, stream);
  if (error != cudaSuccess) {
    fail(error);
    return;
  }
  put(stream,
      {Operation::WORK, [launch, thread = std::move(thread)] { run_grid(launch, thread); }, nullptr, 0});
}

} // namespace emulator

using namespace emulator;

cudaError_t cudaFuncSetAttribute(const void *kernel, cudaFuncAttribute attribute, int value) {
  Lock lock(global_lock());
  if (attribute == cudaFuncAttributePreferredSharedMemoryCarveout) return cudaSuccess;
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize || value < 0 || value > SHARED_LIMIT)
    return fail(cudaErrorInvalidValue);
  (*shared_limits())[kernel] = value;
  return cudaSuccess;
}
