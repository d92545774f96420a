/* Reads one batch of one rank, whichever is asked for: what the loader's thread does over and over. */
#ifndef RINGGPT_DATA_BATCH_H
#define RINGGPT_DATA_BATCH_H

#include <stdint.h>

#include "data/dataset.h"
#include "data/loader.h"
#include "kernels/base/status.h"

/* Start with `BatchReader reader = {0};`, end with batch_reader_close. */
typedef struct BatchReader {
  LoaderOptions options; /* without the pattern */
  char *pattern;
  Dataset *dataset;
  int64_t tokens;    /* of the set that are used */
  int64_t samples;   /* per epoch */
  Layout layout;     /* without chunks */
  Balancer balancer; /* of the batches */
  Balance balance;   /* of every batch, where there are no documents */
  int32_t *piece;    /* (local length + 1) the tokens of a run and the one behind it; the caller's */
} BatchReader;

/* Opens the set; `piece` is for the caller to give. Fails as loader_open. */
Status batch_reader_open(const LoaderOptions *options, BatchReader *out, Error *error);

/* Bytes of a batch and of a reader's piece for options; multiples of ARENA_ALIGNMENT, or ARENA_TOO_LARGE. */
size_t batch_bytes(const LoaderOptions *options);
size_t batch_piece_bytes(const LoaderOptions *options);

/* A batch for this reader whose arrays lie in `memory` (batch_bytes), which is the caller's. */
Batch batch_place(const BatchReader *reader, void *memory);

/* Reads batch `index` (0, 1, ...) into one of batch_place. Fails as dataset_read; STATUS_DATA for a sample
 * beyond the last one without shuffling. */
Status batch_read(BatchReader *reader, int64_t index, Batch *batch, Error *error);

void batch_reader_close(BatchReader *reader);

#endif
