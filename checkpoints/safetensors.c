/* safetensors files: the reader. */
#include "checkpoints/safetensors.h"

#include <stdlib.h>
#include <string.h>

#include "checkpoints/safetensors_header.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "files are read and written as they lie in memory");

/* Elements of two bytes that are read at a time, before they become floats. */
#define HALVES 8192

static Status read_header(Safetensors *tensors, Error *error) {
  const char *path = tensors->file.path;
  uint64_t header = 0;
  int64_t bytes = 0;
  TRY(file_size(&tensors->file, &bytes, error));
  TRY(file_read_exact_at(&tensors->file, 0, &header, sizeof header, error));
  if (header > (uint64_t)SAFETENSORS_MAX_HEADER) {
    return fail(error, STATUS_DATA, "%s: not a safetensors file: its header would have %llu bytes", path,
                (unsigned long long)header);
  }
  const int64_t data_begin = (int64_t)(sizeof header + header);
  if (data_begin > bytes) {
    return fail(error, STATUS_DATA, "%s: its header of %llu bytes does not fit into its %lld bytes", path,
                (unsigned long long)header, (long long)bytes);
  }
  tensors->names = malloc(header + 1);
  if (tensors->names == NULL) return fail(error, STATUS_SYSTEM, "%s: no memory left for its header", path);
  TRY(file_read_exact_at(&tensors->file, sizeof header, tensors->names, header, error));
  return safetensors_parse_header(path, tensors->names, header, data_begin, bytes, &tensors->entries,
                                  &tensors->count, error);
}

Status safetensors_open(const char *path, Safetensors *out, Error *error) {
  *out = SAFETENSORS_CLOSED;
  TRY(file_open_read(path, &out->file, error));
  const Status status = read_header(out, error);
  if (status != STATUS_OK) safetensors_close(out);
  return status;
}

static int compare_name(const void *key, const void *element) {
  const SafetensorsEntry *entry = element;
  return strcmp(key, entry->name);
}

const SafetensorsEntry *safetensors_find(const Safetensors *tensors, const char *name) {
  if (tensors->count == 0) return NULL;
  return bsearch(name, tensors->entries, (size_t)tensors->count, sizeof *tensors->entries, compare_name);
}

static float from_bits(uint32_t bits) {
  float value = 0;
  memcpy(&value, &bits, sizeof value);
  return value;
}

static float from_bf16(uint16_t half) {
  return from_bits((uint32_t)half << 16);
}

/* IEEE 754 binary16. */
static float from_f16(uint16_t half) {
  const uint32_t sign = (uint32_t)(half >> 15) << 31;
  const uint32_t exponent = (half >> 10) & 0x1f;
  const uint32_t mantissa = half & 0x3ff;
  if (exponent == 0) {
    const float magnitude = (float)mantissa * 0x1p-24F;
    return sign != 0 ? -magnitude : magnitude;
  }
  const uint32_t wide = exponent == 0x1f ? 0xff : exponent + (127 - 15);
  return from_bits(sign | (wide << 23) | (mantissa << 13));
}

static Status read_halves(const Safetensors *tensors, int64_t offset, int64_t count,
                          float (*convert)(uint16_t half), float *out, Error *error) {
  uint16_t halves[HALVES];
  for (int64_t done = 0; done < count;) {
    const int64_t part = count - done < HALVES ? count - done : HALVES;
    TRY(file_read_exact_at(&tensors->file, offset + done * (int64_t)sizeof *halves, halves,
                           (size_t)part * sizeof *halves, error));
    for (int64_t i = 0; i < part; i++) out[done + i] = convert(halves[i]);
    done += part;
  }
  return STATUS_OK;
}

Status safetensors_read(const Safetensors *tensors, const SafetensorsEntry *entry, int64_t first,
                        int64_t count, float *out, Error *error) {
  if (strcmp(entry->dtype, "F32") == 0) {
    return file_read_exact_at(&tensors->file, entry->begin + first * (int64_t)sizeof(float), out,
                              (size_t)count * sizeof(float), error);
  }
  const int64_t offset = entry->begin + first * (int64_t)sizeof(uint16_t);
  if (strcmp(entry->dtype, "BF16") == 0) {
    return read_halves(tensors, offset, count, from_bf16, out, error);
  }
  if (strcmp(entry->dtype, "F16") == 0) {
    return read_halves(tensors, offset, count, from_f16, out, error);
  }
  return fail(error, STATUS_CONFIG, "%s: tensor %s has dtype %s; F32, BF16 and F16 can be read",
              tensors->file.path, entry->name, entry->dtype);
}

void safetensors_close(Safetensors *tensors) {
  free(tensors->entries);
  free(tensors->names);
  file_close(&tensors->file);
  *tensors = SAFETENSORS_CLOSED;
}
