/* The CUDA device: how it is made and released, how its calls report failures, and what kernels ask of it. */
#include <stdio.h>
#include <stdlib.h>

#include "kernels/cuda/device_layer.h"

/* What NVIDIA recommends for cuBLASLt on the newest of the architectures. */
#define WORKSPACE_BYTES ((size_t)32 << 20)
/* The first architecture with bf16 in its tensor cores. */
#define MAJOR_MIN 8

/* Blocks of a grid at most, per multiprocessor: enough blocks of 128 threads to fill one. */
#define BLOCKS_PER_MULTIPROCESSOR 16

int cuda_enter(const CudaDevice *cuda) {
  int previous = cuda->index;
  (void)cudaGetDevice(&previous);
  if (previous != cuda->index) (void)cudaSetDevice(cuda->index);
  return previous;
}

void cuda_leave(const CudaDevice *cuda, int previous) {
  if (previous != cuda->index) (void)cudaSetDevice(previous);
}

Status cuda_status(const CudaDevice *cuda, cudaError_t code, const char *what, Error *error) {
  if (code == cudaSuccess) return STATUS_OK;
  (void)cudaGetLastError(); /* told here: it is not for the next launch */
  const Status status = code == cudaErrorMemoryAllocation ? STATUS_SYSTEM : STATUS_INTERNAL;
  return fail(error, status, "cuda %d: %s: %s", cuda->index, what, cudaGetErrorString(code));
}

bool cuda_ok(Device *device, cudaError_t code, const char *what) {
  if (code == cudaSuccess) return true;
  Error error = {};
  const Status status = cuda_status(cuda_device(device), code, what, &error);
  device_fail(device, status, "%s", error.text);
  return false;
}

bool cuda_launched(Device *device, const char *what) {
  return cuda_ok(device, cudaGetLastError(), what);
}

unsigned cuda_blocks(const Device *device, int64_t items, int64_t per_block) {
  const int64_t most = (int64_t)((const CudaDevice *)device)->multiprocessors * BLOCKS_PER_MULTIPROCESSOR;
  const int64_t needed = items / per_block + (items % per_block != 0);
  if (needed < 1) return 1;
  return (unsigned)(needed < most ? needed : most);
}

/* ---------------------------------------------------------------- making and releasing */

/* What moves between ranks goes before what is computed: it is short and others wait for it. */
static Status make_streams(CudaDevice *cuda, Error *error) {
  int least = 0;
  int greatest = 0;
  TRY(cuda_status(cuda, cudaDeviceGetStreamPriorityRange(&least, &greatest), "streams", error));
  for (int queue = 0; queue < DEVICE_QUEUES; queue++) {
    const cudaError_t code = cudaStreamCreateWithPriority(&cuda->streams[queue], cudaStreamNonBlocking,
                                                          queue == QUEUE_COMPUTE ? least : greatest);
    TRY(cuda_status(cuda, code, "streams", error));
  }
  return STATUS_OK;
}

static Status make_blas(CudaDevice *cuda, Error *error) {
  const cublasStatus_t code = cublasLtCreate(&cuda->blas);
  if (code != CUBLAS_STATUS_SUCCESS) {
    cuda->blas = NULL;
    return fail(error, STATUS_SYSTEM, "cuda %d: cuBLASLt: %s", cuda->index, cublasLtGetStatusString(code));
  }
  TRY(cuda_take(cuda, WORKSPACE_BYTES, "the workspace of cuBLASLt", &cuda->workspace, error));
  cuda->workspace_bytes = WORKSPACE_BYTES;
  return STATUS_OK;
}

/* Reads what the GPU is, and says it in the summary. */
static Status describe(CudaDevice *cuda, ElementType elements, Error *error) {
  cudaDeviceProp properties;
  TRY(cuda_status(cuda, cudaGetDeviceProperties(&properties, cuda->index), "its properties", error));
  if (properties.major < MAJOR_MIN) {
    return fail(error, STATUS_CONFIG, "cuda %d: %s is of compute capability %d.%d; %d.0 is the least",
                cuda->index, properties.name, properties.major, properties.minor, MAJOR_MIN);
  }
  const size_t version = cublasLtGetVersion();
  cuda->multiprocessors = properties.multiProcessorCount;
  cuda->block_shared_bytes = (int64_t)properties.sharedMemPerBlockOptin;
  (void)snprintf(cuda->device.summary, sizeof cuda->device.summary,
                 "cuda %d, %.64s, sm_%d%d, cuBLASLt %zu.%zu.%zu, %s", cuda->index, properties.name,
                 properties.major, properties.minor, version / 10000, version / 100 % 100, version % 100,
                 elements == ELEMENT_BF16 ? "bf16" : "fp32");
  return STATUS_OK;
}

/* A kernel that does nothing: shows whether the build has code for this GPU. */
static Status try_kernel(const CudaDevice *cuda, Error *error) {
  const float *source = NULL;
  cudaError_t code = cuda_sum(cuda, cuda->streams[QUEUE_COMPUTE], 1, &source, 0, NULL);
  if (code == cudaSuccess) code = cudaStreamSynchronize(cuda->streams[QUEUE_COMPUTE]);
  if (code == cudaSuccess) return STATUS_OK;
  (void)cudaGetLastError(); /* told here */
  return fail(error, STATUS_CONFIG,
              "cuda %d: kernels do not start: %s; make CUDA_ARCH says for which GPUs to build", cuda->index,
              cudaGetErrorString(code));
}

static Status prepare(CudaDevice *cuda, ElementType elements, Error *error) {
  TRY(cuda_status(cuda, cudaSetDevice(cuda->index), "the device", error));
  TRY(describe(cuda, elements, error));
  TRY(make_streams(cuda, error));
  TRY(try_kernel(cuda, error));
  TRY(make_blas(cuda, error));
  TRY(cuda_staging_open(cuda, error));
  return cuda_take(cuda, CUDA_SCRATCH_BYTES, "scratch memory", &cuda->scratch, error);
}

Status cuda_open(int index, const DeviceTable *table, ElementType elements, CudaDevice **out, Error *error) {
  *out = NULL;
  CudaDevice *cuda = (CudaDevice *)calloc(1, sizeof *cuda);
  if (cuda == NULL) return fail(error, STATUS_SYSTEM, "device: the machine has no memory left");
  (void)pthread_mutex_init(&cuda->elsewhere_lock, NULL);
  cuda->index = index;
  cuda->device.table = table;
  cuda->device.threads = 1;
  cuda->device.owner = pthread_self();
  const Status status = prepare(cuda, elements, error);
  if (status != STATUS_OK) {
    cuda_destroy(&cuda->device);
    return status;
  }
  *out = cuda;
  return STATUS_OK;
}

void cuda_destroy(Device *device) {
  CudaDevice *cuda = cuda_device(device);
  const int previous = cuda_enter(cuda);
  for (int queue = 0; queue < DEVICE_QUEUES; queue++) {
    if (cuda->streams[queue] != NULL) (void)cudaStreamSynchronize(cuda->streams[queue]);
  }
  cuda_waits_close(cuda);
  (void)cudaFree(cuda->scratch);
  cuda_staging_close(cuda);
  (void)cudaFree(cuda->workspace);
  if (cuda->blas != NULL) (void)cublasLtDestroy(cuda->blas);
  for (int queue = DEVICE_QUEUES - 1; queue >= 0; queue--) {
    if (cuda->streams[queue] != NULL) (void)cudaStreamDestroy(cuda->streams[queue]);
  }
  (void)cudaGetLastError();
  cuda_leave(cuda, previous);
  (void)pthread_mutex_destroy(&cuda->elsewhere_lock);
  free(cuda);
}
