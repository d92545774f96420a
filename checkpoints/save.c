/* Saving a checkpoint, durably and on all ranks alike. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <time.h>
#include <zlib.h>

#include "checkpoints/agree.h"
#include "checkpoints/checkpoint.h"
#include "checkpoints/directory.h"
#include "checkpoints/moments.h"
#include "checkpoints/retention.h"
#include "checkpoints/verify.h"
#include "checkpoints/weights.h"
#include "kernels/base/file.h"
#include "kernels/base/memory.h"

#define MEBIBYTE 1048576.0

/* Files that rank 0 writes besides its moments and the extra ones: weights, two configurations. */
#define OWN_FILES 3

/* One save under way, as one rank sees it. */
typedef struct Save {
  const char *directory;
  const CheckpointManifest *manifest;
  const CheckpointState *state;
  const CheckpointLog *log;
  Comm *world;
  char temporary[PATH_MAX];
  char final[PATH_MAX];
  char old[PATH_MAX];
  ManifestFile *files;  /* (shared + ranks): those that rank 0 writes, then one a rank */
  int64_t shared;       /* OWN_FILES and the extra ones; counted on rank 0 alone */
  ManifestFile moments; /* this rank's */
} Save;

/* ---------------------------------------------------------------- before writing */

static Status check_space(const Save *save, Error *error) {
  const TensorTable *table = save->state->table;
  struct statvfs info;
  if (statvfs(save->directory, &info) != 0) {
    return fail_errno(error, STATUS_IO, errno, "%s: its free space cannot be asked", save->directory);
  }
  /* Weights and two moments in float; a kibibyte of headers for each tensor and each rank's share of one. */
  const double headers = 1024.0 * (double)(4 * table->size + 8 * (int64_t)save->world->size) + MEBIBYTE;
  double needed = 3.0 * (double)sizeof(float) * (double)table->total + headers;
  for (int64_t i = 0; i < save->state->extra_count; i++) needed += (double)save->state->extra[i].size;
  const double free_bytes = (double)info.f_bavail * (double)info.f_frsize;
  if (free_bytes < needed) {
    return fail(error, STATUS_IO,
                "%s: a checkpoint needs %.1f MiB, the disk has %.1f MiB left: make room or choose another "
                "run.dir",
                save->directory, needed / MEBIBYTE, free_bytes / MEBIBYTE);
  }
  return STATUS_OK;
}

/* What each rank does before the first collective call; rank 0 makes the temporary directory. */
static Status prepare(Save *save, Error *error) {
  const size_t ranks = (size_t)save->world->size;
  const int64_t step = save->manifest->step;
  TRY(directory_step(save->directory, step, STEP_TEMPORARY, save->temporary, error));
  TRY(directory_step(save->directory, step, STEP_FINAL, save->final, error));
  TRY(directory_step(save->directory, step, STEP_OLD, save->old, error));
  save->shared = OWN_FILES + (save->world->rank == 0 ? save->state->extra_count : 0);
  TRY(memory_alloc((size_t)save->shared + ranks, sizeof *save->files, "files of a checkpoint",
                   (void **)&save->files, error));
  if (save->world->rank != 0) return STATUS_OK;
  if (!file_exists(save->directory)) {
    TRY(file_make_directory(save->directory, error));
    TRY(file_sync_parent(save->directory, error));
  }
  checkpoint_clean(save->directory, save->log);
  TRY(check_space(save, error));
  TRY(directory_remove(save->temporary, error)); /* where the cleaning could not, this says why */
  return file_make_directory(save->temporary, error);
}

static int compare_ranges(const void *left, const void *right) {
  const CheckpointRange *a = left;
  const CheckpointRange *b = right;
  if (a->begin != b->begin) return a->begin < b->begin ? -1 : 1;
  return (a->end > b->end) - (a->end < b->end);
}

/* Whether ranges in any order hold every element up to `total` once. */
static Status check_tiling(CheckpointRange *ranges, int64_t count, int64_t total, Error *error) {
  int64_t end = 0;
  qsort(ranges, (size_t)count, sizeof *ranges, compare_ranges);
  for (int64_t i = 0; i < count; i++) {
    if (ranges[i].begin != end || ranges[i].end < end) {
      return fail(error, STATUS_INTERNAL, "a range of moments begins at element %lld, not at %lld",
                  (long long)ranges[i].begin, (long long)end);
    }
    end = ranges[i].end;
  }
  if (end == total) return STATUS_OK;
  return fail(error, STATUS_INTERNAL, "the moments of all ranks end at element %lld, not at %lld",
              (long long)end, (long long)total);
}

/* Every rank sees the ranges of all, so that all come to the same result. */
static Status check_ranges(Save *save, Error *error) {
  const CheckpointState *state = save->state;
  Comm *world = save->world;
  const int64_t total = state->table->total;
  int64_t most = state->range_count;
  void *memory[2] = {NULL};
  Status status = STATUS_OK;
  TRY(comm_all_reduce(world, COMM_I64, COMM_MAX, &most, 1, error));
  const size_t row = (size_t)most * sizeof(CheckpointRange);
  TRY_GOTO(memory_alloc((size_t)most, sizeof(CheckpointRange), "ranges of moments", &memory[0], error), done);
  TRY_GOTO(memory_alloc((size_t)world->size, row, "ranges of moments", &memory[1], error), done);
  CheckpointRange *own = memory[0];
  for (int64_t i = 0; i < most; i++) {
    own[i] = i < state->range_count ? state->ranges[i] : (CheckpointRange){total, total};
  }
  TRY_GOTO(comm_all_gather(world, own, memory[1], row, error), done);
  status = check_tiling(memory[1], most * world->size, total, error);
done:
  free(memory[1]);
  free(memory[0]);
  return status;
}

/* ---------------------------------------------------------------- writing */

static Status write_whole(const Save *save, const CheckpointFile *content, ManifestFile *out, Error *error) {
  char path[PATH_MAX];
  File file = FILE_CLOSED;
  Status status = STATUS_OK;
  const size_t bytes = (size_t)content->size;
  TRY(directory_join(save->temporary, content->name, path, error));
  TRY(file_create(path, &file, error));
  TRY_GOTO(file_write_all(&file, content->data, bytes, error), close);
  TRY_GOTO(file_sync_close(&file, error), close);
  (void)snprintf(out->name, sizeof out->name, "%s", content->name);
  out->size = content->size;
  out->crc32 = (uint32_t)crc32_z(0, content->data, bytes);
close:
  file_close(&file);
  return status;
}

static Status write_text(const Save *save, const char *name, const char *text, ManifestFile *out,
                         Error *error) {
  const CheckpointFile content = {.name = name, .data = text, .size = (int64_t)strlen(text)};
  return write_whole(save, &content, out, error);
}

static Status write_files(Save *save, Error *error) {
  const CheckpointState *state = save->state;
  char path[PATH_MAX];
  TRY(moments_write(save->temporary, save->world->rank, save->world->size, state, &save->moments, error));
  if (save->world->rank != 0) return STATUS_OK;
  TRY(directory_join(save->temporary, WEIGHTS_NAME, path, error));
  TRY(weights_write(path, state->table, state->weights, &save->files[0], error));
  TRY(write_text(save, "config.json", state->model_config, &save->files[1], error));
  TRY(write_text(save, "config.yaml", state->run_config, &save->files[2], error));
  for (int64_t i = 0; i < state->extra_count; i++) {
    TRY(write_whole(save, &state->extra[i], &save->files[OWN_FILES + i], error));
  }
  return STATUS_OK;
}

/* ---------------------------------------------------------------- making it count */

/* Takes away one of the final and the old directory where both are there: the old one if the final one is
 * whole, otherwise the final one, because the old one may be what the run lives on. */
static Status make_way(const Save *save, Error *error) {
  if (!file_exists(save->final) || !file_exists(save->old)) return STATUS_OK;
  StepDirectory entry = {.step = save->manifest->step, .kind = STEP_FINAL};
  CheckpointManifest manifest;
  Error reason = {0};
  TRY(directory_copy(save->final, entry.path, error));
  const Status status = verify_step(&entry, true, &manifest, &reason);
  if (status == STATUS_SYSTEM) return fail(error, status, "%s", reason.text);
  return directory_remove(status == STATUS_OK ? save->old : save->final, error);
}

/* Gives the temporary directory its final name. One that has this name already steps aside under a name that
 * checkpoint_find knows too, so that a whole checkpoint of this step exists at every moment. */
static Status publish(const Save *save, Error *error) {
  TRY(make_way(save, error));
  const bool replaces = file_exists(save->final);
  if (replaces) TRY(file_rename(save->final, save->old, error));
  const Status status = file_rename(save->temporary, save->final, error);
  if (status != STATUS_OK) {
    Error ignored = {0};
    if (replaces) (void)file_rename(save->old, save->final, &ignored);
    return status;
  }
  return file_sync_directory(save->directory, error);
}

/* Reads everything back from the disk, which may refuse or return something else. */
static Status read_back(const Save *save, Error *error) {
  CheckpointManifest manifest;
  Error reason = {0};
  const Status status = checkpoint_verify(save->temporary, &manifest, &reason);
  if (status == STATUS_OK) return STATUS_OK;
  return fail(error, status == STATUS_SYSTEM ? status : STATUS_IO, "what was written does not read back: %s",
              reason.text);
}

/* Rank 0, after every rank has written its files. */
static Status commit(const Save *save, Error *error) {
  const TensorTable *table = save->state->table;
  const ManifestFiles files = {.files = save->files, .count = save->shared + save->world->size};
  CheckpointManifest manifest = *save->manifest;
  manifest.time = (int64_t)time(NULL);
  manifest.parameters = table->total;
  manifest.tensors = table->size;
  manifest.model_crc32 = manifest_model_crc32(table);
  TRY(file_sync_directory(save->temporary, error));
  TRY(manifest_write(save->temporary, &manifest, &files, error));
  TRY(file_sync_directory(save->temporary, error));
  TRY(read_back(save, error));
  return publish(save, error);
}

static Status save_collectively(Save *save, Error *error) {
  Comm *world = save->world;
  TRY(agree(world, prepare(save, error), error));
  TRY(check_ranges(save, error));
  TRY(agree(world, write_files(save, error), error));
  TRY(comm_all_gather(world, &save->moments, save->files + save->shared, sizeof save->moments, error));
  return agree(world, world->rank == 0 ? commit(save, error) : STATUS_OK, error);
}

static void clean_up(const Save *save, const char *path) {
  Error error = {0};
  if (directory_remove(path, &error) != STATUS_OK) warn(save->log, "%s", error.text);
}

Status checkpoint_save(const char *directory, int64_t keep, const CheckpointManifest *manifest,
                       const CheckpointState *state, const CheckpointLog *log, Comm *world, Error *error) {
  Save save = {.directory = directory, .manifest = manifest, .state = state, .log = log, .world = world};
  if (keep < 2) {
    return fail(error, STATUS_CONFIG, "checkpoint.keep is %lld: at least 2 checkpoints must stay",
                (long long)keep);
  }
  const Status status = save_collectively(&save, error);
  if (world->rank == 0 && status == STATUS_OK) {
    clean_up(&save, save.old);
    retention_apply(directory, keep, manifest->step, log);
  } else if (world->rank == 0 && save.temporary[0] != '\0') {
    clean_up(&save, save.temporary);
  }
  free(save.files);
  return status;
}
