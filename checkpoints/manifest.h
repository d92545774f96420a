/* The manifest of a checkpoint: the numbers of the run, and size and checksum of every file beside it. It is
 * written last, so that a directory with a whole manifest is a whole checkpoint.
 *
 * manifest.json, one JSON object:
 *   format, version    "ringgpt checkpoint", 1
 *   time               "2025-01-31T12:00:00Z"
 *   step, tokens, skipped_steps, skipped_in_a_row
 *   topology           {ring, data, transport, threads}
 *   model              {parameters, tensors, crc32}
 *   files              [{name, size, crc32}, ...]
 *   crc32              of all bytes of the file before the comma in front of this last member
 * Every crc32 is zlib's, as eight hexadecimal digits.
 */
#ifndef RINGGPT_CHECKPOINTS_MANIFEST_H
#define RINGGPT_CHECKPOINTS_MANIFEST_H

#include <stdint.h>

#include "kernels/base/status.h"
#include "kernels/base/tensor_table.h"

#define MANIFEST_NAME "manifest.json"

/* The numbers that a run needs to go on exactly where it was. */
typedef struct CheckpointManifest {
  int64_t step;             /* steps done, skipped ones included */
  int64_t tokens;           /* the data cursor: tokens that all ranks together have taken since the start */
  int64_t skipped_steps;    /* steps that changed nothing because their loss or norm was not finite */
  int64_t skipped_in_a_row; /* the last so many steps were skipped */
  int64_t ring;             /* topology: ranks in a ring */
  int64_t data;             /* rings side by side */
  int64_t threads;          /* compute threads of a rank */
  char transport[16];       /* "local", ... */

  /* Filled by the save. */
  int64_t time;         /* seconds since 1970, UTC */
  int64_t parameters;   /* elements of all tensors */
  int64_t tensors;      /* how many there are */
  uint32_t model_crc32; /* of all names and shapes: manifest_model_crc32 */

  uint32_t crc32; /* the last member of the file, which tells checkpoints apart: filled by manifest_read */
} CheckpointManifest;

typedef struct ManifestFile {
  char name[64]; /* in the checkpoint's directory */
  int64_t size;  /* bytes */
  uint32_t crc32;
} ManifestFile;

typedef struct ManifestFiles {
  ManifestFile *files; /* (count), owned by whoever holds the struct: free() */
  int64_t count;
} ManifestFiles;

/* Checksum over the names and shapes of a table: equal for two models whose weights fit each other. */
uint32_t manifest_model_crc32(const TensorTable *table);

/* Writes DIRECTORY/manifest.json and syncs it. STATUS_IO; STATUS_SYSTEM without memory. */
Status manifest_write(const char *directory, const CheckpointManifest *manifest, const ManifestFiles *files,
                      Error *error);

/* Reads DIRECTORY/manifest.json and checks it against its own checksum. STATUS_NO_INPUT when it is not there,
 * STATUS_DATA when it is damaged or of another format or version. On success the caller frees files->files.
 */
Status manifest_read(const char *directory, CheckpointManifest *manifest, ManifestFiles *files, Error *error);

#endif
