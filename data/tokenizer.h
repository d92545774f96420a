/* Text to tokens. Two tokenizers: "bytes", in which every byte is a token, and "gpt2:DIR", the byte-level
 * byte-pair encoding of GPT-2 read from DIR. */
#ifndef RINGGPT_DATA_TOKENIZER_H
#define RINGGPT_DATA_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/base/status.h"

/* A growing list of tokens; start with `TokenList list = {0};`, free `tokens` at the end. */
typedef struct TokenList {
  int32_t *tokens; /* (count) */
  int64_t count;
  int64_t capacity;
} TokenList;

typedef struct Tokenizer Tokenizer;

/* What a tokenizer provides; the public calls below say what each does. */
typedef struct TokenizerTable {
  Status (*encode)(Tokenizer *tokenizer, const char *text, size_t bytes, bool last, size_t *used,
                   TokenList *list, Error *error);
  Status (*decode)(Tokenizer *tokenizer, int32_t token, const char **text, size_t *bytes, Error *error);
  void (*close)(Tokenizer *tokenizer);
} TokenizerTable;

/* Every tokenizer begins with this; what follows is its own. */
struct Tokenizer {
  const TokenizerTable *table;
  int64_t vocab_size;      /* token ids are below it */
  int32_t end_of_document; /* the token that is put behind each document; no text gives it */
};

/* Opens the tokenizer `name`. STATUS_USAGE for an unknown name, STATUS_NO_INPUT and STATUS_DATA for files
 * that are missing or damaged. A tokenizer is for one thread. The caller closes *out. */
Status tokenizer_open(const char *name, Tokenizer **out, Error *error);

/* Appends the tokens of `text` to `list`. A text may come in pieces: all but the last with `last` false, and
 * *used then says how many bytes were taken; the next call begins with the others, which may be all of them
 * (give more text then). The tokens do not depend on how a text is cut. Bytes that are not valid UTF-8 are
 * tokens of their own. STATUS_SYSTEM. */
Status tokenizer_encode(Tokenizer *tokenizer, const char *text, size_t bytes, bool last, size_t *used,
                        TokenList *list, Error *error);

/* The bytes of one token, the tokenizer's and valid until the next call: none for the end of a document. The
 * bytes of all tokens of a text, one behind the other, are the text; those of a single token may be a part of
 * a character. STATUS_DATA for a token that it does not have. */
Status tokenizer_decode(Tokenizer *tokenizer, int32_t token, const char **text, size_t *bytes, Error *error);

/* The files that make a tokenizer, so that they can be kept with what was made by it. */
#define TOKENIZER_MOST_FILES 2
typedef struct TokenizerFile {
  const char *name; /* under which it is kept; a constant */
  char *data;       /* (bytes) */
  size_t bytes;
} TokenizerFile;

typedef struct TokenizerFiles {
  TokenizerFile files[TOKENIZER_MOST_FILES];
  int64_t count;
} TokenizerFiles;

/* Reads the files of the tokenizer `name`: vocab.json and merges.txt of "gpt2:DIR", whatever their names in
 * DIR, none of "bytes". Fails as tokenizer_open. The caller releases *out with tokenizer_free_files. */
Status tokenizer_read_files(const char *name, TokenizerFiles *out, Error *error);

/* Whether all files of the tokenizer `name` are there, readable or not; "bytes" needs none. */
bool tokenizer_has_files(const char *name);

/* Whether a file of this name in the folder of a data set is one that tokenizer_read_files gives. */
bool tokenizer_owns_file(const char *name);

/* Releases what it holds and empties it. */
void tokenizer_free_files(TokenizerFiles *files);

/* Releases a tokenizer; NULL is allowed. */
void tokenizer_close(Tokenizer *tokenizer);

/* Makes room for `more` tokens behind those in the list: for implementations. STATUS_SYSTEM. */
Status token_list_reserve(TokenList *list, int64_t more, Error *error);

#endif
