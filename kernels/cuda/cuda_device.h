/* The CUDA device from inside: what the files of this folder share. Not for other folders. */
#ifndef RINGGPT_CUDA_DEVICE_H
#define RINGGPT_CUDA_DEVICE_H

#include <pthread.h>

#include "kernels/cuda/language.h"
#include "kernels/cuda/plans.h"
#include "kernels/device.h"

typedef __nv_bfloat16 bf16;

/* Pinned host memory through which device_write goes, so that the host need not wait for the copies, and
 * device_read. */
typedef struct CudaStaging {
  unsigned char *memory;
  size_t bytes;
  size_t used;         /* of the part at hand: [0, bytes / 2) or [bytes / 2, bytes) */
  int part;            /* 0 or 1 */
  cudaEvent_t done[2]; /* the copies from each part */
} CudaStaging;

/* Waits of the compute queue for marks of others, between two events each; those that found no room are not
 * counted. */
#define CUDA_WAITS 8192

typedef struct CudaWaits {
  cudaEvent_t begin[CUDA_WAITS]; /* made when first used */
  cudaEvent_t end[CUDA_WAITS];
  int used;
} CudaWaits;

typedef struct CudaDevice {
  Device device; /* first: a Device * of this kind is a CudaDevice * */
  int index;     /* of cudaSetDevice */
  int multiprocessors;
  int64_t block_shared_bytes; /* the most shared memory that a block can have */
  cudaStream_t streams[DEVICE_QUEUES];
  CudaStaging staging;
  cublasLtHandle_t blas;
  void *workspace; /* of cuBLASLt on the compute queue */
  size_t workspace_bytes;
  CudaPlans plans; /* algorithms that cuBLASLt chose */
  void *scratch;   /* of operations on the compute queue, CUDA_SCRATCH_BYTES */
  CudaWaits waits;
  pthread_mutex_t elsewhere_lock;
  Error elsewhere; /* the first failure of a queue in another thread than the maker's, not yet told */
} CudaDevice;

static inline CudaDevice *cuda_device(Device *device) {
  return (CudaDevice *)device;
}

/* The queue on which operations run. */
static inline cudaStream_t cuda_stream(Device *device) {
  return cuda_device(device)->streams[QUEUE_COMPUTE];
}

/* False once an operation of the device has failed: then nothing more is started. */
static inline bool cuda_usable(const Device *device) {
  return device->failure.status == STATUS_OK;
}

/* True for cudaSuccess; otherwise records the failure with `what`, the operation's name. */
bool cuda_ok(Device *device, cudaError_t code, const char *what);

/* Behind every LAUNCH: records a failure to start the kernel of the operation `what`. */
bool cuda_launched(Device *device, const char *what);

/* The scratch memory of a device, taken when it is made: operations cut their work so that this is enough,
 * however many rows they are given. */
#define CUDA_SCRATCH_BYTES ((size_t)16 << 20)

/* Scratch memory of the operation `what` on the compute queue, not zeroed, aligned to 256; valid for what is
 * put into that queue until the next operation asks. NULL when the device has failed, or where more is asked
 * for than there is, which is a failure: a row alone is too long. */
void *cuda_scratch(Device *device, size_t bytes, const char *what);

/* Blocks of a grid whose threads stride over `items` units of work, `per_block` at a time: enough to fill the
 * device, at least 1. */
unsigned cuda_blocks(const Device *device, int64_t items, int64_t per_block);

/* One entry for each file of operations: sets its operations in the table, for elements of T = float or
 * bf16. */
template <typename T> void cuda_activation_fill(Ops *ops);
template <typename T> void cuda_norm_fill(Ops *ops);
template <typename T> void cuda_embedding_fill(Ops *ops);
template <typename T> void cuda_position_fill(Ops *ops);
template <typename T> void cuda_dropout_fill(Ops *ops);
template <typename T> void cuda_loss_fill(Ops *ops);
template <typename T> void cuda_products_fill(Ops *ops);
template <typename T> void cuda_attention_fill(Ops *ops);
/* Operations on floats alone: adamw, sum_of_squares, add_f32. */
void cuda_optimizer_fill(Ops *ops);

#endif
