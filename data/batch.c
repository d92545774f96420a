/* Reads one batch of one rank. */
#include "data/batch.h"

#include <stdlib.h>
#include <string.h>

#include "data/permutation.h"
#include "kernels/base/arena.h"
#include "kernels/ops.h"

static Status check_options(const LoaderOptions *options, Error *error) {
  const bool good = options->vocab_size >= 1 && options->vocab_size <= INT32_MAX &&
                    options->end_of_document >= -1 && options->sequence_length >= 1 &&
                    options->micro_batch >= 1 && options->ring_size >= 1 && options->ring_rank >= 0 &&
                    options->ring_rank < options->ring_size && options->data_size >= 1 &&
                    options->data_rank >= 0 && options->data_rank < options->data_size &&
                    options->first_sample >= 0 && options->read_ahead >= 1 && options->tokens >= 0 &&
                    options->stride >= 0 && (options->stride == 0 || options->micro_batch == 1);
  if (good) return STATUS_OK;
  return fail(
      error, STATUS_CONFIG,
      "%s: cannot be read with vocabulary %lld, sequence length %lld, batch %lld, ring rank %d of %d, "
      "data rank %d of %d, first sample %lld, %d batches ahead: one of them is out of range",
      options->pattern, (long long)options->vocab_size, (long long)options->sequence_length,
      (long long)options->micro_batch, options->ring_rank, options->ring_size, options->data_rank,
      options->data_size, (long long)options->first_sample, options->read_ahead);
}

/* The tokens that are used, and the samples that they make. */
static Status count_samples(BatchReader *reader, Error *error) {
  const LoaderOptions *options = &reader->options;
  const int64_t length = options->sequence_length;
  reader->tokens = dataset_tokens(reader->dataset);
  if (options->tokens > 0 && options->tokens < reader->tokens) reader->tokens = options->tokens;
  if (options->stride == 0) {
    reader->samples = (reader->tokens - 1) / length;
  } else if (reader->tokens >= length) {
    reader->samples = 1 + (reader->tokens - length + options->stride - 1) / options->stride;
  }
  if (reader->samples >= 1) return STATUS_OK;
  return fail(error, STATUS_DATA,
              "%s: holds %lld tokens, less than one sequence of %lld and the target of its last token: give "
              "more text or a shorter sequence length",
              reader->pattern, (long long)reader->tokens, (long long)length);
}

/* How sequences of `length` tokens are cut, but for the owners of chunks. */
static Layout cut_of(const LoaderOptions *options, int64_t length) {
  return options->documents ? layout_packed(length, options->ring_size)
                            : layout_zigzag(length, options->ring_size);
}

Status batch_reader_open(const LoaderOptions *options, BatchReader *out, Error *error) {
  *out = (BatchReader){0};
  Status status = STATUS_OK;
  BatchReader reader = {.options = *options};
  TRY(check_options(options, error));
  reader.options.pattern = NULL; /* the caller's */
  reader.pattern = strdup(options->pattern);
  if (reader.pattern == NULL) return fail(error, STATUS_SYSTEM, "%s: no memory left", options->pattern);
  reader.layout = cut_of(options, options->sequence_length);
  if (options->recall.pairs > 0) {
    reader.samples = INT64_MAX;
  } else {
    TRY_GOTO(dataset_open(options->pattern, options->vocab_size, &reader.dataset, error), close);
    TRY_GOTO(count_samples(&reader, error), close);
  }
  TRY_GOTO(balancer_create(&reader.layout, options->micro_batch, options->window, &reader.balancer, error),
           close);
  if (!options->documents) balancer_measure_zigzag(&reader.balancer, NULL, &reader.balance);
  *out = reader;
  return STATUS_OK;
close:
  batch_reader_close(&reader);
  return status;
}

void batch_reader_close(BatchReader *reader) {
  dataset_close(reader->dataset);
  balancer_free(&reader->balancer);
  free(reader->pattern);
  *reader = (BatchReader){0};
}

/* ---------------------------------------------------------------- memory */

/* The arrays of a batch, one behind the other. */
typedef enum BatchArray {
  ARRAY_TOKENS,
  ARRAY_TARGETS,
  ARRAY_SAMPLES,
  ARRAY_CHUNKS,
  ARRAY_MARKS,
  BATCH_ARRAYS
} BatchArray;

static void array_sizes(const LoaderOptions *options, size_t bytes[BATCH_ARRAYS]) {
  const Layout layout = cut_of(options, options->sequence_length);
  const size_t sequences = (size_t)options->micro_batch;
  const size_t rows = arena_times(sequences, (size_t)layout.local_length);
  const size_t chunks = options->documents ? (size_t)(layout_rank_chunks(&layout) * layout.ring_size) : 0;
  const size_t words = options->documents ? (size_t)documents_words(options->sequence_length) : 0;
  bytes[ARRAY_TOKENS] = arena_times(rows, sizeof(int32_t));
  bytes[ARRAY_TARGETS] = arena_times(rows, sizeof(int32_t));
  bytes[ARRAY_SAMPLES] = arena_times(sequences, sizeof(int64_t));
  bytes[ARRAY_CHUNKS] = arena_times(sequences, arena_times(chunks, sizeof(int32_t)));
  bytes[ARRAY_MARKS] = arena_times(sequences, arena_times(words, sizeof(uint64_t)));
  for (int i = 0; i < BATCH_ARRAYS; i++) bytes[i] = arena_aligned(bytes[i]);
}

size_t batch_bytes(const LoaderOptions *options) {
  size_t bytes[BATCH_ARRAYS];
  size_t sum = 0;
  array_sizes(options, bytes);
  for (int i = 0; i < BATCH_ARRAYS; i++) sum = arena_plus(sum, bytes[i]);
  return sum;
}

size_t batch_piece_bytes(const LoaderOptions *options) {
  const Layout layout = cut_of(options, options->sequence_length);
  return arena_aligned(arena_times((size_t)layout.local_length + 1, sizeof(int32_t)));
}

Batch batch_place(const BatchReader *reader, void *memory) {
  size_t bytes[BATCH_ARRAYS];
  char *places[BATCH_ARRAYS];
  array_sizes(&reader->options, bytes);
  places[0] = memory;
  for (int i = 1; i < BATCH_ARRAYS; i++) places[i] = places[i - 1] + bytes[i - 1];
  return (Batch){.sequences = reader->options.micro_batch,
                 .layout = reader->layout,
                 .balance = reader->balance,
                 .tokens = (void *)places[ARRAY_TOKENS],
                 .targets = (void *)places[ARRAY_TARGETS],
                 .samples = (void *)places[ARRAY_SAMPLES],
                 .chunks = bytes[ARRAY_CHUNKS] > 0 ? (void *)places[ARRAY_CHUNKS] : NULL,
                 .document_marks = bytes[ARRAY_MARKS] > 0 ? (void *)places[ARRAY_MARKS] : NULL};
}

/* ---------------------------------------------------------------- reading */

/* The sample of a draw of the whole run. */
static Status find_sample(const BatchReader *reader, int64_t draw, int64_t *sample, Error *error) {
  const LoaderOptions *options = &reader->options;
  if (options->shuffle && options->recall.pairs == 0) {
    const Permutation permutation =
        permutation_make(options->seed, draw / reader->samples, options->sequence_length, reader->samples);
    *sample = permutation_apply(&permutation, draw % reader->samples);
    return STATUS_OK;
  }
  *sample = draw;
  if (draw < reader->samples) return STATUS_OK;
  return fail(error, STATUS_DATA, "%s: sample %lld was asked for, but the set holds %lld of %lld tokens",
              reader->pattern, (long long)draw, (long long)reader->samples,
              (long long)options->sequence_length);
}

/* Where a sample lies in the set. */
typedef struct Place {
  int64_t first;   /* its first token */
  int64_t length;  /* its positions */
  int64_t targets; /* its first positions that have a target */
} Place;

static Place place_of(const BatchReader *reader, int64_t sample) {
  const LoaderOptions *options = &reader->options;
  const int64_t length = options->sequence_length;
  if (options->stride == 0) return (Place){.first = sample * length, .length = length, .targets = length};
  const int64_t first = sample * options->stride;
  const int64_t left = reader->tokens - first;
  const int64_t whole = left < length ? left : length;
  return (Place){.first = first, .length = whole, .targets = whole - 1};
}

/* Positions of a run before `end`. */
static int64_t count_before(Run run, int64_t end) {
  const int64_t left = end - run.start;
  return left < 0 ? 0 : (left < run.length ? left : run.length);
}

/* Looks through a whole sample for where documents start and marks it, marks (words). */
static Status mark_documents(BatchReader *reader, const Place *sample, uint64_t *marks, Error *error) {
  const int64_t most = reader->layout.local_length + 1;
  memset(marks, 0, (size_t)documents_words(sample->length) * sizeof *marks);
  for (int64_t begin = 0; begin + 1 < sample->length; begin += most) {
    const int64_t left = sample->length - 1 - begin;
    const int64_t here = left < most ? left : most;
    TRY(dataset_read(reader->dataset, sample->first + begin, here, reader->piece, error));
    for (int64_t i = 0; i < here; i++) {
      if (reader->piece[i] == reader->options.end_of_document) documents_mark(marks, begin + i + 1);
    }
  }
  return STATUS_OK;
}

/* The samples of a batch, where their documents start, and from it which chunks are whose. */
static Status read_documents(BatchReader *reader, Batch *batch, Error *error) {
  Place sample = {0};
  for (int64_t b = 0; b < batch->sequences; b++) {
    TRY(find_sample(reader, batch->first_draw + b, &batch->samples[b], error));
    sample = place_of(reader, batch->samples[b]);
    if (!reader->options.documents) continue;
    TRY(mark_documents(reader, &sample, batch->document_marks + b * documents_words(sample.length), error));
  }
  /* All samples are of one length, but for the last of a stride, which is alone. */
  batch->layout = cut_of(&reader->options, sample.length);
  if (!reader->options.documents) return STATUS_OK;
  const Documents documents = batch_documents(batch);
  reader->balancer.layout = batch->layout;
  balancer_choose(&reader->balancer, &documents, batch->chunks, &batch->balance);
  batch->layout.chunks = batch->chunks;
  return STATUS_OK;
}

/* Reads one run of a sample into its part of the row. */
static Status read_run(BatchReader *reader, const Place *sample, Run run, int32_t *tokens, int32_t *targets,
                       Error *error) {
  const int64_t valid = count_before(run, sample->length);
  const int64_t scored = count_before(run, sample->targets);
  if (valid > 0) {
    TRY(dataset_read(reader->dataset, sample->first + run.start, valid + (scored == valid ? 1 : 0),
                     reader->piece, error));
  }
  for (int64_t i = 0; i < run.length; i++) {
    tokens[i] = i < valid ? reader->piece[i] : 0;
    targets[i] = i < scored ? reader->piece[i + 1] : IGNORED_TARGET;
  }
  return STATUS_OK;
}

/* Makes one run of sample number `number` where sequences are generated, or reads it. */
static Status fill_run(BatchReader *reader, int64_t number, const Place *sample, Run run, int32_t *tokens,
                       int32_t *targets, Error *error) {
  const RecallOptions *recall = &reader->options.recall;
  if (recall->pairs == 0) return read_run(reader, sample, run, tokens, targets, error);
  const RecallSequence sequence = recall_sequence(recall, number, reader->options.sequence_length);
  recall_fill(&sequence, run.start, run.length, tokens, targets);
  return STATUS_OK;
}

Status batch_read(BatchReader *reader, int64_t index, Batch *batch, Error *error) {
  const LoaderOptions *options = &reader->options;
  const int64_t block = index * options->data_size + options->data_rank;
  batch->first_draw = options->first_sample + block * options->micro_batch;
  TRY(read_documents(reader, batch, error));
  for (int64_t b = 0; b < batch->sequences; b++) {
    const Place sample = place_of(reader, batch->samples[b]);
    for (Run run = {0}; layout_next_run(&batch->layout, b, options->ring_rank, &run);) {
      const int64_t place = b * batch->layout.local_length + run.local;
      TRY(fill_run(reader, batch->samples[b], &sample, run, batch->tokens + place, batch->targets + place,
                   error));
    }
  }
  return STATUS_OK;
}

Documents batch_documents(const Batch *batch) {
  return (Documents){.words = documents_words(batch->layout.sequence_length), .marks = batch->document_marks};
}
