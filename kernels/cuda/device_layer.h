/* The device layer from inside: what device.cu, memory.cu, staging.cu and queues.cu share. Not for files of
 * operations. */
#ifndef RINGGPT_CUDA_DEVICE_LAYER_H
#define RINGGPT_CUDA_DEVICE_LAYER_H

#include "kernels/cuda/cuda_device.h"

/* Makes GPU `index`, which is there, ready and the current one of this thread; all but the operations. */
Status cuda_open(int index, const DeviceTable *table, ElementType elements, CudaDevice **out, Error *error);

/* Releases what a device has, however far its making came, and the device. */
void cuda_destroy(Device *device);

/* Makes the device's GPU the current one of this thread, and the one before current again. */
int cuda_enter(const CudaDevice *cuda);
void cuda_leave(const CudaDevice *cuda, int previous);

/* STATUS_OK for cudaSuccess; otherwise fails with "cuda INDEX: what: reason". */
Status cuda_status(const CudaDevice *cuda, cudaError_t code, const char *what, Error *error);

/* Memory of the GPU, not zeroed, aligned to 256; a size of 0 gives a valid block. */
Status cuda_take(const CudaDevice *cuda, size_t bytes, const char *what, void **out, Error *error);

/* Waits for the compute queue, and for a mark; with the poll hook of the device by looking now and then
 * instead of sleeping in the driver: what is waited for may depend on a rank that fails meanwhile, of which
 * only the hook hears. From the maker's thread. */
cudaError_t cuda_wait_for_queue(Device *device);
cudaError_t cuda_wait_for_event(Device *device, cudaEvent_t event);

/* Pinned memory for device_write and device_read, and its release. */
Status cuda_staging_open(CudaDevice *cuda, Error *error);
void cuda_staging_close(CudaDevice *cuda);

/* A wait of the compute queue for a mark, whose time is taken; what such waits took since the last call; and
 * the release of the events. From the maker's thread. */
cudaError_t cuda_timed_wait(CudaDevice *cuda, cudaEvent_t mark);
double cuda_waited(Device *device);
void cuda_waits_close(CudaDevice *cuda);

/* Tells the device of failures that its queues had in other threads. From the maker's thread. */
void cuda_collect_failures(CudaDevice *cuda);

/* Puts the sum of DeviceQueues.sum into a stream. */
cudaError_t cuda_sum(const CudaDevice *cuda, cudaStream_t stream, int count, const float *const *sources,
                     int64_t elements, float *to);

/* The entries of DeviceTable, and its queues. */
Status cuda_alloc(Device *device, size_t bytes, const char *what, void **out, Error *error);
void cuda_free(Device *device, void *memory);
void cuda_zero(Device *device, void *memory, size_t bytes);
void cuda_write(Device *device, void *memory, const void *host, size_t bytes);
void cuda_read(Device *device, void *host, const void *memory, size_t bytes);
void cuda_copy_rows(Device *device, void *to, size_t to_stride, const void *from, size_t from_stride,
                    size_t row_bytes, int64_t rows);
size_t cuda_left(Device *device);
extern const DeviceQueues cuda_queues;

#endif
