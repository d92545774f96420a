/* Memory of the GPU. */
#include <limits.h>

#include "kernels/cuda/device_layer.h"

#define ALIGNMENT 256

Status cuda_take(const CudaDevice *cuda, size_t bytes, const char *what, void **out, Error *error) {
  *out = NULL;
  const cudaError_t code = cudaMalloc(out, bytes > 0 ? bytes : ALIGNMENT);
  if (code != cudaErrorMemoryAllocation) return cuda_status(cuda, code, what, error);
  *out = NULL;
  (void)cudaGetLastError(); /* told here: it is not for the next launch */
  size_t left = 0;
  size_t total = 0;
  (void)cudaMemGetInfo(&left, &total);
  return fail(error, STATUS_SYSTEM,
              "cuda %d: no memory for %s: %zu bytes asked, %zu of %zu bytes free: more ranks, "
              "train.recompute, fewer tokens or a smaller model fit",
              cuda->index, what, bytes, left, total);
}

size_t cuda_left(Device *device) {
  const CudaDevice *cuda = cuda_device(device);
  const int previous = cuda_enter(cuda);
  size_t left = 0;
  size_t total = 0;
  const cudaError_t code = cudaMemGetInfo(&left, &total);
  cuda_leave(cuda, previous);
  return code == cudaSuccess ? left : SIZE_MAX;
}

void *cuda_scratch(Device *device, size_t bytes, const char *what) {
  if (!cuda_usable(device)) return NULL;
  if (bytes <= CUDA_SCRATCH_BYTES) return cuda_device(device)->scratch;
  device_fail(device, STATUS_CONFIG, "%s: rows this long need %zu bytes of scratch memory, there are %zu",
              what, bytes, CUDA_SCRATCH_BYTES);
  return NULL;
}

/* The zeros are there when it returns, for all queues. */
Status cuda_alloc(Device *device, size_t bytes, const char *what, void **out, Error *error) {
  const CudaDevice *cuda = cuda_device(device);
  const int previous = cuda_enter(cuda);
  Status status = cuda_take(cuda, bytes, what, out, error);
  if (status == STATUS_OK) {
    cudaError_t code = cudaMemsetAsync(*out, 0, bytes, cuda_stream(device));
    if (code == cudaSuccess) code = cuda_wait_for_queue(device);
    status = cuda_status(cuda, code, what, error);
    if (status != STATUS_OK) {
      (void)cudaFree(*out);
      *out = NULL;
    }
  }
  cuda_leave(cuda, previous);
  return status;
}

/* What operations still do with it is done first. */
void cuda_free(Device *device, void *memory) {
  if (memory == NULL) return;
  const CudaDevice *cuda = cuda_device(device);
  const int previous = cuda_enter(cuda);
  cudaError_t code = cuda_wait_for_queue(device);
  const cudaError_t freed = cudaFree(memory);
  if (code == cudaSuccess) code = freed;
  (void)cuda_ok(device, code, "release of memory, or an operation before it");
  cuda_leave(cuda, previous);
}

void cuda_zero(Device *device, void *memory, size_t bytes) {
  if (!cuda_usable(device) || bytes == 0) return;
  const CudaDevice *cuda = cuda_device(device);
  const int previous = cuda_enter(cuda);
  (void)cuda_ok(device, cudaMemsetAsync(memory, 0, bytes, cuda_stream(device)), "zeroing memory");
  cuda_leave(cuda, previous);
}

/* One call for rows without holes or with strides that cudaMemcpy2DAsync takes, else one for each row. */
static cudaError_t copy_rows(cudaStream_t stream, char *to, size_t to_stride, const char *from,
                             size_t from_stride, size_t row_bytes, size_t rows) {
  const cudaMemcpyKind kind = cudaMemcpyDeviceToDevice;
  if (rows == 1 || (to_stride == row_bytes && from_stride == row_bytes)) {
    return cudaMemcpyAsync(to, from, rows * row_bytes, kind, stream);
  }
  const bool fits = to_stride >= row_bytes && from_stride >= row_bytes;
  if (fits && to_stride < INT_MAX && from_stride < INT_MAX) {
    return cudaMemcpy2DAsync(to, to_stride, from, from_stride, row_bytes, rows, kind, stream);
  }
  for (size_t i = 0; i < rows; i++) {
    const cudaError_t code =
        cudaMemcpyAsync(to + i * to_stride, from + i * from_stride, row_bytes, kind, stream);
    if (code != cudaSuccess) return code;
  }
  return cudaSuccess;
}

void cuda_copy_rows(Device *device, void *to, size_t to_stride, const void *from, size_t from_stride,
                    size_t row_bytes, int64_t rows) {
  if (!cuda_usable(device) || row_bytes == 0 || rows <= 0) return;
  const CudaDevice *cuda = cuda_device(device);
  const int previous = cuda_enter(cuda);
  const cudaError_t code = copy_rows(cuda_stream(device), (char *)to, to_stride, (const char *)from,
                                     from_stride, row_bytes, (size_t)rows);
  (void)cuda_ok(device, code, "copying rows");
  cuda_leave(cuda, previous);
}
