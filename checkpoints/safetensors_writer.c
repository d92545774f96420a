/* safetensors files: the writer. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "checkpoints/safetensors.h"
#include "checkpoints/safetensors_header.h"
#include "kernels/base/memory.h"

#define PART_BYTES ((size_t)1 << 18)

/* A text that is measured first (size 0, no room) and then written into room of that size. */
typedef struct Text {
  char *room;
  size_t size;
  size_t used; /* bytes that the text has so far, also where there is no room for them */
} Text;

static void append(Text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void append(Text *text, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  char *next = text->size > 0 ? text->room + text->used : NULL;
  const size_t left = text->size > 0 ? text->size - text->used : 0;
  const int length = vsnprintf(next, left, format, arguments);
  va_end(arguments);
  if (length > 0) text->used += (size_t)length;
}

/* The JSON of all items. Names of parameters need no escapes. Returns the bytes of their data. */
static int64_t print_header(Text *text, const SafetensorsItem *items, int64_t count) {
  int64_t bytes = 0;
  append(text, "{\"__metadata__\":{\"format\":\"pt\"}");
  for (int64_t i = 0; i < count; i++) {
    const SafetensorsItem *item = &items[i];
    int64_t elements = item->shape[0];
    append(text, ",\"%s\":{\"dtype\":\"F32\",\"shape\":[%" PRId64, item->name, item->shape[0]);
    if (item->rank == 2) {
      append(text, ",%" PRId64, item->shape[1]);
      elements *= item->shape[1];
    }
    const int64_t end = bytes + elements * (int64_t)sizeof(float);
    append(text, "],\"data_offsets\":[%" PRId64 ",%" PRId64 "]}", bytes, end);
    bytes = end;
  }
  append(text, "}");
  return bytes;
}

/* The whole header in *out, a new block of *size bytes: length, JSON, and spaces so that the data begin at a
 * multiple of 8. */
static Status make_header(const char *path, const SafetensorsItem *items, int64_t count, char **out,
                          size_t *size, int64_t *data_bytes, Error *error) {
  Text text = {0};
  *out = NULL;
  *data_bytes = print_header(&text, items, count);
  const uint64_t length = (text.used + 7) / 8 * 8;
  if (length > (uint64_t)SAFETENSORS_MAX_HEADER || count > SAFETENSORS_MAX_TENSORS) {
    return fail(error, STATUS_INTERNAL, "%s: %lld tensors are more than a safetensors file may hold", path,
                (long long)count);
  }
  *size = sizeof length + length;
  TRY(memory_alloc(*size + 1, 1, "header of a checkpoint", (void **)out, error)); /* 1: the text's end */
  text = (Text){.room = *out + sizeof length, .size = length + 1};
  (void)print_header(&text, items, count);
  memcpy(*out, &length, sizeof length);
  memset(*out + sizeof length + text.used, ' ', length - text.used);
  return STATUS_OK;
}

/* Writes in parts that stay in the cache from the checksum to the write. */
static Status append_bytes(SafetensorsWriter *writer, const void *data, size_t bytes, Error *error) {
  const char *next = data;
  while (bytes > 0) {
    const size_t part = bytes < PART_BYTES ? bytes : PART_BYTES;
    writer->crc32 = (uint32_t)crc32_z(writer->crc32, (const Bytef *)next, part);
    TRY(file_write_all(&writer->file, next, part, error));
    writer->size += (int64_t)part;
    next += part;
    bytes -= part;
  }
  return STATUS_OK;
}

Status safetensors_create(const char *path, const SafetensorsItem *items, int64_t count,
                          SafetensorsWriter *out, Error *error) {
  *out = SAFETENSORS_WRITER_CLOSED;
  char *header = NULL;
  size_t header_size = 0;
  int64_t data_bytes = 0;
  Status status = STATUS_OK;
  TRY_GOTO(make_header(path, items, count, &header, &header_size, &data_bytes, error), release);
  TRY_GOTO(file_create(path, &out->file, error), release);
  TRY_GOTO(append_bytes(out, header, header_size, error), close);
  out->expected = out->size + data_bytes;
  free(header);
  return STATUS_OK;
close:
  safetensors_abandon(out);
release:
  free(header);
  return status;
}

Status safetensors_append(SafetensorsWriter *writer, const float *data, int64_t count, Error *error) {
  return append_bytes(writer, data, (size_t)count * sizeof *data, error);
}

Status safetensors_finish(SafetensorsWriter *writer, Error *error) {
  if (writer->size != writer->expected) {
    const Status status =
        fail(error, STATUS_INTERNAL, "%s: %lld bytes were written, its header promises %lld",
             writer->file.path, (long long)writer->size, (long long)writer->expected);
    safetensors_abandon(writer);
    return status;
  }
  return file_sync_close(&writer->file, error);
}

void safetensors_abandon(SafetensorsWriter *writer) {
  file_close(&writer->file);
}
