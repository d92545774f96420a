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

/* The characters that stand for bytes are below it: 68 bytes have one from U+0100 on. */
#define BYTE_CHARACTERS_END (0x100 + 68)

/* One of the two files. */
typedef struct TextFile {
  char *path;
  char *text; /* (bytes), with a zero byte behind */
  size_t bytes;
} TextFile;

static void text_file_free(TextFile *file) {
  free(file->text);
  free(file->path);
}

/* A file's name, and the one that it had in GPT-2's first release. */
typedef struct FileNames {
  const char *name;
  const char *older;
} FileNames;

static const FileNames vocabulary_names = {GPT2_VOCABULARY_FILE, "encoder.json"};
static const FileNames merges_names = {GPT2_MERGES_FILE, "vocab.bpe"};

/* Finds the file of DIRECTORY under either of its names. */
static Status find_file(const char *directory, const FileNames *file, char **out, Error *error) {
  const char *names[2] = {file->name, file->older};
  for (int i = 0; i < 2; i++) {
    if (asprintf(out, "%s/%s", directory, names[i]) < 0) {
      *out = NULL;
      return fail(error, STATUS_SYSTEM, "%s: no memory left for a file name", directory);
    }
    if (file_exists(*out)) return STATUS_OK;
    free(*out);
    *out = NULL;
  }
  return fail(error, STATUS_NO_INPUT, "%s: holds neither %s nor %s of a GPT-2 tokenizer", directory,
              file->name, file->older);
}

static Status read_file(const char *directory, const FileNames *names, TextFile *out, Error *error) {
  *out = (TextFile){0};
  TRY(find_file(directory, names, &out->path, error));
  return file_read_whole(out->path, TOKENIZER_FILE_MAX, &out->text, &out->bytes, error);
}

static Status read_vocabulary_file(const char *directory, TextFile *out, Error *error) {
  return read_file(directory, &vocabulary_names, out, error);
}

static Status read_merges_file(const char *directory, TextFile *out, Error *error) {
  return read_file(directory, &merges_names, out, error);
}

/* ---------------------------------------------------------------- the vocabulary */

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
  TextFile file;
  json_error_t problem;
  TRY_GOTO(read_vocabulary_file(directory, &file, error), release);
  *out = json_loadb(file.text, file.bytes, JSON_REJECT_DUPLICATES, &problem);
  if (*out == NULL) {
    status = fail(error, STATUS_DATA, "%s:%d: is not JSON: %s", file.path, problem.line, problem.text);
  } else if (!json_is_object(*out)) {
    status = fail(error, STATUS_DATA, "%s: is not a JSON object of tokens and ids", file.path);
  } else {
    status = check_ids(file.path, *out, error);
  }
release:
  text_file_free(&file);
  return status;
}

/* The id of a token, or -1. */
static int32_t token_id(const json_t *vocabulary, const char *token) {
  const json_t *id = json_object_get(vocabulary, token);
  return id == NULL ? -1 : (int32_t)json_integer_value(id);
}

/* The characters that stand for bytes, and the other way round; -1: the character stands for none. */
typedef struct ByteCharacters {
  int of_byte[256];
  int to_byte[BYTE_CHARACTERS_END];
} ByteCharacters;

static ByteCharacters byte_characters(void) {
  ByteCharacters out;
  int substitutes = 0;
  for (int i = 0; i < BYTE_CHARACTERS_END; i++) out.to_byte[i] = -1;
  for (int byte = 0; byte < 256; byte++) {
    const bool printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
    out.of_byte[byte] = printable ? byte : 0x100 + substitutes++;
    out.to_byte[out.of_byte[byte]] = byte;
  }
  return out;
}

/* Finds the token of each single byte, by the character that stands for it. */
static Status find_byte_tokens(const char *directory, const json_t *vocabulary,
                               const ByteCharacters *characters, int32_t tokens[256], Error *error) {
  for (int byte = 0; byte < 256; byte++) {
    const int character = characters->of_byte[byte];
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

/* Writes the bytes that a token stands for to `out`, which has room for strlen(token), and returns their
 * number. What is not written in characters for bytes, as names of special tokens may be, stands for itself.
 */
static size_t token_bytes(const ByteCharacters *characters, const char *token, char *out) {
  size_t length = 0;
  for (const char *at = token; *at != '\0'; at++) {
    int character = (unsigned char)*at;
    const bool of_two_bytes = character >= 0xc0 && character < 0xe0;
    if (of_two_bytes) character = (character & 0x1f) << 6 | (*++at & 0x3f);
    const bool known = character < BYTE_CHARACTERS_END && (of_two_bytes || character < 0x80);
    const int byte = known ? characters->to_byte[character] : -1;
    if (byte < 0) {
      length = strlen(token);
      memcpy(out, token, length);
      return length;
    }
    out[length++] = (char)byte;
  }
  return length;
}

/* Fills in the bytes of all tokens: first their numbers, then themselves. */
static Status decode_tokens(const char *directory, json_t *vocabulary, const ByteCharacters *characters,
                            Gpt2Files *out, Error *error) {
  const char *token = NULL;
  json_t *id = NULL;
  size_t length = 0;
  json_object_foreach(vocabulary, token, id) length += strlen(token);
  out->text = malloc(length + 1);
  out->starts = calloc((size_t)out->vocab_size + 1, sizeof *out->starts);
  if (out->text == NULL || out->starts == NULL) {
    return fail(error, STATUS_SYSTEM, "%s: no memory left for %lld tokens", directory,
                (long long)out->vocab_size);
  }
  json_object_foreach(vocabulary, token, id) {
    out->starts[json_integer_value(id) + 1] = (int64_t)token_bytes(characters, token, out->text);
  }
  out->starts[out->end_of_document + 1] = 0;
  for (int64_t i = 0; i < out->vocab_size; i++) out->starts[i + 1] += out->starts[i];
  json_object_foreach(vocabulary, token, id) {
    if (json_integer_value(id) == out->end_of_document) continue;
    (void)token_bytes(characters, token, out->text + out->starts[json_integer_value(id)]);
  }
  return STATUS_OK;
}

/* ---------------------------------------------------------------- the merges */

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
  TextFile file;
  TRY_GOTO(read_merges_file(directory, &file, error), release);
  if (strlen(file.text) != file.bytes) {
    status = fail(error, STATUS_DATA, "%s: holds a zero byte at %zu", file.path, strlen(file.text));
    goto release;
  }
  status = add_merges(bpe, vocabulary, file.path, file.text, error);
release:
  text_file_free(&file);
  return status;
}

/* ---------------------------------------------------------------- both */

static Status read_tokens(const char *directory, json_t *vocabulary, Gpt2Files *out, Error *error) {
  const ByteCharacters characters = byte_characters();
  int32_t byte_tokens[256];
  TRY(find_byte_tokens(directory, vocabulary, &characters, byte_tokens, error));
  out->vocab_size = (int64_t)json_object_size(vocabulary);
  out->end_of_document = token_id(vocabulary, END_OF_TEXT);
  if (out->end_of_document < 0) {
    return fail(error, STATUS_DATA, "%s: the vocabulary has no token \"%s\"", directory, END_OF_TEXT);
  }
  TRY(decode_tokens(directory, vocabulary, &characters, out, error));
  TRY(bpe_create(byte_tokens, &out->bpe, error));
  return read_merges(directory, vocabulary, out->bpe, error);
}

Status gpt2_files_read(const char *directory, Gpt2Files *out, Error *error) {
  json_t *vocabulary = NULL;
  *out = (Gpt2Files){0};
  Status status = read_vocabulary(directory, &vocabulary, error);
  if (status == STATUS_OK) status = read_tokens(directory, vocabulary, out, error);
  json_decref(vocabulary);
  return status;
}

void gpt2_files_free(Gpt2Files *files) {
  bpe_destroy(files->bpe);
  free(files->text);
  free(files->starts);
  *files = (Gpt2Files){0};
}

bool gpt2_files_exist(const char *directory) {
  const FileNames *const both[] = {&vocabulary_names, &merges_names};
  bool exist = true;
  for (int i = 0; i < 2; i++) {
    char *path = NULL;
    Error ignored = {0};
    exist = exist && find_file(directory, both[i], &path, &ignored) == STATUS_OK;
    free(path);
  }
  return exist;
}

Status gpt2_files_load(const char *directory, TokenizerFiles *out, Error *error) {
  Status status = STATUS_OK;
  TextFile vocabulary = {0};
  TextFile merges = {0};
  *out = (TokenizerFiles){0};
  TRY_GOTO(read_vocabulary_file(directory, &vocabulary, error), release);
  TRY_GOTO(read_merges_file(directory, &merges, error), release);
  out->count = 2;
  out->files[0] =
      (TokenizerFile){.name = GPT2_VOCABULARY_FILE, .data = vocabulary.text, .bytes = vocabulary.bytes};
  out->files[1] = (TokenizerFile){.name = GPT2_MERGES_FILE, .data = merges.text, .bytes = merges.bytes};
  vocabulary.text = NULL;
  merges.text = NULL;
release:
  text_file_free(&merges);
  text_file_free(&vocabulary);
  return status;
}
