/* Generating text. */
#include "train/generate.h"

#include <stdlib.h>

#include "checkpoints/checkpoint.h"
#include "data/tokenizer.h"
#include "kernels/base/clock.h"
#include "kernels/base/memory.h"
#include "model/decoder.h"
#include "model/model.h"
#include "train/hf_model.h"
#include "train/host_weights.h"
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

static Status make_model(Generation *work, Rank *rank, Error *error) {
  const GenerateOptions *options = work->options;
  /* The last token is written and not read. */
  const int64_t room = work->positions - work->prompt.count;
  const int64_t more = options->tokens - 1 < room ? options->tokens - 1 : room;
  const DecoderOptions decoder = {.most_tokens = work->prompt.count + more, .chunk = options->chunk};
  const ModelOptions model = {.config = work->config, .loss_chunk = 1};
  void *memory = NULL;
  TRY(model_create(rank->device, rank->ring, &model, &work->model, error));
  TRY(host_weights_load(options->checkpoint, rank->device, work->model, rank->world, error));
  TRY(decoder_create(work->model, &decoder, &work->decoder, error));
  TRY(memory_alloc((size_t)work->config.vocab_size, sizeof(float), "logits", &memory, error));
  work->logits = memory;
  /* A model may have more tokens than its tokenizer, to round its size: they are no text. */
  return sampler_create(work->tokenizer->vocab_size, &options->sampler, &work->sampler, error);
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
  TRY_GOTO(make_model(&work, rank, error), done);
  status = run(&work, report, error);
done:
  release(&work);
  return status;
}
