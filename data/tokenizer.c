/* Text to tokens: the interface, and the tokenizer in which every byte is a token. */
#include "data/tokenizer.h"

#include <stdlib.h>
#include <string.h>

#include "data/tokenizer_gpt2.h"

#define BYTES_END_OF_DOCUMENT 256

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

static void bytes_close(Tokenizer *tokenizer) {
  free(tokenizer);
}

static const TokenizerTable bytes_table = {.encode = bytes_encode, .close = bytes_close};

static Status bytes_open(Tokenizer **out, Error *error) {
  *out = malloc(sizeof **out);
  if (*out == NULL) return fail(error, STATUS_SYSTEM, "no memory left for a tokenizer");
  **out = (Tokenizer){.table = &bytes_table,
                      .vocab_size = BYTES_END_OF_DOCUMENT + 1,
                      .end_of_document = BYTES_END_OF_DOCUMENT};
  return STATUS_OK;
}

Status tokenizer_open(const char *name, Tokenizer **out, Error *error) {
  const char gpt2[] = "gpt2:";
  *out = NULL;
  if (strcmp(name, "bytes") == 0) return bytes_open(out, error);
  if (strncmp(name, gpt2, strlen(gpt2)) == 0) return tokenizer_gpt2_open(name + strlen(gpt2), out, error);
  return fail(error, STATUS_USAGE, "there is no tokenizer \"%s\": give bytes or gpt2:DIR", name);
}

Status tokenizer_encode(Tokenizer *tokenizer, const char *text, size_t bytes, bool last, size_t *used,
                        TokenList *list, Error *error) {
  return tokenizer->table->encode(tokenizer, text, bytes, last, used, list, error);
}

void tokenizer_close(Tokenizer *tokenizer) {
  if (tokenizer != NULL) tokenizer->table->close(tokenizer);
}
