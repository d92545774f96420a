/* The seam between the program and the shared object ringgpt-nccl.so, which holds the mover of device memory
 * over NCCL (kernels/comm/mover.h): the program loads it when a run asks for that transport. */
#ifndef RINGGPT_CUDA_NCCL_PLUGIN_H
#define RINGGPT_CUDA_NCCL_PLUGIN_H

#include <stdbool.h>
#include <stddef.h>

#include "kernels/cuda/plugin.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Counted up with every change of this table, of CommMoverTable or of what is in CudaDevice. */
#define NCCL_PLUGIN_VERSION 1

/* What ranks need to find each other: an id for each queue that moves memory (none for QUEUE_COMPUTE). */
enum { NCCL_ID_BYTES = 128 };
typedef struct NcclIds {
  char bytes[DEVICE_QUEUES][NCCL_ID_BYTES];
} NcclIds;

struct CommMover;

typedef struct NcclPlugin {
  int version;        /* NCCL_PLUGIN_VERSION of the build */
  size_t table_bytes; /* CUDA_PLUGIN_TABLE_BYTES, likewise */
  /* NCCL's own number of its version: 22809 for 2.28.9. */
  Status (*library_version)(int *version, Error *error);
  /* New ids, of one rank for all ranks of a group. */
  Status (*make_ids)(NcclIds *ids, Error *error);
  /* Begins to make the mover of rank `rank` of `size` > 1 for the memory of a CUDA device, which must outlive
   * it. It belongs to the thread that made the device. Waits for nobody. */
  Status (*create)(Device *device, int rank, int size, const NcclIds *ids, struct CommMover **out,
                   Error *error);
  /* Takes the making further, without waiting; *done: the mover can be used. To be called again and again by
   * every rank, until all of them are done or one fails. */
  Status (*advance)(struct CommMover *mover, bool *done, Error *error);
} NcclPlugin;

/* The one symbol of the shared object: NCCL_PLUGIN_SYMBOL. */
const NcclPlugin *ringgpt_nccl_plugin(void);
#define NCCL_PLUGIN_SYMBOL "ringgpt_nccl_plugin"

#ifdef __cplusplus
}
#endif

#endif
