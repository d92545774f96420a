/* The emulated devices: how many, what they say of themselves, and the last error of a host thread. */
#include "device.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <set>
#include <utility>

#include "random.h"
#include "shared_memory.h"
#include "streams.h"

namespace emulator {

static const int MULTIPROCESSORS = 4;
static const int L2_BYTES = 4 << 20;

static thread_local int device_of_thread;
static thread_local cudaError_t last_error = cudaSuccess;

static uint64_t setting(const char *name, uint64_t otherwise) {
  const char *text = getenv(name);
  return text && *text ? strtoull(text, nullptr, 10) : otherwise;
}

static uint64_t state_of_seed(uint64_t seed) {
  const uint64_t state = (seed + 1) * 0x9E3779B97F4A7C15ull;
  return state ? state : 1;
}

uint64_t random_state = state_of_seed(setting("EMULATOR_SEED", 1));

void set_seed(uint64_t seed) {
  Lock lock(global_lock());
  random_state = state_of_seed(seed);
  for (int i = 0; i < 8; i++) random_word();
}

int device_count(void) {
  return (int)setting("EMULATED_DEVICES", 1);
}

int current_device(void) {
  return device_of_thread;
}

size_t device_memory_bytes(void) {
  return (size_t)setting("EMULATED_MEMORY", 4ull << 30);
}

/* Pairs of a device and one whose memory it may touch. */
static std::set<std::pair<int, int>> *enabled_peers(void) {
  static std::set<std::pair<int, int>> *peers = new std::set<std::pair<int, int>>;
  return peers;
}

bool can_reach(int device, int other) {
  Lock lock(global_lock());
  return device == other || enabled_peers()->count({device, other}) != 0;
}

cudaError_t fail(cudaError_t error) {
  last_error = error;
  return error;
}

static cudaError_t check_device(int device) {
  if (device_count() == 0) return fail(cudaErrorNoDevice);
  if (device < 0 || device >= device_count()) return fail(cudaErrorInvalidDevice);
  return cudaSuccess;
}

struct ErrorText {
  cudaError_t error;
  const char *name, *text;
};

static const ErrorText ERROR_TEXTS[] = {
    {cudaSuccess, "cudaSuccess", "no error"},
    {cudaErrorInvalidValue, "cudaErrorInvalidValue", "invalid argument"},
    {cudaErrorMemoryAllocation, "cudaErrorMemoryAllocation", "out of memory"},
    {cudaErrorInitializationError, "cudaErrorInitializationError", "initialization error"},
    {cudaErrorInvalidConfiguration, "cudaErrorInvalidConfiguration", "invalid configuration argument"},
    {cudaErrorInvalidDevicePointer, "cudaErrorInvalidDevicePointer", "invalid device pointer"},
    {cudaErrorInvalidMemcpyDirection, "cudaErrorInvalidMemcpyDirection", "invalid copy direction for memcpy"},
    {cudaErrorInsufficientDriver, "cudaErrorInsufficientDriver",
     "CUDA driver version is insufficient for CUDA runtime version"},
    {cudaErrorInvalidDeviceFunction, "cudaErrorInvalidDeviceFunction", "invalid device function"},
    {cudaErrorNoDevice, "cudaErrorNoDevice", "no CUDA-capable device is detected"},
    {cudaErrorInvalidDevice, "cudaErrorInvalidDevice", "invalid device ordinal"},
    {cudaErrorInvalidResourceHandle, "cudaErrorInvalidResourceHandle", "invalid resource handle"},
    {cudaErrorNotReady, "cudaErrorNotReady", "device not ready"},
    {cudaErrorPeerAccessAlreadyEnabled, "cudaErrorPeerAccessAlreadyEnabled",
     "peer access is already enabled"},
    {cudaErrorLaunchFailure, "cudaErrorLaunchFailure", "unspecified launch failure"},
    {cudaErrorNotSupported, "cudaErrorNotSupported", "operation not supported"},
    {cudaErrorUnknown, "cudaErrorUnknown", "unknown error"},
};

static const ErrorText *find_text(cudaError_t error) {
  for (const ErrorText &text : ERROR_TEXTS)
    if (text.error == error) return &text;
  return nullptr;
}

} // namespace emulator

using namespace emulator;

cudaError_t cudaGetLastError(void) {
  const cudaError_t error = last_error;
  last_error = cudaSuccess;
  return error;
}

cudaError_t cudaPeekAtLastError(void) {
  return last_error;
}

const char *cudaGetErrorName(cudaError_t error) {
  const ErrorText *text = find_text(error);
  return text ? text->name : "unrecognized error code";
}

const char *cudaGetErrorString(cudaError_t error) {
  const ErrorText *text = find_text(error);
  return text ? text->text : "unrecognized error code";
}

cudaError_t cudaDriverGetVersion(int *version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int *version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int *count) {
  *count = device_count();
  return *count > 0 ? cudaSuccess : fail(cudaErrorNoDevice);
}

cudaError_t cudaSetDevice(int device) {
  const cudaError_t error = check_device(device);
  if (error == cudaSuccess) device_of_thread = device;
  return error;
}

cudaError_t cudaGetDevice(int *device) {
  *device = device_of_thread;
  return check_device(device_of_thread);
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp *properties, int device) {
  const cudaError_t error = check_device(device);
  if (error != cudaSuccess) return error;
  *properties = cudaDeviceProp{};
  snprintf(properties->name, sizeof properties->name, "emulated device");
  properties->totalGlobalMem = device_memory_bytes();
  properties->sharedMemPerBlock = SHARED_DEFAULT_LIMIT;
  properties->sharedMemPerBlockOptin = SHARED_LIMIT;
  properties->sharedMemPerMultiprocessor = SHARED_LIMIT + 1024;
  properties->regsPerBlock = 65536;
  properties->warpSize = warpSize;
  properties->maxThreadsPerBlock = 1024;
  const int threads[3] = {1024, 1024, 64};
  const int blocks[3] = {2147483647, 65535, 65535};
  for (int i = 0; i < 3; i++) properties->maxThreadsDim[i] = threads[i];
  for (int i = 0; i < 3; i++) properties->maxGridSize[i] = blocks[i];
  properties->major = 9;
  properties->multiProcessorCount = MULTIPROCESSORS;
  properties->pciBusID = device + 1;
  properties->unifiedAddressing = 1;
  properties->memoryBusWidth = 64;
  properties->l2CacheSize = L2_BYTES;
  properties->maxThreadsPerMultiProcessor = 2048;
  return cudaSuccess;
}

static int attribute_of(const cudaDeviceProp *properties, cudaDeviceAttr attribute) {
  switch (attribute) {
  case cudaDevAttrMaxThreadsPerBlock:
    return properties->maxThreadsPerBlock;
  case cudaDevAttrMaxSharedMemoryPerBlock:
    return (int)properties->sharedMemPerBlock;
  case cudaDevAttrWarpSize:
    return properties->warpSize;
  case cudaDevAttrMaxRegistersPerBlock:
    return properties->regsPerBlock;
  case cudaDevAttrMultiProcessorCount:
    return properties->multiProcessorCount;
  case cudaDevAttrL2CacheSize:
    return properties->l2CacheSize;
  case cudaDevAttrMaxThreadsPerMultiProcessor:
    return properties->maxThreadsPerMultiProcessor;
  case cudaDevAttrUnifiedAddressing:
    return properties->unifiedAddressing;
  case cudaDevAttrComputeCapabilityMajor:
    return properties->major;
  case cudaDevAttrComputeCapabilityMinor:
    return properties->minor;
  case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
    return (int)properties->sharedMemPerMultiprocessor;
  case cudaDevAttrMaxSharedMemoryPerBlockOptin:
    return (int)properties->sharedMemPerBlockOptin;
  }
  return -1;
}

cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attribute, int device) {
  cudaDeviceProp properties;
  const cudaError_t error = cudaGetDeviceProperties(&properties, device);
  if (error != cudaSuccess) return error;
  *value = attribute_of(&properties, attribute);
  return *value >= 0 ? cudaSuccess : fail(cudaErrorInvalidValue);
}

cudaError_t cudaDeviceGetPCIBusId(char *id, int length, int device) {
  const cudaError_t error = check_device(device);
  if (error == cudaSuccess) snprintf(id, (size_t)length, "0000:%02x:00.0", (unsigned)device + 1);
  return error;
}

cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest) {
  *least = 0;
  *greatest = -5;
  return cudaSuccess;
}

cudaError_t cudaDeviceCanAccessPeer(int *can, int device, int peer) {
  cudaError_t error = check_device(device);
  if (error == cudaSuccess) error = check_device(peer);
  *can = error == cudaSuccess && device != peer;
  return error;
}

cudaError_t cudaDeviceEnablePeerAccess(int peer, unsigned) {
  Lock lock(global_lock());
  const cudaError_t error = check_device(peer);
  if (error != cudaSuccess) return error;
  if (peer == current_device()) return fail(cudaErrorInvalidDevice);
  if (can_reach(current_device(), peer)) return fail(cudaErrorPeerAccessAlreadyEnabled);
  enabled_peers()->insert({current_device(), peer});
  return cudaSuccess;
}
