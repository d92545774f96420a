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
  int32_t *piece;    /* (local length + 1) the tokens of a run and the one behind it */
} BatchReader;

/* Opens the set. Fails as loader_open. */
Status batch_reader_open(const LoaderOptions *options, BatchReader *out, Error *error);

/* Allocates the arrays of a batch for this reader; batch_free releases them. STATUS_SYSTEM. */
Status batch_alloc(const BatchReader *reader, Batch *out, Error *error);

/* Bytes of a batch and of a reader for options; SIZE_MAX where they do not fit. */
size_t batch_bytes(const LoaderOptions *options);
size_t batch_reader_bytes(const LoaderOptions *options);

/* Reads batch `index` (0, 1, ...) into one of batch_alloc. Fails as dataset_read; STATUS_DATA for a sample
 * beyond the last one without shuffling. */
Status batch_read(BatchReader *reader, int64_t index, Batch *batch, Error *error);

void batch_free(Batch *batch);
void batch_reader_close(BatchReader *reader);

#endif
