/* Shared objects beside the program, which hold what needs the CUDA toolkit's libraries: found and loaded
 * when they are first asked for. For load.c and nccl_load.c alone. */
#ifndef RINGGPT_CUDA_OBJECT_H
#define RINGGPT_CUDA_OBJECT_H

#include <limits.h>
#include <stddef.h>

#include "kernels/base/status.h"

typedef struct CudaObject {
  const char *variable; /* of the environment: names another path */
  const char *file;     /* in the program's own folder */
  const char *symbol;   /* the function that gives its table */
  const char *lacking;  /* how a message on its absence begins: "no CUDA device" */
  char path[PATH_MAX + 64];
} CudaObject;

/* Loads the object, which stays to the end of the program: what it gives out holds addresses of its code.
 * Sets `path`, and *symbol to the function's address. STATUS_CONFIG, with the reason, where that cannot be.
 */
Status cuda_object_load(CudaObject *object, void **symbol, Error *error);

/* STATUS_CONFIG where the object's table is of another `version` than `wanted`, or knows the tables that both
 * sides share in another size. */
Status cuda_object_check(const CudaObject *object, int version, int wanted, size_t table_bytes, Error *error);

#endif
