/* Finds the CUDA device: see the header. */
#include "kernels/cuda/load.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernels/cuda/plugin.h"

/* The path of the shared object. */
static Status object_path(char *path, size_t bytes, Error *error) {
  const char *named = getenv("RINGGPT_CUDA");
  if (named != NULL && named[0] != '\0') {
    (void)snprintf(path, bytes, "%s", named);
    return STATUS_OK;
  }
  char program[PATH_MAX];
  const ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
  if (length < 0) return fail(error, STATUS_CONFIG, "no CUDA device: the program's own folder is not known");
  program[length] = '\0';
  char *slash = strrchr(program, '/');
  if (slash != NULL) *slash = '\0';
  (void)snprintf(path, bytes, "%s/ringgpt-cuda.so", program);
  return STATUS_OK;
}

/* The object stays loaded to the end of the program: devices hold addresses of its code. */
static Status load(const CudaPlugin **out, Error *error) {
  char path[PATH_MAX + 32];
  TRY(object_path(path, sizeof path, error));
  if (access(path, F_OK) != 0) {
    return fail(error, STATUS_CONFIG, "no CUDA device: %s is not there; build with the CUDA toolkit", path);
  }
  void *object = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (object == NULL) return fail(error, STATUS_CONFIG, "no CUDA device: %s", dlerror());
  const CudaPlugin *(*plugin)(void) = NULL;
  *(void **)&plugin = dlsym(object, CUDA_PLUGIN_SYMBOL);
  if (plugin == NULL) return fail(error, STATUS_CONFIG, "no CUDA device: %s", dlerror());
  *out = plugin();
  if ((*out)->version != CUDA_PLUGIN_VERSION || (*out)->device_bytes != sizeof(Device)) {
    return fail(error, STATUS_CONFIG, "no CUDA device: %s is of another build; run make again", path);
  }
  return STATUS_OK;
}

Status cuda_device_count(int *devices, Error *error) {
  const CudaPlugin *plugin = NULL;
  *devices = 0;
  TRY(load(&plugin, error));
  return plugin->count(devices, error);
}

Status cuda_device_create(int index, ElementType elements, Device **out, Error *error) {
  const CudaPlugin *plugin = NULL;
  *out = NULL;
  TRY(load(&plugin, error));
  return plugin->create(index, elements, out, error);
}
