/* Whether the files of a checkpoint are what its manifest says. */
#include "checkpoints/verify.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "checkpoints/checkpoint.h"
#include "checkpoints/directory.h"
#include "checkpoints/safetensors.h"
#include "checkpoints/weights.h"
#include "kernels/base/file.h"

#define PART_BYTES ((size_t)1 << 18)

static Status check_crc32(const File *file, const ManifestFile *expected, Error *error) {
  uint32_t crc = 0;
  unsigned char *part = malloc(PART_BYTES);
  if (part == NULL) return fail(error, STATUS_SYSTEM, "%s: no memory left to verify it", file->path);
  /* Only advice: gives up cached pages, so that what the disk holds is read and not what was written. */
  (void)posix_fadvise(file->descriptor, 0, 0, POSIX_FADV_DONTNEED);
  Status status = STATUS_OK;
  for (int64_t at = 0; at < expected->size && status == STATUS_OK;) {
    const int64_t left = expected->size - at;
    const size_t bytes = left < (int64_t)PART_BYTES ? (size_t)left : PART_BYTES;
    status = file_read_exact_at(file, at, part, bytes, error);
    if (status == STATUS_OK) crc = (uint32_t)crc32_z(crc, part, bytes);
    at += (int64_t)bytes;
  }
  free(part);
  if (status == STATUS_OK && crc != expected->crc32) {
    status = fail(error, STATUS_DATA, "%s: damaged: its checksum is %08x, the manifest says %08x", file->path,
                  crc, expected->crc32);
  }
  return status;
}

static Status check_header(const char *path, Error *error) {
  const char *end = strrchr(path, '.');
  if (end == NULL || strcmp(end, ".safetensors") != 0) return STATUS_OK;
  Safetensors tensors = SAFETENSORS_CLOSED;
  TRY(safetensors_open(path, &tensors, error));
  safetensors_close(&tensors);
  return STATUS_OK;
}

Status verify_file(const char *directory, const ManifestFile *expected, bool contents, Error *error) {
  char path[PATH_MAX];
  File file = FILE_CLOSED;
  int64_t size = 0;
  Status status = STATUS_OK;
  TRY(directory_join(directory, expected->name, path, error));
  if (!file_exists(path)) return fail(error, STATUS_DATA, "%s: is missing: the manifest lists it", path);
  TRY(file_open_read(path, &file, error));
  TRY_GOTO(file_size(&file, &size, error), close);
  if (size != expected->size) {
    status = fail(error, STATUS_DATA, "%s: damaged: it has %lld bytes, the manifest says %lld", path,
                  (long long)size, (long long)expected->size);
    goto close;
  }
  if (contents) {
    TRY_GOTO(check_crc32(&file, expected, error), close);
    TRY_GOTO(check_header(path, error), close);
  }
close:
  file_close(&file);
  return status;
}

/* Reads the manifest; without one the directory is no whole checkpoint. */
static Status read_manifest(const char *path, CheckpointManifest *manifest, ManifestFiles *files,
                            Error *error) {
  char name[PATH_MAX];
  if (!file_exists(path)) return fail(error, STATUS_NO_INPUT, "%s: there is no such checkpoint", path);
  TRY(directory_join(path, MANIFEST_NAME, name, error));
  if (!file_exists(name)) {
    return fail(error, STATUS_DATA, "%s: is missing: this is no checkpoint, or one that was never completed",
                name);
  }
  return manifest_read(path, manifest, files, error);
}

static Status check_files(const char *path, const ManifestFiles *files, bool contents, Error *error) {
  bool weights = false;
  for (int64_t i = 0; i < files->count; i++) {
    weights = weights || strcmp(files->files[i].name, WEIGHTS_NAME) == 0;
    TRY(verify_file(path, &files->files[i], contents, error));
  }
  if (!weights) return fail(error, STATUS_DATA, "%s: its manifest lists no " WEIGHTS_NAME, path);
  return STATUS_OK;
}

Status verify_checkpoint(const char *path, bool contents, CheckpointManifest *manifest, Error *error) {
  ManifestFiles files = {0};
  TRY(read_manifest(path, manifest, &files, error));
  const Status status = check_files(path, &files, contents, error);
  free(files.files);
  return status;
}

Status verify_step(const StepDirectory *entry, bool contents, CheckpointManifest *manifest, Error *error) {
  TRY(verify_checkpoint(entry->path, contents, manifest, error));
  if (manifest->step == entry->step) return STATUS_OK;
  return fail(error, STATUS_DATA, "%s: holds step %lld: rename it", entry->path, (long long)manifest->step);
}

Status checkpoint_verify(const char *path, CheckpointManifest *manifest, Error *error) {
  return verify_checkpoint(path, true, manifest, error);
}

Status checkpoint_verify_file(const char *directory, const char *name, Error *error) {
  char path[PATH_MAX];
  CheckpointManifest manifest;
  ManifestFiles files = {0};
  Status status = STATUS_OK;
  TRY(directory_join(directory, MANIFEST_NAME, path, error));
  if (!file_exists(path)) return STATUS_OK;
  TRY(manifest_read(directory, &manifest, &files, error));
  for (int64_t i = 0; i < files.count && status == STATUS_OK; i++) {
    if (strcmp(files.files[i].name, name) == 0) status = verify_file(directory, &files.files[i], true, error);
  }
  free(files.files);
  return status;
}
