/* NCCL as what moves device memory between GPUs, of one process or of many (kernels/comm/mover.h). */
#ifndef RINGGPT_CUDA_NCCL_H
#define RINGGPT_CUDA_NCCL_H

#include <stddef.h>

#include "kernels/base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct Comm Comm;
typedef struct CommMover CommMover;
typedef struct Device Device;

/* Makes the mover of the group `host`, whose ranks each have a CUDA device of their own: for
 * comm_attach_mover. Collective over the group, from the thread that made `device`; the mover is released
 * before the device. `timeout` are the seconds after which a rank gives up waiting for the others to connect;
 * 0: never. STATUS_SYSTEM with NCCL's reason where it cannot connect them. */
Status nccl_mover_create(Comm *host, Device *device, double timeout, CommMover **out, Error *error);

/* text (bytes) = the version that runs, for the log, and what is known against it. */
void nccl_describe(char *text, size_t bytes);

#ifdef __cplusplus
}
#endif

#endif
