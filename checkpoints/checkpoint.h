/* Durable checkpoints: saving the state of a run, finding the newest that is whole, loading it on any grid.
 *
 *   RUN/checkpoints/step_00000100/
 *     model.safetensors                     weights, F32, Hugging Face names and orientation
 *     config.json                           the model as Hugging Face describes it
 *     config.yaml                           the run's resolved configuration
 *     vocab.json, ...                       what the run adds (CheckpointFile): the files of its tokenizer
 *     optimizer-00000-of-00004.safetensors  one a rank: its slices of AdamW's moments m and v, 1-D F32,
 *                                           "PARAMETER/exp_avg@OFFSET" and "PARAMETER/exp_avg_sq@OFFSET":
 *                                           elements [OFFSET, OFFSET + length) of the parameter in memory
 *                                           order, (outputs, inputs) row-major
 *     manifest.json                         the numbers of the run, and size and CRC32 of every other file
 *
 * A save writes into step_00000100.tmp, syncs every file, reads all of it back against the checksums, and
 * then renames the directory: what carries a final name is whole, and an error, on whichever rank, costs that
 * one save and nothing else. A step that is saved again takes the place of the one that is there, which is
 * called step_00000100.old for that moment; a crash then leaves it to be found under that name.
 *
 * The calls marked collective are made by every rank of `world` in the same order; they succeed on all ranks
 * or fail on all, with the message of the first rank that failed. Nothing is printed: what a person should
 * know of although the call succeeds goes to the CheckpointLog of rank 0.
 */
#ifndef RINGGPT_CHECKPOINTS_CHECKPOINT_H
#define RINGGPT_CHECKPOINTS_CHECKPOINT_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include "checkpoints/manifest.h"
#include "kernels/base/status.h"
#include "kernels/base/tensor_table.h"
#include "kernels/comm/comm.h"

/* Where warnings go: one line each, without a line end. `warn` may be NULL. */
typedef struct CheckpointLog {
  void (*warn)(void *context, const char *text);
  void *context;
} CheckpointLog;

/* A checkpoint that was found whole. */
typedef struct Checkpoint {
  char path[PATH_MAX]; /* its directory; empty: there is none */
  CheckpointManifest manifest;
} Checkpoint;

/* Elements [begin, end) of the flat table. */
typedef struct CheckpointRange {
  int64_t begin;
  int64_t end;
} CheckpointRange;

/* A further file of a checkpoint. */
typedef struct CheckpointFile {
  const char *name; /* below 64 characters, of letters, digits and "-_."; none that a checkpoint has anyway */
  const void *data; /* (size) */
  int64_t size;     /* bytes */
} CheckpointFile;

/* What one rank gives to a save. */
typedef struct CheckpointState {
  const TensorTable *table;
  const float *weights;          /* (table->total), the float32 masters; read on rank 0 alone */
  const CheckpointRange *ranges; /* (range_count) whose moments this rank holds, ascending; the ranges of all
                                    ranks together tile [0, table->total) */
  int64_t range_count;
  const float *m;              /* exp_avg of the ranges, one behind the other */
  const float *v;              /* exp_avg_sq, likewise */
  const char *model_config;    /* text of config.json; read on rank 0 alone */
  const char *run_config;      /* text of config.yaml; read on rank 0 alone */
  const CheckpointFile *extra; /* (extra_count) further files; read on rank 0 alone */
  int64_t extra_count;
} CheckpointState;

/* What one rank wants from a load. The ranges of different ranks may be any: equal, disjoint, overlapping. */
typedef struct CheckpointTarget {
  const TensorTable *table;
  float *weights;                /* (table->total) */
  const CheckpointRange *ranges; /* (range_count) whose moments are wanted, ascending and disjoint */
  int64_t range_count;
  float *m; /* exp_avg of the ranges, one behind the other */
  float *v; /* exp_avg_sq, likewise */
} CheckpointTarget;

/* Saves a checkpoint to DIRECTORY/step_<manifest->step> and then removes the oldest ones, so that `keep` (>=
 * 2) stay that are of this step or earlier; those of later steps, which only a run that went back has, are
 * not touched. Nothing is removed before the new one was read back whole, nor anything that would leave fewer
 * than two whole ones. The fields of the manifest that the save fills itself are ignored.
 * Collective; `state` is this rank's own. Fails with STATUS_IO when a file cannot be written, synced or read
 * back, or the space is short: the temporary directory is removed, earlier checkpoints stay, training can go
 * on. STATUS_SYSTEM without memory, STATUS_INTERNAL when the ranges do not tile the table, STATUS_CONFIG when
 * `keep` is too small or a path too long; or as comm. */
Status checkpoint_save(const char *directory, int64_t keep, const CheckpointManifest *manifest,
                       const CheckpointState *state, const CheckpointLog *log, Comm *world, Error *error);

/* Removes from DIRECTORY what an interrupted save or removal left behind: step_*.tmp, and step_*.old beside
 * a successor that verifies. Only the run that writes there may call it; checkpoint_save does so itself. A
 * missing directory is allowed, and what cannot be removed is only a warning. Not collective: rank 0 calls
 * it. */
void checkpoint_clean(const char *directory, const CheckpointLog *log);

/* Finds in DIRECTORY the checkpoint of the highest step that verifies, without changing anything there. Each
 * damaged one on the way is a warning that names it and the reason. Without any checkpoint, also without the
 * directory, it succeeds and found->path is empty. Collective; rank 0 reads. STATUS_DATA when there are
 * checkpoints but none is whole: a run must not start anew over them unasked. */
Status checkpoint_find(const char *directory, const CheckpointLog *log, Comm *world, Checkpoint *found,
                       Error *error);

/* The same for the one checkpoint at `path`: refused by name when it is damaged (STATUS_DATA) or not there
 * (STATUS_NO_INPUT). Collective; rank 0 reads. */
Status checkpoint_open(const char *path, Comm *world, Checkpoint *found, Error *error);

/* Verifies the checkpoint at `path`: the manifest and its own checksum, existence, size and CRC32 of every
 * file, the headers of the safetensors files. Not collective. STATUS_NO_INPUT, STATUS_DATA or STATUS_IO, the
 * message names the file. */
Status checkpoint_verify(const char *path, CheckpointManifest *manifest, Error *error);

/* Verifies one file of the checkpoint in DIRECTORY against the manifest, which is itself verified. Without a
 * manifest, or where it does not list the file, there is nothing to hold it against, and the call succeeds.
 * Not collective. STATUS_DATA, STATUS_NO_INPUT or STATUS_IO, the message names the file. */
Status checkpoint_verify_file(const char *directory, const char *name, Error *error);

/* Loads the weights and this rank's range of moments from a checkpoint that checkpoint_find or
 * checkpoint_open gave, whichever grid wrote it. Collective. STATUS_CONFIG when the tensors are not those of
 * the table (names the tensor and both shapes); STATUS_DATA when slices of the moments are missing, double or
 * overlap, and when a rank finds another checkpoint at the path than rank 0, which alone has verified it, by
 * the checksums of the manifest and of the weights. */
Status checkpoint_load(const Checkpoint *checkpoint, const CheckpointTarget *target, Comm *world,
                       Error *error);

/* Loads weights alone, by name and with conversion from F32, BF16 or F16, from a checkpoint (its model file
 * is verified first), from any Hugging Face directory with a model.safetensors, or from such a file itself.
 * Accepts names without the "transformer." or "model." in front, buffers that older files hold beside the
 * parameters, and an lm_head.weight beside tied weights if it equals the embedding. weights
 * (table->total). Collective. STATUS_NO_INPUT, STATUS_DATA (also where a rank finds other weights than rank
 * 0), STATUS_IO; STATUS_CONFIG as checkpoint_load. */
Status checkpoint_load_weights(const char *path, const TensorTable *table, float *weights, Comm *world,
                               Error *error);

#endif
