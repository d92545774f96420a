/* Generating text. */
#include "train/generate.h"

#include <stdio.h>
#include <stdlib.h>

#include "checkpoints/checkpoint.h"
#include "data/tokenizer.h"
#include "kernels/base/arena.h"
#include "kernels/base/clock.h"
#include "kernels/base/memory.h"
#include "model/decoder.h"
#include "model/model.h"
#include "model/params.h"
#include "train/hf_model.h"
#include "train/host_weights.h"
#include "train/memory_advice.h"
#include "train/memory_plan.h"
#include "train/tokenizer_files.h"

/* One generation under way. */
typedef struct Generation {
  const GenerateOptions *options;
  Tokenizer *tokenizer;
  TokenList prompt;
  ModelConfig config;
  int64_t end;       /* the token that ends a document by the model's description, -1: it names none */
  int64_t positions; /* tokens that the model can read at most */
  Model *model;
  Decoder *decoder;
  Sampler *sampler;
  float *logits; /* (vocab_size) */
} Generation;

/* ---------------------------------------------------------------- setting up */

static Status open_tokenizer(Generation *work, Error *error) {
  const GenerateOptions *options = work->options;
  char *name = NULL;
  if (options->tokenizer != NULL) return tokenizer_open(options->tokenizer, &work->tokenizer, error);
  TRY(tokenizer_files_find(options->checkpoint, &name, error));
  const Status status = tokenizer_open(name, &work->tokenizer, error);
  free(name);
  return status;
}

/* The tokens of the prompt; for an empty one the token that stands before every document. */
static Status encode_prompt(Generation *work, Error *error) {
  const GenerateOptions *options = work->options;
  size_t used = 0;
  TRY(tokenizer_encode(work->tokenizer, options->prompt, options->prompt_bytes, true, &used, &work->prompt,
                       error));
  if (work->prompt.count > 0) return STATUS_OK;
  TRY(token_list_reserve(&work->prompt, 1, error));
  work->prompt.tokens[work->prompt.count++] = work->tokenizer->end_of_document;
  return STATUS_OK;
}

static Status check_fit(Generation *work, Error *error) {
  const ModelConfig *config = &work->config;
  work->positions = config->position == POSITION_LEARNED ? config->max_position_embeddings : INT64_MAX;
  if (work->tokenizer->vocab_size > config->vocab_size) {
    return fail(
        error, STATUS_CONFIG,
        "%s: its model knows %lld tokens, but the tokenizer has %lld: it was trained with another one",
        work->options->checkpoint, (long long)config->vocab_size, (long long)work->tokenizer->vocab_size);
  }
  if (work->end >= 0 && work->end != work->tokenizer->end_of_document) {
    return fail(
        error, STATUS_CONFIG,
        "%s: its model ends a document by token %lld, the tokenizer by %d: it was trained with another "
        "one",
        work->options->checkpoint, (long long)work->end, (int)work->tokenizer->end_of_document);
  }
  if (work->prompt.count > work->positions) {
    return fail(error, STATUS_CONFIG,
                "the prompt has %lld tokens, but the model has learned positions for %lld: shorten it",
                (long long)work->prompt.count, (long long)work->positions);
  }
  return STATUS_OK;
}

/* A text of `tokens` behind the prompt, as far as there are positions; the last one is written and not read.
 */
static DecoderOptions text_of(const Generation *work, int64_t tokens) {
  const int64_t room = work->positions - work->prompt.count;
  const int64_t more = tokens - 1 < room ? tokens - 1 : room;
  return (DecoderOptions){.most_tokens = work->prompt.count + more, .chunk = work->options->chunk};
}

static ModelOptions model_options(const Generation *work) {
  return (ModelOptions){.config = work->config, .loss_chunk = 1};
}

/* Bytes of device memory for the weights, a text and what computes it. */
static size_t bytes_of(const Generation *work, const Device *device, int64_t weights, int64_t tokens) {
  const ModelOptions model = model_options(work);
  const DecoderOptions text = text_of(work, tokens);
  const size_t fixed =
      arena_plus(arena_times((size_t)weights, device->ops.elem_size), memory_plan_scratch(device->threads));
  return arena_plus(fixed, decoder_bytes(&device->ops, &model, &text));
}

/* The most tokens whose text fits `left` bytes, 0: none. */
static int64_t tokens_that_fit(const Generation *work, const Device *device, int64_t weights, size_t left) {
  int64_t fits = 0;
  for (int64_t step = INT64_C(1) << 40; step > 0; step /= 2) {
    if (bytes_of(work, device, weights, fits + step) <= left) fits += step;
  }
  return fits;
}

/* Refuses a text for which there is no memory before any is taken. */
static Status check_memory(const Generation *work, Rank *rank, Error *error) {
  const Device *device = rank->device;
  const int64_t tokens = work->options->tokens;
  const size_t left = device_left(rank->device);
  TensorTable table;
  TRY(params_build(&work->config, &table, NULL, error));
  const int64_t weights = table.total;
  params_free(&table, NULL);
  if (bytes_of(work, device, weights, tokens) <= left) return STATUS_OK;
  /* Not to the last byte: what is left changes from one moment to the next. */
  const int64_t fits = tokens_that_fit(work, device, weights, left - left / 64);
  char needed[32];
  char there[32];
  char way[80] = "shorten the prompt, lower --chunk or take a smaller model";
  memory_size_text(bytes_of(work, device, weights, tokens), needed, sizeof needed);
  memory_size_text(left, there, sizeof there);
  if (fits > 0) (void)snprintf(way, sizeof way, "--tokens %lld would fit", (long long)fits);
  return fail(error, STATUS_SYSTEM,
              "no memory for a text of %lld tokens: the model, its keys and values take %s, %s are free; %s",
              (long long)text_of(work, tokens).most_tokens, needed, there, way);
}

static Status make_model(Generation *work, Rank *rank, Error *error) {
  const DecoderOptions text = text_of(work, work->options->tokens);
  const ModelOptions model = model_options(work);
  void *memory = NULL;
  TRY(model_create(rank->device, rank->ring, &model, &work->model, error));
  TRY(host_weights_load(work->options->checkpoint, rank->device, work->model, rank->world, error));
  TRY(decoder_create(work->model, &text, &work->decoder, error));
  TRY(memory_alloc((size_t)work->config.vocab_size, sizeof(float), "logits", &memory, error));
  work->logits = memory;
  /* A model may have more tokens than its tokenizer, to round its size: they are no text. */
  return sampler_create(work->tokenizer->vocab_size, &work->options->sampler, &work->sampler, error);
}

/* ---------------------------------------------------------------- the work */

/* In pieces, so that progress can be told. */
static Status read_prompt(Generation *work, Error *error) {
  const GenerateOptions *options = work->options;
  const int64_t count = work->prompt.count;
  for (int64_t at = 0; at < count;) {
    const int64_t piece = options->chunk < count - at ? options->chunk : count - at;
    const bool last = at + piece == count;
    TRY(decoder_append(work->decoder, piece, work->prompt.tokens + at, last ? work->logits : NULL, error));
    at += piece;
    if (options->progress != NULL) options->progress(options->context, at, count);
  }
  return STATUS_OK;
}

static Status write_tokens(Generation *work, GenerateReport *report, Error *error) {
  const GenerateOptions *options = work->options;
  for (;;) {
    const char *text = NULL;
    size_t bytes = 0;
    int32_t token = 0;
    const int64_t place = decoder_length(work->decoder);
    TRY(sampler_draw(work->sampler, work->logits, (uint64_t)place, &token, error));
    report->end = GENERATE_END_DOCUMENT;
    if (token == work->tokenizer->end_of_document) return STATUS_OK;
    TRY(tokenizer_decode(work->tokenizer, token, &text, &bytes, error));
    TRY(options->write(options->context, text, bytes, error));
    report->tokens++;
    report->end = GENERATE_END_TOKENS;
    if (report->tokens == options->tokens) return STATUS_OK;
    report->end = GENERATE_END_POSITIONS;
    if (place == work->positions) return STATUS_OK;
    TRY(decoder_append(work->decoder, 1, &token, work->logits, error));
  }
}

static Status run(Generation *work, GenerateReport *report, Error *error) {
  const double began = clock_seconds();
  TRY(read_prompt(work, error));
  const double read = clock_seconds();
  TRY(write_tokens(work, report, error));
  report->prompt_tokens = work->prompt.count;
  report->prompt_seconds = read - began;
  report->seconds = clock_seconds() - read;
  return STATUS_OK;
}

static void release(Generation *work) {
  sampler_destroy(work->sampler);
  free(work->logits);
  decoder_destroy(work->decoder);
  model_destroy(work->model);
  free(work->prompt.tokens);
  tokenizer_close(work->tokenizer);
}

Status generate(Rank *rank, const GenerateOptions *options, GenerateReport *report, Error *error) {
  Generation work = {.options = options};
  Status status = STATUS_OK;
  *report = (GenerateReport){0};
  TRY_GOTO(hf_model_read(options->checkpoint, &work.config, error), done);
  TRY_GOTO(hf_model_read_end(options->checkpoint, &work.end, error), done);
  TRY_GOTO(open_tokenizer(&work, error), done);
  TRY_GOTO(encode_prompt(&work, error), done);
  TRY_GOTO(check_fit(&work, error), done);
  TRY_GOTO(check_memory(&work, rank, error), done);
  TRY_GOTO(make_model(&work, rank, error), done);
  status = run(&work, report, error);
done:
  release(&work);
  return status;
}
