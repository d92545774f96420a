/* Gives groups of ranks their mover of CUDA memory over NCCL: loads the shared object that holds it when it
 * is first asked for. The object is the one that the environment variable RINGGPT_NCCL names, or
 * ringgpt-nccl.so in the program's own folder. */
#ifndef RINGGPT_CUDA_NCCL_LOAD_H
#define RINGGPT_CUDA_NCCL_LOAD_H

#include "kernels/comm/comm.h"

/* Lets NCCL move the memory of `device`, a CUDA device, in this group (kernels/comm/mover.h); a group of one
 * rank gets its device alone (comm_use_device). Every rank of the group calls it, each with a GPU of its own.
 * All of them succeed, or all fail with what the first rank that failed said: STATUS_CONFIG without NCCL, a
 * CUDA device or a GPU for each rank; STATUS_SYSTEM or STATUS_IO where the ranks do not find each other. The
 * device must outlive the group. */
Status cuda_nccl_attach(Comm *comm, Device *device, Error *error);

typedef struct NcclVersion {
  char text[32];       /* for the log: "NCCL 2.28.9" */
  const char *warning; /* what is reported against this version; NULL: nothing */
} NcclVersion;

/* Which NCCL it would be. STATUS_CONFIG without one. */
Status cuda_nccl_version(NcclVersion *version, Error *error);

#endif
