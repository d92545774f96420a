/* Reads one batch of one rank. */
#include "data/batch.h"

#include <stdlib.h>
#include <string.h>

#include "data/permutation.h"
#include "kernels/base/arena.h"
#include "kernels/base/memory.h"
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

Status batch_reader_open(const LoaderOptions *options, BatchReader *out, Error *error) {
  *out = (BatchReader){0};
  Status status = STATUS_OK;
  BatchReader reader = {.options = *options};
  void *run = NULL;
  TRY(check_options(options, error));
  reader.options.pattern = NULL; /* the caller's */
  reader.pattern = strdup(options->pattern);
  if (reader.pattern == NULL) return fail(error, STATUS_SYSTEM, "%s: no memory left", options->pattern);
  reader.layout = layout_zigzag(options->sequence_length, options->ring_rank, options->ring_size);
  if (options->recall.pairs > 0) {
    reader.samples = INT64_MAX;
  } else {
    TRY_GOTO(dataset_open(options->pattern, options->vocab_size, &reader.dataset, error), close);
    TRY_GOTO(count_samples(&reader, error), close);
  }
  TRY_GOTO(memory_alloc((size_t)reader.layout.runs[0].length + 2, sizeof *reader.run, "tokens of a run", &run,
                        error),
           close);
  reader.run = run;
  *out = reader;
  return STATUS_OK;
close:
  batch_reader_close(&reader);
  return status;
}

void batch_reader_close(BatchReader *reader) {
  dataset_close(reader->dataset);
  free(reader->run);
  free(reader->pattern);
  *reader = (BatchReader){0};
}

Status batch_alloc(const BatchReader *reader, Batch *out, Error *error) {
  const size_t sequences = (size_t)reader->options.micro_batch;
  const size_t row = (size_t)reader->layout.local_length;
  Status status = STATUS_OK;
  void *tokens = NULL;
  void *targets = NULL;
  void *samples = NULL;
  void *starts = NULL;
  void *offsets = NULL;
  *out = (Batch){0};
  TRY_GOTO(memory_alloc(sequences, row * sizeof *out->tokens, "tokens of a batch", &tokens, error), done);
  TRY_GOTO(memory_alloc(sequences, row * sizeof *out->targets, "targets of a batch", &targets, error), done);
  TRY_GOTO(memory_alloc(sequences, sizeof *out->samples, "samples of a batch", &samples, error), done);
  TRY_GOTO(memory_alloc(sequences, row * sizeof *out->document_starts, "document starts", &starts, error),
           done);
  TRY_GOTO(memory_alloc(sequences + 1, sizeof *out->document_offsets, "document offsets", &offsets, error),
           done);
done:
  *out = (Batch){.sequences = reader->options.micro_batch,
                 .layout = reader->layout,
                 .tokens = tokens,
                 .targets = targets,
                 .samples = samples,
                 .document_starts = starts,
                 .document_offsets = offsets};
  if (status != STATUS_OK) batch_free(out);
  return status;
}

size_t batch_bytes(const LoaderOptions *options) {
  const Layout layout = layout_zigzag(options->sequence_length, 0, options->ring_size);
  const size_t row = 2 * sizeof(int32_t) + sizeof(int64_t); /* token, target, document start */
  const size_t rows = arena_times((size_t)options->micro_batch, (size_t)layout.local_length);
  return arena_plus(arena_times(rows, row),
                    arena_times(2 * (size_t)options->micro_batch + 1, sizeof(int64_t)));
}

size_t batch_reader_bytes(const LoaderOptions *options) {
  const Layout layout = layout_zigzag(options->sequence_length, 0, options->ring_size);
  return arena_times((size_t)layout.runs[0].length + 2, sizeof(int32_t));
}

void batch_free(Batch *batch) {
  free(batch->tokens);
  free(batch->targets);
  free(batch->samples);
  free(batch->document_starts);
  free(batch->document_offsets);
  *batch = (Batch){0};
}

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

/* Reads one run of a sample into its part of the row and appends its document starts. */
static Status read_run(BatchReader *reader, const Place *sample, Run run, int32_t *tokens, int32_t *targets,
                       Batch *batch, int64_t *start_count, Error *error) {
  const int64_t valid = count_before(run, sample->length);
  const int64_t scored = count_before(run, sample->targets);
  const int64_t before = run.start > 0 ? 1 : 0;
  const int32_t end_of_document = reader->options.end_of_document;
  if (valid > 0) {
    TRY(dataset_read(reader->dataset, sample->first + run.start - before,
                     before + valid + (scored == valid ? 1 : 0), reader->run, error));
  }
  for (int64_t i = 0; i < run.length; i++) {
    tokens[i] = i < valid ? reader->run[before + i] : 0;
    targets[i] = i < scored ? reader->run[before + i + 1] : IGNORED_TARGET;
  }
  /* The first position of a sample begins a document in any case and is not listed. */
  for (int64_t i = 1 - before; i < valid; i++) {
    if (end_of_document >= 0 && reader->run[before + i - 1] == end_of_document) {
      batch->document_starts[(*start_count)++] = run.start + i;
    }
  }
  return STATUS_OK;
}

/* Makes one run of sample number `number` where sequences are generated, or reads it. */
static Status fill_run(BatchReader *reader, int64_t number, const Place *sample, Run run, int32_t *tokens,
                       int32_t *targets, Batch *batch, int64_t *start_count, Error *error) {
  const RecallOptions *recall = &reader->options.recall;
  if (recall->pairs == 0) return read_run(reader, sample, run, tokens, targets, batch, start_count, error);
  const RecallSequence sequence = recall_sequence(recall, number, reader->options.sequence_length);
  recall_fill(&sequence, run.start, run.length, tokens, targets);
  return STATUS_OK;
}

Status batch_read(BatchReader *reader, int64_t index, Batch *batch, Error *error) {
  const LoaderOptions *options = &reader->options;
  const int64_t block = index * options->data_size + options->data_rank;
  const int64_t first = options->first_sample + block * options->micro_batch;
  int64_t start_count = 0;
  batch->first_draw = first;
  batch->document_offsets[0] = 0;
  for (int64_t b = 0; b < batch->sequences; b++) {
    TRY(find_sample(reader, first + b, &batch->samples[b], error));
    const Place sample = place_of(reader, batch->samples[b]);
    if (options->stride > 0)
      batch->layout = layout_zigzag(sample.length, options->ring_rank, options->ring_size);
    int64_t place = b * batch->layout.local_length;
    for (int r = 0; r < batch->layout.run_count; r++) {
      const Run run = batch->layout.runs[r];
      TRY(fill_run(reader, batch->samples[b], &sample, run, batch->tokens + place, batch->targets + place,
                   batch, &start_count, error));
      place += run.length;
    }
    batch->document_offsets[b + 1] = start_count;
  }
  return STATUS_OK;
}
