/* The manifest of a checkpoint, as JSON with a checksum over itself. */
#include "checkpoints/manifest.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <zlib.h>

#include "checkpoints/directory.h"
#include "checkpoints/json_write.h"
#include "kernels/base/file.h"

#define MANIFEST_FORMAT "ringgpt checkpoint"
#define MANIFEST_VERSION 1

/* Room for the files of some ten thousand ranks, and little enough for any machine to parse. */
#define MANIFEST_MAX_BYTES ((size_t)1 << 20)

/* The end of the file, from the comma behind the last member that the checksum covers. */
#define TAIL_FORMAT ",\n  \"crc32\": \"%08" PRIx32 "\"\n}\n"
#define TAIL_BYTES (sizeof(",\n  \"crc32\": \"00000000\"\n}\n") - 1)

static uint32_t crc32_bytes(uint32_t crc, const void *data, size_t bytes) {
  return (uint32_t)crc32_z(crc, data, bytes);
}

uint32_t manifest_model_crc32(const TensorTable *table) {
  uint32_t crc = 0;
  for (int64_t i = 0; i < table->size; i++) {
    const TensorEntry *entry = &table->entries[i];
    crc = crc32_bytes(crc, entry->name, strlen(entry->name) + 1);
    crc = crc32_bytes(crc, entry->shape, sizeof entry->shape);
  }
  return crc;
}

/* ---------------------------------------------------------------- writing */

static void write_crc32(JsonWriter *writer, const char *key, uint32_t crc) {
  char text[16];
  (void)snprintf(text, sizeof text, "%08" PRIx32, crc);
  json_write_string(writer, key, text);
}

static void write_time(JsonWriter *writer, int64_t seconds) {
  char text[64] = "";
  struct tm utc = {0};
  const time_t time = (time_t)seconds;
  if (gmtime_r(&time, &utc) != NULL) (void)strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc);
  json_write_string(writer, "time", text);
}

static void write_topology(JsonWriter *root, const CheckpointManifest *manifest) {
  JsonWriter topology = json_write_begin();
  json_write_integer(&topology, "ring", manifest->ring);
  json_write_integer(&topology, "data", manifest->data);
  json_write_string(&topology, "transport", manifest->transport);
  json_write_integer(&topology, "threads", manifest->threads);
  json_write_object(root, "topology", &topology);
}

static void write_model(JsonWriter *root, const CheckpointManifest *manifest) {
  JsonWriter model = json_write_begin();
  json_write_integer(&model, "parameters", manifest->parameters);
  json_write_integer(&model, "tensors", manifest->tensors);
  write_crc32(&model, "crc32", manifest->model_crc32);
  json_write_object(root, "model", &model);
}

static void write_files(JsonWriter *root, const ManifestFiles *files) {
  json_t *array = json_array();
  for (int64_t i = 0; i < files->count; i++) {
    JsonWriter file = json_write_begin();
    json_write_string(&file, "name", files->files[i].name);
    json_write_integer(&file, "size", files->files[i].size);
    write_crc32(&file, "crc32", files->files[i].crc32);
    const bool appended = json_array_append_new(array, file.object) == 0;
    root->failed = root->failed || file.failed || !appended;
  }
  json_write_value(root, "files", array);
}

static JsonWriter write_manifest(const CheckpointManifest *manifest, const ManifestFiles *files) {
  JsonWriter root = json_write_begin();
  json_write_string(&root, "format", MANIFEST_FORMAT);
  json_write_integer(&root, "version", MANIFEST_VERSION);
  write_time(&root, manifest->time);
  json_write_integer(&root, "step", manifest->step);
  json_write_integer(&root, "tokens", manifest->tokens);
  json_write_integer(&root, "skipped_steps", manifest->skipped_steps);
  json_write_integer(&root, "skipped_in_a_row", manifest->skipped_in_a_row);
  write_topology(&root, manifest);
  write_model(&root, manifest);
  write_files(&root, files);
  return root;
}

/* The text of the file in *out, a new string. */
static Status manifest_text(const char *path, const CheckpointManifest *manifest, const ManifestFiles *files,
                            char **out, Error *error) {
  *out = NULL;
  JsonWriter root = write_manifest(manifest, files);
  char *body = root.failed ? NULL : json_dumps(root.object, JSON_INDENT(2));
  json_decref(root.object);
  if (body != NULL) {
    const size_t covered = strlen(body) - 2; /* without the final line end and brace */
    const uint32_t crc = crc32_bytes(0, body, covered);
    if (asprintf(out, "%.*s" TAIL_FORMAT, (int)covered, body, crc) < 0) *out = NULL;
  }
  free(body);
  if (*out == NULL) return fail(error, STATUS_SYSTEM, "%s: no memory left", path);
  if (strlen(*out) > MANIFEST_MAX_BYTES) {
    return fail(error, STATUS_INTERNAL, "%s: %lld files are more than a manifest may list", path,
                (long long)files->count);
  }
  return STATUS_OK;
}

Status manifest_write(const char *directory, const CheckpointManifest *manifest, const ManifestFiles *files,
                      Error *error) {
  char path[PATH_MAX];
  char *text = NULL;
  File file = FILE_CLOSED;
  Status status = STATUS_OK;
  TRY(directory_join(directory, MANIFEST_NAME, path, error));
  TRY_GOTO(manifest_text(path, manifest, files, &text, error), release);
  TRY_GOTO(file_create(path, &file, error), release);
  TRY_GOTO(file_write_all(&file, text, strlen(text), error), close);
  TRY_GOTO(file_sync_close(&file, error), close);
close:
  file_close(&file);
release:
  free(text);
  return status;
}

/* ---------------------------------------------------------------- reading */

typedef struct Reader {
  const char *path;
  Error *error;
} Reader;

static Status damaged(const Reader *reader, const char *key) {
  return fail(reader->error, STATUS_DATA, "%s: damaged: %s is missing or makes no sense", reader->path, key);
}

static Status get_natural(const Reader *reader, const json_t *object, const char *key, int64_t *value) {
  const json_t *json = json_object_get(object, key);
  if (!json_is_integer(json) || json_integer_value(json) < 0) return damaged(reader, key);
  *value = json_integer_value(json);
  return STATUS_OK;
}

/* Copies a string that fits. */
static Status get_string(const Reader *reader, const json_t *object, const char *key, char *value,
                         size_t size) {
  const json_t *json = json_object_get(object, key);
  if (!json_is_string(json) || json_string_length(json) >= size) return damaged(reader, key);
  memcpy(value, json_string_value(json), json_string_length(json) + 1);
  return STATUS_OK;
}

static Status get_crc32(const Reader *reader, const json_t *object, const char *key, uint32_t *value) {
  char text[16];
  TRY(get_string(reader, object, key, text, sizeof text));
  if (strlen(text) != 8 || strspn(text, "0123456789abcdef") != 8) return damaged(reader, key);
  *value = (uint32_t)strtoul(text, NULL, 16);
  return STATUS_OK;
}

static Status get_time(const Reader *reader, const json_t *object, int64_t *seconds) {
  char text[64];
  struct tm utc = {0};
  TRY(get_string(reader, object, "time", text, sizeof text));
  const char *end = strptime(text, "%Y-%m-%dT%H:%M:%SZ", &utc);
  if (end == NULL || *end != '\0') return damaged(reader, "time");
  *seconds = (int64_t)timegm(&utc);
  return STATUS_OK;
}

/* A name that stays in the directory and can be shown: neither hidden nor with anything but these characters.
 */
static bool name_is_local(const char *name) {
  static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.";
  return name[0] != '\0' && name[0] != '.' && name[strspn(name, allowed)] == '\0';
}

static Status get_file(const Reader *reader, const json_t *json, ManifestFile *file) {
  TRY(get_string(reader, json, "name", file->name, sizeof file->name));
  if (!name_is_local(file->name)) return damaged(reader, "the name of a file");
  TRY(get_natural(reader, json, "size", &file->size));
  return get_crc32(reader, json, "crc32", &file->crc32);
}

static Status get_files(const Reader *reader, const json_t *root, ManifestFiles *files) {
  const json_t *array = json_object_get(root, "files");
  const size_t count = json_array_size(array);
  if (count == 0) return damaged(reader, "files");
  files->files = calloc(count, sizeof *files->files);
  if (files->files == NULL) return fail(reader->error, STATUS_SYSTEM, "%s: no memory left", reader->path);
  files->count = (int64_t)count;
  for (size_t i = 0; i < count; i++) TRY(get_file(reader, json_array_get(array, i), &files->files[i]));
  return STATUS_OK;
}

static Status get_numbers(const Reader *reader, const json_t *root, CheckpointManifest *manifest) {
  const json_t *topology = json_object_get(root, "topology");
  const json_t *model = json_object_get(root, "model");
  TRY(get_time(reader, root, &manifest->time));
  TRY(get_natural(reader, root, "step", &manifest->step));
  TRY(get_natural(reader, root, "tokens", &manifest->tokens));
  TRY(get_natural(reader, root, "skipped_steps", &manifest->skipped_steps));
  TRY(get_natural(reader, root, "skipped_in_a_row", &manifest->skipped_in_a_row));
  TRY(get_natural(reader, topology, "ring", &manifest->ring));
  TRY(get_natural(reader, topology, "data", &manifest->data));
  TRY(get_natural(reader, topology, "threads", &manifest->threads));
  TRY(get_string(reader, topology, "transport", manifest->transport, sizeof manifest->transport));
  TRY(get_natural(reader, model, "parameters", &manifest->parameters));
  TRY(get_natural(reader, model, "tensors", &manifest->tensors));
  return get_crc32(reader, model, "crc32", &manifest->model_crc32);
}

static Status get_manifest(const Reader *reader, const json_t *root, CheckpointManifest *manifest,
                           ManifestFiles *files) {
  char format[32];
  int64_t version = 0;
  TRY(get_string(reader, root, "format", format, sizeof format));
  if (strcmp(format, MANIFEST_FORMAT) != 0) return damaged(reader, "format");
  TRY(get_natural(reader, root, "version", &version));
  if (version != MANIFEST_VERSION) {
    return fail(reader->error, STATUS_DATA, "%s: is of version %lld; this program reads version %d",
                reader->path, (long long)version, MANIFEST_VERSION);
  }
  TRY(get_numbers(reader, root, manifest));
  return get_files(reader, root, files);
}

/* The checksum at the end, compared as text, so that no byte of the file is left out; it is stored in *crc.
 */
static Status check_tail(const Reader *reader, const char *text, size_t bytes, uint32_t *crc) {
  char tail[TAIL_BYTES + 1];
  if (bytes > TAIL_BYTES) {
    const size_t covered = bytes - TAIL_BYTES;
    *crc = crc32_bytes(0, text, covered);
    (void)snprintf(tail, sizeof tail, TAIL_FORMAT, *crc);
    if (memcmp(text + covered, tail, TAIL_BYTES) == 0) return STATUS_OK;
  }
  return fail(reader->error, STATUS_DATA, "%s: damaged: it does not match its own checksum", reader->path);
}

Status manifest_read(const char *directory, CheckpointManifest *manifest, ManifestFiles *files,
                     Error *error) {
  char path[PATH_MAX];
  const Reader reader = {.path = path, .error = error};
  char *text = NULL;
  size_t bytes = 0;
  json_error_t ignored;
  json_t *root = NULL;
  Status status = STATUS_OK;
  *manifest = (CheckpointManifest){0};
  *files = (ManifestFiles){0};
  TRY(directory_join(directory, MANIFEST_NAME, path, error));
  TRY(file_read_whole(path, MANIFEST_MAX_BYTES, &text, &bytes, error));
  TRY_GOTO(check_tail(&reader, text, bytes, &manifest->crc32), release);
  root = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &ignored);
  if (root == NULL) {
    /* What was written under this checksum was JSON: the parser does not tell want of memory from bad syntax.
     */
    status = fail(error, STATUS_SYSTEM,
                  "%s: its checksum is right, but it cannot be parsed: no memory is left, or another program "
                  "wrote it",
                  path);
    goto release;
  }
  status = get_manifest(&reader, root, manifest, files);
  json_decref(root);
release:
  free(text);
  if (status != STATUS_OK) {
    free(files->files);
    *files = (ManifestFiles){0};
  }
  return status;
}
