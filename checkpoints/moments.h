/* The files of AdamW's moments: slices per parameter, written by one grid and read by any. */
#ifndef RINGGPT_CHECKPOINTS_MOMENTS_H
#define RINGGPT_CHECKPOINTS_MOMENTS_H

#include "checkpoints/checkpoint.h"
#include "checkpoints/manifest.h"
#include "kernels/base/status.h"

/* Writes the moments of rank `rank` of `ranks` into `directory`, syncs the file, and stores its name, size
 * and checksum in *file. STATUS_IO; STATUS_SYSTEM without memory. */
Status moments_write(const char *directory, int rank, int ranks, const CheckpointState *state,
                     ManifestFile *file, Error *error);

/* Reads the target's range of moments from whichever of `files` in `directory` hold it, and checks that the
 * slices of all files together hold every element of the table once. STATUS_DATA, STATUS_CONFIG, STATUS_IO,
 * STATUS_SYSTEM. */
Status moments_read(const char *directory, const ManifestFiles *files, const CheckpointTarget *target,
                    Error *error);

#endif
