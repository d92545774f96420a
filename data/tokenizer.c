/* Text to tokens: the interface, and the tokenizer in which every byte is a token. */
#include "data/tokenizer.h"

#include <stdlib.h>
#include <string.h>

#include "data/gpt2_files.h"
#include "data/tokenizer_gpt2.h"

#define BYTES_END_OF_DOCUMENT 256

static const char BYTES_NAME[] = "bytes";
static const char GPT2_PREFIX[] = "gpt2:"; /* the folder of its files follows */

typedef struct Bytes {
  Tokenizer base;
  char decoded; /* what tokenizer_decode gave last */
} Bytes;

Status token_list_reserve(TokenList *list, int64_t more, Error *error) {
  if (list->capacity - list->count >= more) return STATUS_OK;
  int64_t capacity = list->capacity == 0 ? 4096 : list->capacity;
  while (capacity - list->count < more) capacity *= 2;
  int32_t *tokens = realloc(list->tokens, (size_t)capacity * sizeof *tokens);
  if (tokens == NULL) {
    return fail(error, STATUS_SYSTEM, "no memory left for %lld tokens of text", (long long)capacity);
  }
  list->tokens = tokens;
  list->capacity = capacity;
  return STATUS_OK;
}

static Status bytes_encode(Tokenizer *tokenizer, const char *text, size_t bytes, bool last, size_t *used,
                           TokenList *list, Error *error) {
  (void)tokenizer;
  (void)last;
  TRY(token_list_reserve(list, (int64_t)bytes, error));
  int32_t *to = list->tokens + list->count;
  for (size_t i = 0; i < bytes; i++) to[i] = (unsigned char)text[i];
  list->count += (int64_t)bytes;
  *used = bytes;
  return STATUS_OK;
}

static Status bytes_decode(Tokenizer *tokenizer, int32_t token, const char **text, size_t *bytes,
                           Error *error) {
  Bytes *self = (Bytes *)tokenizer;
  (void)error; /* tokenizer_decode has checked the token */
  self->decoded = (char)token;
  *text = &self->decoded;
  *bytes = token == BYTES_END_OF_DOCUMENT ? 0 : 1;
  return STATUS_OK;
}

static void bytes_close(Tokenizer *tokenizer) {
  free(tokenizer);
}

static const TokenizerTable bytes_table = {
    .encode = bytes_encode, .decode = bytes_decode, .close = bytes_close};

static Status bytes_open(Tokenizer **out, Error *error) {
  Bytes *self = malloc(sizeof *self);
  *out = NULL;
  if (self == NULL) return fail(error, STATUS_SYSTEM, "no memory left for a tokenizer");
  *self = (Bytes){.base = {.table = &bytes_table,
                           .vocab_size = BYTES_END_OF_DOCUMENT + 1,
                           .end_of_document = BYTES_END_OF_DOCUMENT}};
  *out = &self->base;
  return STATUS_OK;
}

/* ---------------------------------------------------------------- by name */

/* The folder of a name "gpt2:DIR"; NULL: it is another tokenizer's. */
static const char *gpt2_directory(const char *name) {
  const size_t length = strlen(GPT2_PREFIX);
  return strncmp(name, GPT2_PREFIX, length) == 0 ? name + length : NULL;
}

static Status unknown_name(const char *name, Error *error) {
  return fail(error, STATUS_USAGE, "there is no tokenizer \"%s\": give bytes or gpt2:DIR", name);
}

Status tokenizer_open(const char *name, Tokenizer **out, Error *error) {
  const char *directory = gpt2_directory(name);
  *out = NULL;
  if (directory != NULL) return tokenizer_gpt2_open(directory, out, error);
  return strcmp(name, BYTES_NAME) == 0 ? bytes_open(out, error) : unknown_name(name, error);
}

Status tokenizer_read_files(const char *name, TokenizerFiles *out, Error *error) {
  const char *directory = gpt2_directory(name);
  *out = (TokenizerFiles){0};
  if (directory != NULL) return gpt2_files_load(directory, out, error);
  return strcmp(name, BYTES_NAME) == 0 ? STATUS_OK : unknown_name(name, error);
}

bool tokenizer_has_files(const char *name) {
  const char *directory = gpt2_directory(name);
  return directory == NULL || gpt2_files_exist(directory);
}

bool tokenizer_owns_file(const char *name) {
  return strcmp(name, GPT2_VOCABULARY_FILE) == 0 || strcmp(name, GPT2_MERGES_FILE) == 0;
}

void tokenizer_free_files(TokenizerFiles *files) {
  for (int64_t i = 0; i < files->count; i++) free(files->files[i].data);
  *files = (TokenizerFiles){0};
}

/* ---------------------------------------------------------------- the calls of all */

Status tokenizer_encode(Tokenizer *tokenizer, const char *text, size_t bytes, bool last, size_t *used,
                        TokenList *list, Error *error) {
  return tokenizer->table->encode(tokenizer, text, bytes, last, used, list, error);
}

Status tokenizer_decode(Tokenizer *tokenizer, int32_t token, const char **text, size_t *bytes, Error *error) {
  if (token < 0 || token >= tokenizer->vocab_size) {
    return fail(error, STATUS_DATA, "the tokenizer has no token %d: its vocabulary has %lld entries",
                (int)token, (long long)tokenizer->vocab_size);
  }
  return tokenizer->table->decode(tokenizer, token, text, bytes, error);
}

void tokenizer_close(Tokenizer *tokenizer) {
  if (tokenizer != NULL) tokenizer->table->close(tokenizer);
}
