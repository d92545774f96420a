/* The description of a prepared set. */
#include "data/description.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "kernels/base/file.h"

#define DESCRIPTION_FORMAT "ringgpt dataset"
#define DESCRIPTION_VERSION 1
#define DESCRIPTION_BYTES_MAX 65536

const char *split_name(Split split) {
  return split == SPLIT_TRAIN ? "train" : "val";
}

Status split_shard_path(const char *directory, Split split, int64_t shard, char **out, Error *error) {
  if (asprintf(out, "%s/%s_%06" PRId64 ".bin.gz", directory, split_name(split), shard) < 0) {
    *out = NULL;
    return fail(error, STATUS_SYSTEM, "%s: no memory left for a file name", directory);
  }
  return STATUS_OK;
}

static Status description_path(const char *directory, char **out, Error *error) {
  if (asprintf(out, "%s/" DESCRIPTION_FILE, directory) < 0) {
    *out = NULL;
    return fail(error, STATUS_SYSTEM, "%s: no memory left for a file name", directory);
  }
  return STATUS_OK;
}

static bool read_count(const json_t *object, const char *key, int64_t *out) {
  const json_t *value = json_object_get(object, key);
  if (!json_is_integer(value) || json_integer_value(value) < 0) return false;
  *out = json_integer_value(value);
  return true;
}

static bool read_split(const json_t *splits, Split split, SplitDescription *out) {
  const json_t *object = json_object_get(splits, split_name(split));
  return read_count(object, "shards", &out->shards) && out->shards <= SPLIT_SHARDS_MAX &&
         read_count(object, "tokens", &out->tokens) && read_count(object, "documents", &out->documents) &&
         read_count(object, "bytes", &out->bytes);
}

static bool read_file(const json_t *object, DescribedFile *out) {
  const char *name = json_string_value(json_object_get(object, "name"));
  const char *crc32 = json_string_value(json_object_get(object, "crc32"));
  if (name == NULL || strlen(name) >= sizeof out->name || !read_count(object, "bytes", &out->bytes)) {
    return false;
  }
  (void)snprintf(out->name, sizeof out->name, "%s", name);
  if (crc32 == NULL || strlen(crc32) != 8 || strspn(crc32, "0123456789abcdef") != 8) return false;
  out->crc32 = (uint32_t)strtoul(crc32, NULL, 16);
  return true;
}

/* The files of the tokenizer, which older descriptions do not have. */
static bool read_files(const json_t *files, Description *out) {
  const json_t *file = NULL;
  size_t i = 0;
  if (files == NULL) return true;
  if (!json_is_array(files) || json_array_size(files) > TOKENIZER_MOST_FILES) return false;
  json_array_foreach(files, i, file) {
    if (!read_file(file, &out->files[i])) return false;
  }
  out->file_count = (int64_t)json_array_size(files);
  return true;
}

/* Takes the description from its JSON; names in *wrong the first entry that is missing or wrong. */
static bool parse_description(const json_t *root, Description *out, const char **wrong) {
  const char *format = json_string_value(json_object_get(root, "format"));
  const char *tokenizer = json_string_value(json_object_get(root, "tokenizer"));
  const json_t *splits = json_object_get(root, "splits");
  int64_t end_of_document = 0;
  *wrong = "format";
  if (format == NULL || strcmp(format, DESCRIPTION_FORMAT) != 0) return false;
  *wrong = "version";
  if (json_integer_value(json_object_get(root, "version")) != DESCRIPTION_VERSION) return false;
  *wrong = "tokenizer";
  if (tokenizer == NULL || strlen(tokenizer) >= sizeof out->tokenizer) return false;
  (void)snprintf(out->tokenizer, sizeof out->tokenizer, "%s", tokenizer);
  *wrong = "vocab_size";
  if (!read_count(root, "vocab_size", &out->vocab_size) || out->vocab_size > INT32_MAX) return false;
  *wrong = "end_of_document";
  if (!read_count(root, "end_of_document", &end_of_document) || end_of_document >= out->vocab_size) {
    return false;
  }
  out->end_of_document = (int32_t)end_of_document;
  *wrong = "tokenizer_files";
  if (!read_files(json_object_get(root, "tokenizer_files"), out)) return false;
  *wrong = "splits";
  return read_split(splits, SPLIT_TRAIN, &out->splits[SPLIT_TRAIN]) &&
         read_split(splits, SPLIT_VAL, &out->splits[SPLIT_VAL]);
}

Status description_read(const char *directory, Description *out, Error *error) {
  *out = (Description){0};
  Status status = STATUS_OK;
  char *path = NULL;
  char *text = NULL;
  size_t bytes = 0;
  const char *wrong = NULL;
  json_t *root = NULL;
  json_error_t problem;
  TRY(description_path(directory, &path, error));
  TRY_GOTO(file_read_whole(path, DESCRIPTION_BYTES_MAX, &text, &bytes, error), free_path);
  root = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &problem);
  if (root == NULL) {
    status = fail(error, STATUS_DATA, "%s:%d: is not JSON: %s", path, problem.line, problem.text);
  } else if (!parse_description(root, out, &wrong)) {
    status = fail(error, STATUS_DATA, "%s: \"%s\" is missing or wrong: prepare the set again", path, wrong);
  }
  json_decref(root);
free_path:
  free(text);
  free(path);
  return status;
}

static json_t *pack_split(const SplitDescription *split) {
  return json_pack("{s:I, s:I, s:I, s:I}", "shards", (json_int_t)split->shards, "tokens",
                   (json_int_t)split->tokens, "documents", (json_int_t)split->documents, "bytes",
                   (json_int_t)split->bytes);
}

/* A member of its own, which sets whose tokenizer has no files do without. */
static bool pack_files(const Description *description, json_t *root) {
  if (description->file_count == 0) return true;
  json_t *files = json_array();
  for (int64_t i = 0; i < description->file_count; i++) {
    const DescribedFile *file = &description->files[i];
    char crc32[16];
    (void)snprintf(crc32, sizeof crc32, "%08" PRIx32, file->crc32);
    json_t *packed =
        json_pack("{s:s, s:I, s:s}", "name", file->name, "bytes", (json_int_t)file->bytes, "crc32", crc32);
    if (json_array_append_new(files, packed) != 0) {
      json_decref(files);
      return false;
    }
  }
  return json_object_set_new(root, "tokenizer_files", files) == 0;
}

void description_set_files(Description *description, const TokenizerFiles *files) {
  description->file_count = files->count;
  for (int64_t i = 0; i < files->count; i++) {
    const TokenizerFile *file = &files->files[i];
    DescribedFile *described = &description->files[i];
    (void)snprintf(described->name, sizeof described->name, "%s", file->name);
    described->bytes = (int64_t)file->bytes;
    described->crc32 = (uint32_t)crc32_z(0, (const unsigned char *)file->data, file->bytes);
  }
}

void description_compare_files(const Description *description, const TokenizerFiles *files,
                               const char **other) {
  Description given;
  *other = NULL;
  description_set_files(&given, files);
  for (int64_t i = 0; i < description->file_count && *other == NULL; i++) {
    const DescribedFile *described = &description->files[i];
    for (int64_t j = 0; j < given.file_count; j++) {
      const DescribedFile *file = &given.files[j];
      const bool same = file->bytes == described->bytes && file->crc32 == described->crc32;
      if (strcmp(file->name, described->name) == 0 && !same) *other = files->files[j].name;
    }
  }
}

Status description_write(const char *directory, const Description *description, Error *error) {
  Status status = STATUS_OK;
  char *path = NULL;
  char *text = NULL;
  json_t *root =
      json_pack("{s:s, s:i, s:s, s:I, s:i, s:{s:o, s:o}}", "format", DESCRIPTION_FORMAT, "version",
                DESCRIPTION_VERSION, "tokenizer", description->tokenizer, "vocab_size",
                (json_int_t)description->vocab_size, "end_of_document", (int)description->end_of_document,
                "splits", split_name(SPLIT_TRAIN), pack_split(&description->splits[SPLIT_TRAIN]),
                split_name(SPLIT_VAL), pack_split(&description->splits[SPLIT_VAL]));
  if (root != NULL && pack_files(description, root)) text = json_dumps(root, JSON_INDENT(2));
  if (text == NULL) {
    status =
        fail(error, STATUS_SYSTEM,
             "%s: its description cannot be written as JSON: no memory left, or a tokenizer's name that is "
             "not UTF-8",
             directory);
    goto free_root;
  }
  TRY_GOTO(description_path(directory, &path, error), free_text);
  status = file_replace(path, text, strlen(text), error);
  free(path);
free_text:
  free(text);
free_root:
  json_decref(root);
  return status;
}
