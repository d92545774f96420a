/* The files of GPT-2's tokenizer. */
#include "data/gpt2_files.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/file.h"

/* GPT-2's own are 1.0 and 0.4 MiB. */
#define TOKENIZER_FILE_MAX ((size_t)64 << 20)

#define END_OF_TEXT "<|endoftext|>"

/* Finds the file of DIRECTORY under either of its names. */
static Status find_file(const char *directory, const char *name, const char *other_name, char **out,
                        Error *error) {
  const char *names[2] = {name, other_name};
  for (int i = 0; i < 2; i++) {
    if (asprintf(out, "%s/%s", directory, names[i]) < 0) {
      *out = NULL;
      return fail(error, STATUS_SYSTEM, "%s: no memory left for a file name", directory);
    }
    if (file_exists(*out)) return STATUS_OK;
    free(*out);
    *out = NULL;
  }
  return fail(error, STATUS_NO_INPUT, "%s: holds neither %s nor %s of a GPT-2 tokenizer", directory, name,
              other_name);
}

/* Whether the ids of a vocabulary are the numbers 0 ... n - 1, each once; otherwise names an entry that is
 * not. */
static Status check_ids(const char *path, json_t *vocabulary, Error *error) {
  const size_t count = json_object_size(vocabulary);
  const char *key = NULL;
  json_t *id = NULL;
  Status status = STATUS_OK;
  bool *seen = calloc(count + 1, sizeof *seen);
  if (seen == NULL) return fail(error, STATUS_SYSTEM, "%s: no memory left for %zu entries", path, count);
  json_object_foreach(vocabulary, key, id) {
    const json_int_t value = json_is_integer(id) ? json_integer_value(id) : -1;
    if (value < 0 || value >= (json_int_t)count || seen[value]) {
      status = fail(error, STATUS_DATA, "%s: the id of \"%s\" is not one of 0 ... %zu, each used once", path,
                    key, count - 1);
      break;
    }
    seen[value] = true;
  }
  free(seen);
  return status;
}

static Status read_vocabulary(const char *directory, json_t **out, Error *error) {
  Status status = STATUS_OK;
  char *path = NULL;
  char *text = NULL;
  size_t bytes = 0;
  json_error_t problem;
  TRY(find_file(directory, "vocab.json", "encoder.json", &path, error));
  TRY_GOTO(file_read_whole(path, TOKENIZER_FILE_MAX, &text, &bytes, error), free_path);
  *out = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &problem);
  if (*out == NULL) {
    status = fail(error, STATUS_DATA, "%s:%d: is not JSON: %s", path, problem.line, problem.text);
  } else if (!json_is_object(*out)) {
    status = fail(error, STATUS_DATA, "%s: is not a JSON object of tokens and ids", path);
  } else {
    status = check_ids(path, *out, error);
  }
free_path:
  free(text);
  free(path);
  return status;
}

/* The id of a token, or -1. */
static int32_t token_id(const json_t *vocabulary, const char *token) {
  const json_t *id = json_object_get(vocabulary, token);
  return id == NULL ? -1 : (int32_t)json_integer_value(id);
}

/* Finds the token of each single byte, by the character that stands for it. */
static Status find_byte_tokens(const char *directory, const json_t *vocabulary, int32_t tokens[256],
                               Error *error) {
  int substitutes = 0;
  for (int byte = 0; byte < 256; byte++) {
    const bool printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
    const int character = printable ? byte : 0x100 + substitutes++;
    char text[3] = {(char)character};
    if (character >= 0x80) {
      text[0] = (char)(0xc0 | character >> 6);
      text[1] = (char)(0x80 | (character & 0x3f));
    }
    tokens[byte] = token_id(vocabulary, text);
    if (tokens[byte] < 0) {
      return fail(error, STATUS_DATA, "%s: the vocabulary has no token \"%s\" for the byte %d", directory,
                  text, byte);
    }
  }
  return STATUS_OK;
}

/* Adds the merge of one line, "left right"; the line is written over. */
static Status add_merge(Bpe *bpe, const json_t *vocabulary, char *line, bool *known, Error *error) {
  char *space = strchr(line, ' ');
  *known = space != NULL;
  if (!*known) return STATUS_OK;
  *space = '\0';
  const int32_t left = token_id(vocabulary, line);
  const int32_t right = token_id(vocabulary, space + 1);
  memmove(space, space + 1, strlen(space + 1) + 1);
  const int32_t merged = token_id(vocabulary, line);
  *known = left >= 0 && right >= 0 && merged >= 0;
  return *known ? bpe_add_merge(bpe, left, right, merged, error) : STATUS_OK;
}

static Status add_merges(Bpe *bpe, const json_t *vocabulary, const char *path, char *text, Error *error) {
  int64_t number = 1;
  for (char *line = text; *line != '\0'; number++) {
    char *next = line + strcspn(line, "\n");
    if (*next == '\n') *next++ = '\0';
    line[strcspn(line, "\r")] = '\0';
    const bool comment = number == 1 && strncmp(line, "#version", strlen("#version")) == 0;
    if (!comment && *line != '\0') {
      bool known = false;
      TRY(add_merge(bpe, vocabulary, line, &known, error));
      if (!known) {
        return fail(error, STATUS_DATA,
                    "%s:%lld: is not a merge of two tokens into one, all three in the vocabulary", path,
                    (long long)number);
      }
    }
    line = next;
  }
  return STATUS_OK;
}

static Status read_merges(const char *directory, const json_t *vocabulary, Bpe *bpe, Error *error) {
  Status status = STATUS_OK;
  char *path = NULL;
  char *text = NULL;
  size_t bytes = 0;
  TRY(find_file(directory, "merges.txt", "vocab.bpe", &path, error));
  TRY_GOTO(file_read_whole(path, TOKENIZER_FILE_MAX, &text, &bytes, error), free_path);
  if (strlen(text) != bytes) {
    status = fail(error, STATUS_DATA, "%s: holds a zero byte at %zu", path, strlen(text));
    goto free_path;
  }
  status = add_merges(bpe, vocabulary, path, text, error);
free_path:
  free(text);
  free(path);
  return status;
}

Status gpt2_files_read(const char *directory, Bpe **out, int64_t *vocab_size, int32_t *end_of_document,
                       Error *error) {
  *out = NULL;
  Status status = STATUS_OK;
  json_t *vocabulary = NULL;
  Bpe *bpe = NULL;
  int32_t byte_tokens[256];
  TRY_GOTO(read_vocabulary(directory, &vocabulary, error), done);
  TRY_GOTO(find_byte_tokens(directory, vocabulary, byte_tokens, error), done);
  *vocab_size = (int64_t)json_object_size(vocabulary);
  *end_of_document = token_id(vocabulary, END_OF_TEXT);
  if (*end_of_document < 0) {
    status = fail(error, STATUS_DATA, "%s: the vocabulary has no token \"%s\"", directory, END_OF_TEXT);
    goto done;
  }
  TRY_GOTO(bpe_create(byte_tokens, &bpe, error), done);
  TRY_GOTO(read_merges(directory, vocabulary, bpe, error), done);
  *out = bpe;
  bpe = NULL;
done:
  bpe_destroy(bpe);
  json_decref(vocabulary);
  return status;
}
