/* What the training loop reads: batches of sequences, each cut to the share of one rank of the ring.
 *
 * Sample i of a set of n = (tokens - 1) / T samples is tokens [i T, i T + T] of the stream: T inputs and, one
 * further, T targets. Samples are drawn by one global counter k over the whole run; with shuffling, draw k is
 * sample permutation(k mod n) of epoch k / n. The counter is the whole position in the data: a run goes on
 * where it stopped, on any grid, by opening with first_sample = samples drawn so far.
 *
 * Instead of being read, sequences can be generated (data/recall.h): draw k is then sequence k of an endless
 * set, whatever was said about shuffling.
 *
 * A thread of the loader reads ahead. A rank reads and expands only the tokens of its own runs and their
 * targets. With documents it first looks through the whole sequences for where documents start, in pieces no
 * longer than its own share: every rank then knows them all, and which chunks are whose, without a message.
 */
#ifndef RINGGPT_DATA_LOADER_H
#define RINGGPT_DATA_LOADER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "data/recall.h"
#include "kernels/base/status.h"
#include "kernels/comm/balance.h"
#include "kernels/comm/documents.h"
#include "kernels/comm/layout.h"

typedef struct LoaderOptions {
  const char *pattern;     /* as dataset_open takes it; used during loader_open only */
  int64_t vocab_size;      /* token ids are below it */
  int32_t end_of_document; /* the token that ends a document; -1: none. Read with `documents` only */
  bool documents;          /* queries see their own document: its start is found, chunks are balanced */
  int64_t window;          /* and no more than so many keys; 0: no limit. For the balance only */
  int64_t sequence_length; /* T */
  int64_t stride;          /* 0: samples as above. Else, with micro_batch 1, sample i begins at token i stride
                              and has no token behind its T; samples go on to the one that reaches the end of
                              the set, which may be shorter */
  int64_t tokens;          /* of the set that are used; 0: all */
  int64_t micro_batch;     /* B: sequences per batch of this data-parallel rank */
  int ring_rank, ring_size; /* which part of each sequence is ours */
  int data_rank, data_size; /* which sequences of a step are ours */
  int64_t first_sample;     /* samples drawn before, over the whole run and all data ranks */
  bool shuffle;             /* false: samples in order, and drawing beyond the last one is an error */
  uint64_t seed;            /* of the shuffling */
  RecallOptions recall;     /* pairs > 0: generates these sequences; pattern only names them in messages */
  int read_ahead;           /* batches prepared in advance, >= 1 */
  void *memory; /* (loader_bytes) for the batches, aligned as malloc does; the caller's, who keeps it
                   until loader_close. NULL: the loader takes its own */
} LoaderOptions;

/* One batch of one rank. Batch m (0, 1, ...) of data rank d of D holds draws
 * first_sample + (m D + d) B + b for b in [0, B). */
typedef struct Batch {
  int64_t sequences;  /* B */
  int64_t first_draw; /* the draw of the first one; the others follow it */
  Layout layout;    /* which positions of each sequence are where in the ring; of the length of the sample at
                       hand */
  Balance balance;  /* how even the ring's attention is */
  int32_t *tokens;  /* (B, local_length); 0 in padding */
  int32_t *targets; /* (B, local_length); the token one position further in the sample, shifted before
                       the cut; IGNORED_TARGET (kernels/ops.h) in padding */
  int64_t *samples; /* (B) index of each sample in the set, after the permutation */
  int32_t *chunks;  /* (B, R, chunks of a rank) of the layout, NULL: zigzag */
  uint64_t *document_marks; /* (B, words) as Documents.marks, of the whole sequences: the position behind a
                               token that ends a document. NULL without `documents` */
} Batch;

/* Where its documents start; the batch's. With `documents` alone. */
Documents batch_documents(const Batch *batch);

typedef struct Loader Loader;

/* Opens the set and starts reading ahead. Fails as dataset_open does; STATUS_DATA when the set is shorter
 * than one sequence, STATUS_CONFIG for options out of range. The caller closes *out with loader_close. */
Status loader_open(const LoaderOptions *options, Loader **out, Error *error);

/* Bytes of host memory that a loader needs for its batches: of `options`, documents, sequence_length,
 * micro_batch, ring_size and read_ahead are read. ARENA_TOO_LARGE (kernels/base/arena.h) where they do not
 * fit. */
size_t loader_bytes(const LoaderOptions *options);

/* Waits for the next batch; it belongs to the loader and is valid until the next call. Returns the errors met
 * while reading it, after all good batches before it; after an error every further call returns the same. */
Status loader_next(Loader *loader, const Batch **batch, Error *error);

/* Samples in one epoch: (tokens - 1) / T without a stride; INT64_MAX of generated ones. */
int64_t loader_samples(const Loader *loader);

/* Stops reading ahead and releases the loader; NULL is allowed. */
void loader_close(Loader *loader);

#endif
