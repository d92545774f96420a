/* Exact perplexity of the full prefix, in total and by position. */
#include "train/perplexity.h"

#include <math.h>
#include <stdlib.h>

#include "data/loader.h"
#include "kernels/base/memory.h"
#include "train/batches.h"

double perplexity_mean(const PerplexityBucket *bucket) {
  return bucket->nll / (double)bucket->tokens;
}

double perplexity_standard_error(const PerplexityBucket *bucket) {
  const double n = (double)bucket->tokens;
  const double mean = perplexity_mean(bucket);
  return sqrt((bucket->squares / n - mean * mean) / (n - 1.0));
}

void perplexity_range(int i, int64_t *first, int64_t *last) {
  *first = i == 0 ? 0 : (int64_t)1 << (i - 1);
  *last = i == 0 ? 0 : ((int64_t)1 << i) - 1;
}

static int bucket_of(int64_t position) {
  int bucket = 0;
  while (position > 0) {
    position >>= 1;
    bucket++;
  }
  return bucket;
}

static void score(PerplexityBucket *bucket, double nll) {
  bucket->tokens += 1;
  bucket->nll += nll;
  bucket->squares += nll * nll;
}

static void score_window(const Batch *batch, const float *nll, Perplexity *result) {
  for (int i = 0; i < batch->layout.run_count; i++) {
    const Run run = batch->layout.runs[i];
    const int64_t row = i * batch->layout.runs[0].length;
    for (int64_t j = 0; j < run.length; j++) {
      if (batch->targets[row + j] == IGNORED_TARGET) continue;
      score(&result->total, (double)nll[row + j]);
      score(&result->buckets[bucket_of(run.start + j)], (double)nll[row + j]);
    }
  }
}

static Status run_window(const Config *config, const Rank *rank, Model *model, Loader *loader, float *nll,
                         Perplexity *result, Error *error) {
  const Batch *batch = NULL;
  TRY(loader_next(loader, &batch, error));
  ModelBatch model_batch;
  Documents documents = {0};
  TRY(batches_to_model(config, rank->ring, batch, &documents, &model_batch, error));
  const Status status = model_evaluate(model, &model_batch, nll, error);
  documents_free(&documents);
  if (status == STATUS_OK) score_window(batch, nll, result);
  return status;
}

/* Adds the sums of all ranks; counts are exact in double far beyond any real number of tokens. */
static Status reduce(const Rank *rank, Perplexity *result, Error *error) {
  double sums[(PERPLEXITY_BUCKETS + 1) * 3];
  for (int i = 0; i <= PERPLEXITY_BUCKETS; i++) {
    const PerplexityBucket *bucket = i == PERPLEXITY_BUCKETS ? &result->total : &result->buckets[i];
    sums[3 * i] = (double)bucket->tokens;
    sums[3 * i + 1] = bucket->nll;
    sums[3 * i + 2] = bucket->squares;
  }
  TRY(comm_all_reduce(rank->world, COMM_F64, COMM_SUM, sums, (PERPLEXITY_BUCKETS + 1) * 3, error));
  for (int i = 0; i <= PERPLEXITY_BUCKETS; i++) {
    PerplexityBucket *bucket = i == PERPLEXITY_BUCKETS ? &result->total : &result->buckets[i];
    *bucket = (PerplexityBucket){
        .tokens = (int64_t)sums[3 * i], .nll = sums[3 * i + 1], .squares = sums[3 * i + 2]};
  }
  return STATUS_OK;
}

/* The same tokens are scored at every context, as far as whole windows allow. */
static int64_t window_count(const PerplexityTask *task, int64_t available) {
  if (task->tokens == 0) return available;
  const int64_t wanted = task->tokens < task->context ? 1 : task->tokens / task->context;
  return wanted < available ? wanted : available;
}

Status perplexity_run(const Config *config, const Rank *rank, Model *model, const PerplexityTask *task,
                      Perplexity *result, Error *error) {
  const LoaderOptions options = {
      .pattern = task->pattern,
      .vocab_size = config->model.vocab_size,
      .end_of_document = task->end_of_document,
      .sequence_length = task->context,
      .micro_batch = 1,
      .ring_rank = rank->ring->rank,
      .ring_size = rank->ring->size,
      .data_rank = rank->data_rank,
      .data_size = rank->data_size,
      .read_ahead = 1,
  };
  const Layout layout = layout_zigzag(task->context, rank->ring->rank, rank->ring->size);
  Status status = STATUS_OK;
  Loader *loader = NULL;
  void *nll = NULL;
  *result = (Perplexity){.context = task->context};
  TRY_GOTO(loader_open(&options, &loader, error), done);
  TRY_GOTO(memory_alloc((size_t)layout.local_length, sizeof(float), "losses", &nll, error), done);
  result->windows = window_count(task, loader_samples(loader));
  /* Rings take turns at the windows; nothing joins them before the sums. */
  for (int64_t w = rank->data_rank; w < result->windows; w += rank->data_size) {
    TRY_GOTO(run_window(config, rank, model, loader, nll, result, error), done);
    if (task->progress != NULL && rank->world->rank == 0) {
      task->progress(task->progress_state, w + 1, result->windows);
    }
  }
  status = reduce(rank, result, error);
done:
  loader_close(loader);
  free(nll);
  return status;
}
