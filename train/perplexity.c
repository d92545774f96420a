/* Exact perplexity of windows, in total and by position. */
#include "train/perplexity.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "data/dataset.h"
#include "data/loader.h"
#include "kernels/base/arena.h"
#include "kernels/base/memory.h"
#include "model/mask.h"
#include "train/batches.h"
#include "train/progress.h"

double perplexity_mean(const PerplexityBucket *bucket) {
  return bucket->nll / (double)bucket->tokens;
}

double perplexity_standard_error(const PerplexityBucket *bucket) {
  const double n = (double)bucket->tokens;
  const double mean = perplexity_mean(bucket);
  return sqrt((bucket->squares / n - mean * mean) / (n - 1.0));
}

double perplexity_exp_error(const PerplexityBucket *bucket) {
  return exp(perplexity_mean(bucket)) * perplexity_standard_error(bucket);
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

/* Adds the positions of a window from `first` on. */
static void score_window(const Batch *batch, int ring_rank, const float *nll, int64_t first,
                         Perplexity *result) {
  for (Run run = {0}; layout_next_run(&batch->layout, 0, ring_rank, &run);) {
    for (int64_t j = 0; j < run.length; j++) {
      const int64_t row = run.local + j;
      if (batch->targets[row] == IGNORED_TARGET || run.start + j < first) continue;
      score(&result->total, (double)nll[row]);
      score(&result->buckets[bucket_of(run.start + j)], (double)nll[row]);
    }
  }
}

/* ---------------------------------------------------------------- work */

/* Pairs of a query and a key that it sees in `length` tokens. */
static double causal_pairs(int64_t length, int64_t window) {
  const double t = (double)length;
  const double seen = window > 0 && window < length ? (double)window : t;
  return t * seen - seen * (seen - 1.0) / 2.0;
}

static double window_work(const Model *model, const ModelConfig *config, int64_t length) {
  const double hidden = (double)config->hidden_size;
  const double unused = config->tie_word_embeddings ? 0.0 : (double)config->vocab_size * hidden;
  const double linear = 2.0 * (double)length * ((double)model_table(model)->total - unused);
  return linear +
         4.0 * hidden * (double)config->num_hidden_layers * causal_pairs(length, config->sliding_window);
}

double perplexity_work(const Model *model, const ModelConfig *config, const Windows *windows, int data_size) {
  double work = 0.0;
  for (int64_t w = 0; w < windows->count; w += data_size) {
    work += window_work(model, config, windows_length(windows, w));
  }
  return work;
}

/* The pairs of this rank's rows, of all layers and heads. */
static int64_t rank_pairs(const Config *config, int ring_rank, const Batch *batch,
                          const Documents *documents) {
  const ModelConfig *model = &config->model;
  int64_t pairs = 0;
  for (Run run = {0}; layout_next_run(&batch->layout, 0, ring_rank, &run);) {
    pairs += mask_pairs(documents, 0, run, batch->layout.sequence_length, model->sliding_window);
  }
  return pairs * model->num_attention_heads * model->num_hidden_layers;
}

static void announce(const Config *config, const Rank *rank, const Model *model, const Windows *windows,
                     int64_t w, const Batch *batch, const Documents *documents, EvalWatch *watch) {
  char what[96];
  char context[32];
  if (watch == NULL) return;
  progress_count(windows->context, context, sizeof context);
  (void)snprintf(what, sizeof what, "context %s, window %lld of %lld", context, (long long)w + 1,
                 (long long)windows->count);
  eval_watch_window(watch, window_work(model, &config->model, windows_length(windows, w)),
                    watch->shows ? rank_pairs(config, rank->ring->rank, batch, documents) : 0, what);
}

/* ---------------------------------------------------------------- running */

/* What a rank adds up. */
typedef struct PerplexitySums {
  Perplexity *result;
  double pairs;   /* of attention, of all ranks of its ring */
  double largest; /* the same if all had as much as the one that has most */
} PerplexitySums;

static Status run_window(const Config *config, const Rank *rank, Model *model, Loader *loader,
                         const PerplexityTask *task, int64_t w, float *nll, PerplexitySums *sums,
                         Error *error) {
  const Batch *batch = NULL;
  TRY(loader_next(loader, &batch, error));
  ModelBatch model_batch;
  Documents documents;
  batches_to_model(config, batch, &documents, &model_batch);
  announce(config, rank, model, &task->windows, w, batch, model_batch.documents, task->watch);
  TRY(model_evaluate(model, &model_batch, nll, error));
  score_window(batch, rank->ring->rank, nll, windows_first_scored(&task->windows, w), sums->result);
  sums->pairs += (double)batch->balance.pairs;
  sums->largest += (double)batch->balance.largest * rank->ring->size;
  if (task->watch != NULL) eval_watch_window_end(task->watch);
  return STATUS_OK;
}

/* Adds the sums of all ranks; counts are exact in double far beyond any real number of tokens. */
static Status reduce(const Rank *rank, const PerplexitySums *own, Error *error) {
  enum { PAIRS = (PERPLEXITY_BUCKETS + 1) * 3, LARGEST, NUMBERS };
  Perplexity *result = own->result;
  double sums[NUMBERS];
  for (int i = 0; i <= PERPLEXITY_BUCKETS; i++) {
    const PerplexityBucket *bucket = i == PERPLEXITY_BUCKETS ? &result->total : &result->buckets[i];
    sums[3 * i] = (double)bucket->tokens;
    sums[3 * i + 1] = bucket->nll;
    sums[3 * i + 2] = bucket->squares;
  }
  sums[PAIRS] = own->pairs;
  sums[LARGEST] = own->largest;
  TRY(comm_all_reduce(rank->world, COMM_F64, COMM_SUM, sums, NUMBERS, error));
  result->balance = sums[LARGEST] / sums[PAIRS];
  for (int i = 0; i <= PERPLEXITY_BUCKETS; i++) {
    PerplexityBucket *bucket = i == PERPLEXITY_BUCKETS ? &result->total : &result->buckets[i];
    *bucket = (PerplexityBucket){
        .tokens = (int64_t)sums[3 * i], .nll = sums[3 * i + 1], .squares = sums[3 * i + 2]};
  }
  return STATUS_OK;
}

Status perplexity_plan(const Config *config, const char *pattern, int64_t context, Windows *windows,
                       Error *error) {
  Dataset *dataset = NULL;
  TRY(dataset_open(pattern, config->model.vocab_size, &dataset, error));
  const int64_t tokens = dataset_tokens(dataset);
  dataset_close(dataset);
  return windows_plan(&config->eval, context, tokens, pattern, windows, error);
}

/* The loader of one window at a time; whose it is and what it reads is for the caller to add. */
static LoaderOptions loader_of(const Config *config, int64_t context, int ring_size) {
  return (LoaderOptions){.vocab_size = config->model.vocab_size,
                         .documents = config->data.document_mask,
                         .window = config->model.sliding_window,
                         .sequence_length = context,
                         .micro_batch = 1,
                         .ring_size = ring_size,
                         .read_ahead = 1};
}

/* Bytes of the losses of a rank's rows. */
static size_t losses_bytes(const Config *config, int64_t context, int ring_size) {
  const Layout layout = batches_layout(config, context, ring_size);
  return arena_aligned(arena_times((size_t)layout.local_length, sizeof(float)));
}

size_t perplexity_bytes(const Config *config, int64_t context, int ring_size) {
  const LoaderOptions options = loader_of(config, context, ring_size);
  return arena_plus(losses_bytes(config, context, ring_size), loader_bytes(&options));
}

Status perplexity_run(const Config *config, const Rank *rank, Model *model, const PerplexityTask *task,
                      Perplexity *result, Error *error) {
  const Windows *windows = &task->windows;
  const int ring_size = rank->ring->size;
  const size_t bytes = perplexity_bytes(config, windows->context, ring_size);
  LoaderOptions options = loader_of(config, windows->context, ring_size);
  PerplexitySums sums = {.result = result};
  Status status = STATUS_OK;
  Loader *loader = NULL;
  void *own = NULL;
  *result = (Perplexity){.windows = *windows};
  if (task->memory == NULL) TRY(memory_alloc(bytes, 1, "windows and their losses", &own, error));
  float *nll = own != NULL ? own : task->memory;
  options.pattern = task->pattern;
  options.end_of_document = task->end_of_document;
  options.stride = windows->mode == EVAL_FULL ? 0 : windows->stride;
  options.tokens = windows->tokens;
  options.ring_rank = rank->ring->rank;
  options.data_rank = rank->data_rank;
  options.data_size = rank->data_size;
  options.memory = (char *)nll + losses_bytes(config, windows->context, ring_size);
  TRY_GOTO(loader_open(&options, &loader, error), done);
  /* Rings take turns at the windows; nothing joins them before the sums. */
  for (int64_t w = rank->data_rank; w < windows->count; w += rank->data_size) {
    TRY_GOTO(run_window(config, rank, model, loader, task, w, nll, &sums, error), done);
  }
  status = reduce(rank, &sums, error);
done:
  loader_close(loader);
  free(own);
  return status;
}
