/* The file of weights: a table's flat array written to safetensors and read from it, by name. */
#ifndef RINGGPT_CHECKPOINTS_WEIGHTS_H
#define RINGGPT_CHECKPOINTS_WEIGHTS_H

#include "checkpoints/manifest.h"
#include "kernels/base/status.h"
#include "kernels/base/tensor_table.h"

#define WEIGHTS_NAME "model.safetensors"

/* Writes weights (table->total) as F32 to `path`, entries marked `transposed` as (inputs, outputs), syncs the
 * file, and stores its size and checksum in *file. STATUS_IO; STATUS_SYSTEM without memory. */
Status weights_write(const char *path, const TensorTable *table, const float *weights, ManifestFile *file,
                     Error *error);

/* Reads every tensor of the table from `path` into weights (table->total), by the rules of
 * checkpoint_load_weights. */
Status weights_read(const char *path, const TensorTable *table, float *weights, Error *error);

#endif
