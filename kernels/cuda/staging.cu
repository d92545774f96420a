/* Between host and GPU: copies go through pinned memory, which the GPU reads and writes on its own.
 *
 *   | part 0: copies under way | part 1: used | free |
 *
 * What is written is packed into the part at hand and sent from there; a full part is left to its copies, and
 * the other one taken when its own are done. So the host waits only when it is more than a part ahead. */
#include <string.h>

#include "kernels/cuda/device_layer.h"

#define STAGING_BYTES ((size_t)16 << 20)
/* Pieces in a part begin at multiples of this, where copies run best. */
#define PIECE_ALIGNMENT 256

Status cuda_staging_open(CudaDevice *cuda, Error *error) {
  static const char what[] = "16 MiB of pinned host memory";
  CudaStaging *staging = &cuda->staging;
  TRY(cuda_status(cuda, cudaMallocHost((void **)&staging->memory, STAGING_BYTES), what, error));
  staging->bytes = STAGING_BYTES;
  for (int part = 0; part < 2; part++) {
    TRY(cuda_status(cuda, cudaEventCreateWithFlags(&staging->done[part], cudaEventDisableTiming), what,
                    error));
  }
  return STATUS_OK;
}

void cuda_staging_close(CudaDevice *cuda) {
  CudaStaging *staging = &cuda->staging;
  for (int part = 1; part >= 0; part--) {
    if (staging->done[part] != NULL) (void)cudaEventDestroy(staging->done[part]);
  }
  if (staging->memory != NULL) (void)cudaFreeHost(staging->memory);
}

/* Leaves the part at hand to its copies and takes the other. */
static cudaError_t change_part(Device *device) {
  CudaStaging *staging = &cuda_device(device)->staging;
  const cudaError_t code = cudaEventRecord(staging->done[staging->part], cuda_stream(device));
  if (code != cudaSuccess) return code;
  staging->part = 1 - staging->part;
  staging->used = 0;
  return cuda_wait_for_event(device, staging->done[staging->part]);
}

/* Writes as much as the part at hand takes; *written says how much. */
static cudaError_t write_piece(Device *device, char *to, const char *from, size_t bytes, size_t *written) {
  CudaStaging *staging = &cuda_device(device)->staging;
  const size_t half = staging->bytes / 2;
  if (staging->used == half) {
    const cudaError_t code = change_part(device);
    if (code != cudaSuccess) return code;
  }
  const size_t left = half - staging->used;
  const size_t piece = bytes < left ? bytes : left;
  unsigned char *place = staging->memory + (size_t)staging->part * half + staging->used;
  memcpy(place, from, piece);
  staging->used += (piece + PIECE_ALIGNMENT - 1) / PIECE_ALIGNMENT * PIECE_ALIGNMENT;
  *written = piece;
  return cudaMemcpyAsync(to, place, piece, cudaMemcpyHostToDevice, cuda_stream(device));
}

void cuda_write(Device *device, void *memory, const void *host, size_t bytes) {
  CudaDevice *cuda = cuda_device(device);
  const int previous = cuda_enter(cuda);
  size_t written = 0;
  for (size_t at = 0; at < bytes && cuda_usable(device); at += written) {
    const cudaError_t code =
        write_piece(device, (char *)memory + at, (const char *)host + at, bytes - at, &written);
    (void)cuda_ok(device, code, "device_write");
  }
  cuda_leave(cuda, previous);
}

/* The whole staging memory serves: behind the copies of earlier writes, which are done when the queue is. */
static bool read_piece(Device *device, void *to, const void *from, size_t bytes) {
  CudaStaging *staging = &cuda_device(device)->staging;
  cudaError_t code =
      cudaMemcpyAsync(staging->memory, from, bytes, cudaMemcpyDeviceToHost, cuda_stream(device));
  if (code == cudaSuccess) code = cuda_wait_for_queue(device);
  cuda_collect_failures(cuda_device(device));
  if (!cuda_ok(device, code, "device_read, or an operation before it") || !cuda_usable(device)) return false;
  staging->used = 0;
  memcpy(to, staging->memory, bytes);
  return true;
}

void cuda_read(Device *device, void *host, const void *memory, size_t bytes) {
  const CudaDevice *cuda = cuda_device(device);
  const size_t most = cuda->staging.bytes;
  const int previous = cuda_enter(cuda);
  bool good = cuda_usable(device);
  for (size_t at = 0; good && at < bytes; at += most) {
    good = read_piece(device, (char *)host + at, (const char *)memory + at,
                      bytes - at < most ? bytes - at : most);
  }
  cuda_leave(cuda, previous);
}
