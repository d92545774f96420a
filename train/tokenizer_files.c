/* The tokenizer that a checkpoint carries. */
#include "train/tokenizer_files.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/shard_names.h"
#include "data/tokenizer.h"
#include "kernels/base/file.h"

#define BYTES_FILE "ringgpt_tokenizer.json"
#define BYTES_FORMAT "{\"tokenizer\": \"bytes\", \"vocab_size\": %lld, \"end_of_document\": %d}\n"
#define BYTES_FILE_MAX 65536

/* What AutoTokenizer needs beside the two files to know their kind. */
#define GPT2_CONFIG_FILE "tokenizer_config.json"
#define GPT2_CONFIG                                                                                          \
  "{\n"                                                                                                      \
  "  \"tokenizer_class\": \"GPT2Tokenizer\",\n"                                                              \
  "  \"bos_token\": \"<|endoftext|>\",\n"                                                                    \
  "  \"eos_token\": \"<|endoftext|>\",\n"                                                                    \
  "  \"unk_token\": \"<|endoftext|>\",\n"                                                                    \
  "  \"add_prefix_space\": false,\n"                                                                         \
  "  \"clean_up_tokenization_spaces\": false\n"                                                              \
  "}\n"

/* Both behind one another, in a new block. */
static Status join_name(const char *first, const char *second, char **name, Error *error) {
  const size_t bytes = strlen(first) + strlen(second) + 1;
  *name = malloc(bytes);
  if (*name == NULL) return fail(error, STATUS_SYSTEM, "%s%s: no memory left for a name", first, second);
  (void)snprintf(*name, bytes, "%s%s", first, second);
  return STATUS_OK;
}

/* ---------------------------------------------------------------- into a checkpoint */

/* Adds a file whose data, a block of its own, becomes the list's; NULL: there was no memory for it. */
static Status add_file(CarriedTokenizer *out, const char *name, char *data, size_t bytes, Error *error) {
  if (data == NULL) return fail(error, STATUS_SYSTEM, "no memory left for %s", name);
  out->files[out->count] = (CheckpointFile){.name = name, .data = data, .size = (int64_t)bytes};
  out->owned[out->count++] = data;
  return STATUS_OK;
}

static Status add_bytes(const Description *set, CarriedTokenizer *out, Error *error) {
  char *text = NULL;
  const int length = asprintf(&text, BYTES_FORMAT, (long long)set->vocab_size, (int)set->end_of_document);
  return add_file(out, BYTES_FILE, length < 0 ? NULL : text, (size_t)length, error);
}

/* Whether the tokenizer `name`, with these files, is the one that the set was prepared with: by its numbers,
 * and by the checksums of its files where the set has them. */
static Status is_of_set(const char *name, const TokenizerFiles *files, const Description *set, bool *same,
                        Error *error) {
  Tokenizer *tokenizer = NULL;
  const char *other = NULL;
  TRY(tokenizer_open(name, &tokenizer, error));
  description_compare_files(set, files, &other);
  *same = other == NULL && tokenizer->vocab_size == set->vocab_size &&
          tokenizer->end_of_document == set->end_of_document;
  tokenizer_close(tokenizer);
  return STATUS_OK;
}

/* Hands the files over to the list. */
static Status add_files(TokenizerFiles *files, CarriedTokenizer *out, Error *error) {
  for (int64_t i = 0; i < files->count; i++) {
    TokenizerFile *file = &files->files[i];
    char *data = file->data;
    file->data = NULL;
    TRY(add_file(out, file->name, data, file->bytes, error));
  }
  return add_file(out, GPT2_CONFIG_FILE, strdup(GPT2_CONFIG), strlen(GPT2_CONFIG), error);
}

/* Adds the files of the tokenizer `name` where it is the set's; *same: whether it is. */
static Status add_gpt2(const char *name, const Description *set, bool *same, CarriedTokenizer *out,
                       Error *error) {
  TokenizerFiles files;
  *same = false;
  TRY(tokenizer_read_files(name, &files, error));
  Status status = is_of_set(name, &files, set, same, error);
  if (status == STATUS_OK && *same) status = add_files(&files, out, error);
  tokenizer_free_files(&files);
  return status;
}

/* The files beside the shards. */
static Status add_own(const char *directory, const Description *set, CarriedTokenizer *out, Error *error) {
  char *name = NULL;
  bool same = true;
  TRY(join_name("gpt2:", directory, &name, error));
  Status status = STATUS_OK;
  if (tokenizer_has_files(name)) status = add_gpt2(name, set, &same, out, error);
  if (status == STATUS_OK && !same) {
    status = fail(error, STATUS_DATA,
                  "%s: the tokenizer there is not the one that the set was prepared with, which has %lld "
                  "tokens: move its files away or prepare the set again",
                  directory, (long long)set->vocab_size);
  }
  free(name);
  return status;
}

/* The files where they were when the set was prepared; what is there now may be anything, but not unreadable.
 */
static Status add_recorded(const Description *set, CarriedTokenizer *out, Error *error) {
  bool same = false;
  Error reason = {0};
  if (!tokenizer_has_files(set->tokenizer)) return STATUS_OK;
  const Status status = add_gpt2(set->tokenizer, set, &same, out, &reason);
  if (status == STATUS_OK || status == STATUS_DATA || status == STATUS_USAGE) return STATUS_OK;
  return fail(error, status, "%s", reason.text);
}

static Status tell_missing(const ShardNames *names, CarriedTokenizer *out, Error *error) {
  if (asprintf(&out->missing,
               "%s: was prepared with the tokenizer %s, whose files are neither there nor where they were "
               "then: checkpoints will have none",
               names->directory, names->description.tokenizer) >= 0) {
    return STATUS_OK;
  }
  out->missing = NULL;
  return fail(error, STATUS_SYSTEM, "%s: no memory left for a message", names->directory);
}

static Status collect(const ShardNames *names, CarriedTokenizer *out, Error *error) {
  const Description *set = &names->description;
  if (!names->described) return STATUS_OK;
  if (strcmp(set->tokenizer, "bytes") == 0) return add_bytes(set, out, error);
  TRY(add_own(names->directory, set, out, error));
  if (out->count == 0) TRY(add_recorded(set, out, error));
  return out->count > 0 ? STATUS_OK : tell_missing(names, out, error);
}

Status tokenizer_files_collect(const char *pattern, CarriedTokenizer *out, Error *error) {
  ShardNames names = {0};
  *out = (CarriedTokenizer){0};
  Status status = shard_names_find(pattern, &names, error);
  if (status == STATUS_OK) status = collect(&names, out, error);
  shard_names_free(&names);
  if (status != STATUS_OK) tokenizer_files_free(out);
  return status;
}

void tokenizer_files_free(CarriedTokenizer *tokenizer) {
  for (int64_t i = 0; i < tokenizer->count; i++) free(tokenizer->owned[i]);
  free(tokenizer->missing);
  *tokenizer = (CarriedTokenizer){0};
}

/* ---------------------------------------------------------------- out of a checkpoint */

static bool holds(const char *directory, const char *name) {
  char *path = NULL;
  const bool there = asprintf(&path, "%s/%s", directory, name) >= 0 && file_exists(path);
  free(path);
  return there;
}

/* Reads the description of the tokenizer of bytes. */
static Status check_bytes(const char *directory, Error *error) {
  char *path = NULL;
  char *text = NULL;
  size_t bytes = 0;
  Status status = STATUS_OK;
  Tokenizer *tokenizer = NULL;
  json_t *root = NULL;
  TRY(join_name(directory, "/" BYTES_FILE, &path, error));
  TRY_GOTO(file_read_whole(path, BYTES_FILE_MAX, &text, &bytes, error), release_path);
  TRY_GOTO(tokenizer_open("bytes", &tokenizer, error), release_text);
  root = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, NULL);
  const char *name = json_string_value(json_object_get(root, "tokenizer"));
  if (name == NULL || strcmp(name, "bytes") != 0 ||
      json_integer_value(json_object_get(root, "vocab_size")) != tokenizer->vocab_size ||
      json_integer_value(json_object_get(root, "end_of_document")) != tokenizer->end_of_document) {
    status = fail(error, STATUS_DATA, "%s: does not describe the tokenizer of bytes, as it should", path);
  }
  json_decref(root);
  tokenizer_close(tokenizer);
release_text:
  free(text);
release_path:
  free(path);
  return status;
}

Status tokenizer_files_find(const char *directory, char **name, Error *error) {
  static const char *const files[] = {"vocab.json", "merges.txt", BYTES_FILE};
  *name = NULL;
  for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
    TRY(checkpoint_verify_file(directory, files[i], error));
  }
  TRY(join_name("gpt2:", directory, name, error));
  if (tokenizer_has_files(*name)) return STATUS_OK;
  free(*name);
  *name = NULL;
  if (holds(directory, BYTES_FILE)) {
    TRY(check_bytes(directory, error));
    return join_name("bytes", "", name, error);
  }
  return fail(error, STATUS_CONFIG,
              "%s: holds no tokenizer that this program reads (vocab.json and merges.txt, or " BYTES_FILE
              "): name the one that the model was trained with by --tokenizer bytes or --tokenizer gpt2:DIR",
              directory);
}
