/* A folder for the files of a part, and shards in it. */
#ifndef RINGGPT_BENCH_SCRATCH_H
#define RINGGPT_BENCH_SCRATCH_H

#include <stdint.h>

#include "kernels/base/status.h"

typedef struct Scratch {
  char path[256]; /* empty: there is none */
} Scratch;

/* Makes a folder in $TMPDIR or /tmp. STATUS_IO. */
Status scratch_create(Scratch *scratch, Error *error);

/* Removes it and all that is in it, if it was made. */
void scratch_remove(const Scratch *scratch);

/* The path of a file in it, valid until the next call with the same buffer. */
const char *scratch_path(const Scratch *scratch, const char *name, char path[384]);

/* Writes a set of compressed shards with `count` made-up tokens below `vocab_size`, at most 65,536, as
 * repetitive as text: train_*.bin.gz. STATUS_IO; STATUS_SYSTEM without memory. */
Status scratch_shards(const Scratch *scratch, int64_t count, int64_t vocab_size, Error *error);

#endif
