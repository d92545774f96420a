/* Loads shared objects from beside the program: see the header. */
#include "kernels/cuda/object.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernels/cuda/plugin.h"

static Status find(CudaObject *object, Error *error) {
  const char *named = getenv(object->variable);
  if (named != NULL && named[0] != '\0') {
    (void)snprintf(object->path, sizeof object->path, "%s", named);
    return STATUS_OK;
  }
  char program[PATH_MAX];
  const ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
  if (length < 0) {
    return fail(error, STATUS_CONFIG, "%s: the program's own folder is not known", object->lacking);
  }
  program[length] = '\0';
  char *slash = strrchr(program, '/');
  if (slash != NULL) *slash = '\0';
  (void)snprintf(object->path, sizeof object->path, "%s/%s", program, object->file);
  return STATUS_OK;
}

Status cuda_object_load(CudaObject *object, void **symbol, Error *error) {
  TRY(find(object, error));
  if (access(object->path, F_OK) != 0) {
    return fail(error, STATUS_CONFIG, "%s: %s is not there; build with the CUDA toolkit", object->lacking,
                object->path);
  }
  void *handle = dlopen(object->path, RTLD_NOW | RTLD_LOCAL);
  if (handle == NULL) return fail(error, STATUS_CONFIG, "%s: %s", object->lacking, dlerror());
  *symbol = dlsym(handle, object->symbol);
  if (*symbol == NULL) return fail(error, STATUS_CONFIG, "%s: %s", object->lacking, dlerror());
  return STATUS_OK;
}

Status cuda_object_check(const CudaObject *object, int version, int wanted, size_t table_bytes,
                         Error *error) {
  if (version == wanted && table_bytes == CUDA_PLUGIN_TABLE_BYTES) return STATUS_OK;
  return fail(error, STATUS_CONFIG, "%s: %s is of another build; run make again", object->lacking,
              object->path);
}
