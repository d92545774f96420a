/* Exact perplexity over the windows of train/windows.h: every position that is scored is so with all tokens
 * before it in its window, in one forward pass over the ring. NLL is added in double with its count over all
 * ranks; the mean is taken once, at the end. */
#ifndef RINGGPT_TRAIN_PERPLEXITY_H
#define RINGGPT_TRAIN_PERPLEXITY_H

#include <stdint.h>

#include "kernels/base/status.h"
#include "model/model.h"
#include "train/config.h"
#include "train/eval_watch.h"
#include "train/grid.h"
#include "train/windows.h"

/* Positions in powers of two: bucket 0 is position 0, bucket i positions [2^(i-1), 2^i). */
#define PERPLEXITY_BUCKETS 48

typedef struct PerplexityBucket {
  int64_t tokens;
  double nll;     /* sum */
  double squares; /* sum of the squares of nll */
} PerplexityBucket;

typedef struct Perplexity {
  Windows windows;
  PerplexityBucket total;
  PerplexityBucket buckets[PERPLEXITY_BUCKETS];
  double balance; /* attention of the rank of a ring that has most of it, over the mean; 1 is best */
} Perplexity;

/* What is measured. */
typedef struct PerplexityTask {
  const char *pattern; /* shards, as dataset_open takes them */
  int32_t end_of_document;
  Windows windows;  /* of perplexity_plan */
  EvalWatch *watch; /* of this rank; NULL: none */
  void *memory;     /* (perplexity_bytes) host memory of this rank; NULL: it takes its own */
} PerplexityTask;

/* Bytes of host memory that a rank of a ring of `ring_size` needs for batches and losses of windows of
 * `context` tokens; ARENA_TOO_LARGE where they do not fit. */
size_t perplexity_bytes(const Config *config, int64_t context, int ring_size);

/* The windows of `context` tokens in the shards of `pattern` that the options of eval ask for. Fails as
 * dataset_open; STATUS_DATA where they hold less than one window. */
Status perplexity_plan(const Config *config, const char *pattern, int64_t context, Windows *windows,
                       Error *error);

/* The work of a ring in these windows, of `data_size` rings that take turns: operations of the matrices and
 * of attention, without a document mask. */
double perplexity_work(const Model *model, const ModelConfig *config, const Windows *windows, int data_size);

/* Runs a task on every rank of the grid with the weights of `model`; the result is the same on all ranks.
 * Collective. Fails as loader_open and loader_next do; under a watch also with STATUS_STOPPED. */
Status perplexity_run(const Config *config, const Rank *rank, Model *model, const PerplexityTask *task,
                      Perplexity *result, Error *error);

/* Mean nll of a bucket, and the standard error of that mean; both are NaN where they are not defined. */
double perplexity_mean(const PerplexityBucket *bucket);
double perplexity_standard_error(const PerplexityBucket *bucket);

/* The standard error of exp of that mean, in the first order: the "+/-" of llama.cpp. */
double perplexity_exp_error(const PerplexityBucket *bucket);

/* First and last position of bucket i. */
void perplexity_range(int i, int64_t *first, int64_t *last);

#endif
