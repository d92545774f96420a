/* Whether the files of a checkpoint are what its manifest says. */
#ifndef RINGGPT_CHECKPOINTS_VERIFY_H
#define RINGGPT_CHECKPOINTS_VERIFY_H

#include <stdbool.h>

#include "checkpoints/directory.h"
#include "checkpoints/manifest.h"
#include "kernels/base/status.h"

/* Checks that one file of a checkpoint exists and has its size; with `contents` also its checksum and, of a
 * safetensors file, the header. The contents come from the disk where the system can be asked for that.
 * STATUS_DATA, STATUS_IO; STATUS_SYSTEM without memory. */
Status verify_file(const char *directory, const ManifestFile *file, bool contents, Error *error);

/* Checks a checkpoint: its manifest and every file, with `contents` or without. STATUS_NO_INPUT when there is
 * no such directory, otherwise as verify_file. */
Status verify_checkpoint(const char *path, bool contents, CheckpointManifest *manifest, Error *error);

/* The same for one of a run's list, which must also hold the step that its name tells. */
Status verify_step(const StepDirectory *entry, bool contents, CheckpointManifest *manifest, Error *error);

#endif
