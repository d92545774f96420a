/* Exact perplexity of the full prefix: every position of a window is scored with all tokens before it in the
 * window, in one forward pass over the ring. NLL is added in double with its count over all ranks; the mean
 * is taken once, at the end. */
#ifndef RINGGPT_TRAIN_PERPLEXITY_H
#define RINGGPT_TRAIN_PERPLEXITY_H

#include <stdint.h>

#include "kernels/base/status.h"
#include "model/model.h"
#include "train/config.h"
#include "train/grid.h"

/* Positions in powers of two: bucket 0 is position 0, bucket i positions [2^(i-1), 2^i). */
#define PERPLEXITY_BUCKETS 48

typedef struct PerplexityBucket {
  int64_t tokens;
  double nll;     /* sum */
  double squares; /* sum of the squares of nll */
} PerplexityBucket;

typedef struct Perplexity {
  int64_t context;
  int64_t windows;
  PerplexityBucket total;
  PerplexityBucket buckets[PERPLEXITY_BUCKETS];
} Perplexity;

/* What is measured. */
typedef struct PerplexityTask {
  const char *pattern; /* shards, as dataset_open takes them */
  int32_t end_of_document;
  int64_t context; /* tokens of a window; windows lie one behind the other from the start of the set */
  int64_t tokens;  /* scored at most, in whole windows, at least one; 0: all */
  /* Called on world rank 0 after each of its windows, for a progress display; NULL: not. */
  void (*progress)(void *state, int64_t done, int64_t total);
  void *progress_state;
} PerplexityTask;

/* Runs a task on every rank of the grid with the weights of `model`; the result is the same on all ranks.
 * Collective. Fails as loader_open and loader_next do. */
Status perplexity_run(const Config *config, const Rank *rank, Model *model, const PerplexityTask *task,
                      Perplexity *result, Error *error);

/* Mean nll of a bucket, and the standard error of that mean; both are NaN where they are not defined. */
double perplexity_mean(const PerplexityBucket *bucket);
double perplexity_standard_error(const PerplexityBucket *bucket);

/* First and last position of bucket i. */
void perplexity_range(int i, int64_t *first, int64_t *last);

#endif
