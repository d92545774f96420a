/* Finding a checkpoint that is whole, and loading it on any grid. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <zlib.h>

#include "checkpoints/agree.h"
#include "checkpoints/checkpoint.h"
#include "checkpoints/directory.h"
#include "checkpoints/moments.h"
#include "checkpoints/retention.h"
#include "checkpoints/verify.h"
#include "checkpoints/weights.h"
#include "kernels/base/file.h"

/* ---------------------------------------------------------------- finding */

/* The newest of the list that verifies; found->path stays empty without one. */
static Status find_newest(const StepDirectory *list, int64_t count, const CheckpointLog *log,
                          Checkpoint *found, int64_t *damaged, Error *error) {
  *damaged = 0;
  for (int64_t i = count - 1; i >= 0; i--) {
    if (list[i].kind == STEP_TEMPORARY) continue;
    Error reason = {0};
    const Status status = verify_step(&list[i], true, &found->manifest, &reason);
    if (status == STATUS_OK) {
      memcpy(found->path, list[i].path, sizeof found->path);
      return STATUS_OK;
    }
    if (status == STATUS_SYSTEM) return fail(error, status, "%s", reason.text);
    warn(log, "%s: is damaged and left out: %s", list[i].path, reason.text);
    (*damaged)++;
  }
  found->manifest = (CheckpointManifest){0};
  return STATUS_OK;
}

static Status find_locally(const char *directory, const CheckpointLog *log, Checkpoint *found, Error *error) {
  StepDirectory *list = NULL;
  int64_t count = 0;
  int64_t damaged = 0;
  TRY(directory_list(directory, &list, &count, error));
  Status status = find_newest(list, count, log, found, &damaged, error);
  free(list);
  if (status == STATUS_OK && found->path[0] == '\0' && damaged > 0) {
    status = fail(error, STATUS_DATA,
                  "%s: none of its %lld checkpoints is whole: move them away to start anew, or name another "
                  "one by checkpoint.resume",
                  directory, (long long)damaged);
  }
  return status;
}

/* Rank 0's result for all. */
static Status share(Comm *world, Status local, Checkpoint *found, Error *error) {
  TRY(agree(world, local, error));
  return comm_broadcast(world, 0, found, sizeof *found, error);
}

Status checkpoint_find(const char *directory, const CheckpointLog *log, Comm *world, Checkpoint *found,
                       Error *error) {
  memset(found, 0, sizeof *found);
  Status status = STATUS_OK;
  if (world->rank == 0) status = find_locally(directory, log, found, error);
  return share(world, status, found, error);
}

static Status open_locally(const char *path, Checkpoint *found, Error *error) {
  TRY(checkpoint_verify(path, &found->manifest, error));
  return directory_copy(path, found->path, error);
}

Status checkpoint_open(const char *path, Comm *world, Checkpoint *found, Error *error) {
  memset(found, 0, sizeof *found);
  Status status = STATUS_OK;
  if (world->rank == 0) status = open_locally(path, found, error);
  return share(world, status, found, error);
}

/* ---------------------------------------------------------------- loading */

/* Rank 0 alone has verified the checkpoint, and each rank reads the path on its own host: what lies there
 * must be the same one. */
static Status load_locally(const Checkpoint *checkpoint, const CheckpointTarget *target, Error *error) {
  const char *path = checkpoint->path;
  char weights[PATH_MAX];
  CheckpointManifest manifest;
  ManifestFiles files = {0};
  Status status = STATUS_OK;
  TRY(manifest_read(path, &manifest, &files, error));
  if (manifest.crc32 != checkpoint->manifest.crc32) {
    status = fail(error, STATUS_DATA,
                  "%s: is not the checkpoint that rank 0 sees there: run.dir must be the same directory on "
                  "every host",
                  path);
    goto release;
  }
  TRY_GOTO(directory_join(path, WEIGHTS_NAME, weights, error), release);
  TRY_GOTO(weights_read(weights, target->table, target->weights, error), release);
  status = moments_read(path, &files, target, error);
release:
  free(files.files);
  return status;
}

/* Each rank has read the weights at `path` on its own host: whether all found what rank 0 found. */
static Status compare_weights(const char *path, const TensorTable *table, const float *weights, Comm *world,
                              Error *error) {
  const uint32_t own =
      (uint32_t)crc32_z(0, (const unsigned char *)weights, (size_t)table->total * sizeof *weights);
  uint32_t first = own;
  TRY(comm_broadcast(world, 0, &first, sizeof first, error));
  Status status = STATUS_OK;
  if (own != first) {
    status = fail(error, STATUS_DATA,
                  "%s: holds other weights than rank 0 sees there: it must be the same on every host", path);
  }
  return agree(world, status, error);
}

Status checkpoint_load(const Checkpoint *checkpoint, const CheckpointTarget *target, Comm *world,
                       Error *error) {
  TRY(agree(world, load_locally(checkpoint, target, error), error));
  return compare_weights(checkpoint->path, target->table, target->weights, world, error);
}

/* ---------------------------------------------------------------- weights alone */

/* The file of weights that `path` means. */
static Status weights_path(const char *path, char file[PATH_MAX], Error *error) {
  char index[PATH_MAX];
  struct stat info;
  if (stat(path, &info) != 0) {
    return fail_errno(error, STATUS_NO_INPUT, errno, "%s: cannot be opened", path);
  }
  if (!S_ISDIR(info.st_mode)) return directory_copy(path, file, error);
  TRY(directory_join(path, WEIGHTS_NAME, file, error));
  TRY(directory_join(path, WEIGHTS_NAME ".index.json", index, error));
  if (!file_exists(file) && file_exists(index)) {
    return fail(error, STATUS_NO_INPUT,
                "%s: the model is split over several files; only one file, " WEIGHTS_NAME ", can be read",
                path);
  }
  return STATUS_OK;
}

/* Rank 0 alone. The model file of a checkpoint is verified; the optimizer's files, which people remove to
 * save space, are not looked at. */
static Status choose_weights(const char *path, char file[PATH_MAX], Error *error) {
  TRY(weights_path(path, file, error));
  if (strcmp(path, file) == 0) return STATUS_OK;
  return checkpoint_verify_file(path, WEIGHTS_NAME, error);
}

Status checkpoint_load_weights(const char *path, const TensorTable *table, float *weights, Comm *world,
                               Error *error) {
  char file[PATH_MAX] = "";
  TRY(agree(world, world->rank == 0 ? choose_weights(path, file, error) : STATUS_OK, error));
  TRY(comm_broadcast(world, 0, file, sizeof file, error));
  TRY(agree(world, weights_read(file, table, weights, error), error));
  return compare_weights(file, table, weights, world, error);
}
