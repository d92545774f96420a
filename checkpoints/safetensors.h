/* safetensors files, read and written: named tensors behind a JSON header.
 *
 *   u64  length of the header; a multiple of 8 in files written here, so that the data are aligned
 *   JSON {"__metadata__": {"format": "pt"}, "NAME": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0,
 * 24]},
 *        ...} and spaces up to its length
 *   data, little-endian, row-major; the ranges of all tensors tile it without holes
 *
 * The reader trusts nothing: header at most 16 MiB, at most 100,000 tensors of at most 8 dimensions, names of
 * at most 255 bytes without duplicates, at most 1,024 metadata, products that cannot wrap, shape and range of
 * one size, ranges that tile the file exactly. No header makes it take more memory than a small multiple of
 * what the header itself has. Files of other writers whose data are not aligned are read all the same.
 */
#ifndef RINGGPT_CHECKPOINTS_SAFETENSORS_H
#define RINGGPT_CHECKPOINTS_SAFETENSORS_H

#include <stdint.h>

#include "kernels/base/file.h"
#include "kernels/base/status.h"

#define SAFETENSORS_MAX_RANK 8

typedef struct SafetensorsEntry {
  const char *name;
  const char *dtype; /* "F32", "BF16", ... */
  int rank;
  int64_t shape[SAFETENSORS_MAX_RANK];
  int64_t count; /* elements: the product of the shape */
  int64_t begin; /* bytes of the file: [begin, end) */
  int64_t end;
} SafetensorsEntry;

/* An open file. Start with SAFETENSORS_CLOSED; safetensors_close may then be called at any time. */
typedef struct Safetensors {
  File file;
  SafetensorsEntry *entries; /* (count), in order of name */
  int64_t count;
  char *names; /* owned, behind the entries' names */
} Safetensors;

#define SAFETENSORS_CLOSED ((Safetensors){.file = FILE_CLOSED})

/* Opens a file and checks its whole header. STATUS_NO_INPUT, STATUS_IO; STATUS_DATA with the reason when the
 * file breaks any rule above; STATUS_SYSTEM without memory. */
Status safetensors_open(const char *path, Safetensors *out, Error *error);

/* The entry of that name, or NULL. */
const SafetensorsEntry *safetensors_find(const Safetensors *tensors, const char *name);

/* Reads elements [first, first + count) of an entry in file order and converts them from F32, BF16 or F16.
 * The range lies in the entry. STATUS_CONFIG for another dtype; STATUS_DATA, STATUS_IO. */
Status safetensors_read(const Safetensors *tensors, const SafetensorsEntry *entry, int64_t first,
                        int64_t count, float *out, Error *error);

void safetensors_close(Safetensors *tensors);

/* Describes one tensor to write: F32, its data follow in the order of the descriptions. */
typedef struct SafetensorsItem {
  const char *name;
  int rank;         /* 1 or 2 */
  int64_t shape[2]; /* of the file */
} SafetensorsItem;

/* A file being written. Start with SAFETENSORS_WRITER_CLOSED. */
typedef struct SafetensorsWriter {
  File file;
  int64_t size;     /* bytes written so far */
  uint32_t crc32;   /* of those bytes, as zlib computes it */
  int64_t expected; /* bytes that the header promises */
} SafetensorsWriter;

#define SAFETENSORS_WRITER_CLOSED ((SafetensorsWriter){.file = FILE_CLOSED})

/* Creates the file and writes the header. STATUS_IO; STATUS_SYSTEM without memory; STATUS_INTERNAL when the
 * header breaks the limits above. */
Status safetensors_create(const char *path, const SafetensorsItem *items, int64_t count,
                          SafetensorsWriter *out, Error *error);

/* Writes the next `count` elements of data. STATUS_IO. */
Status safetensors_append(SafetensorsWriter *writer, const float *data, int64_t count, Error *error);

/* Syncs and closes; size and crc32 are then those of the whole file. STATUS_IO; STATUS_INTERNAL when less or
 * more was written than the header promises. */
Status safetensors_finish(SafetensorsWriter *writer, Error *error);

/* Closes a file that is given up. */
void safetensors_abandon(SafetensorsWriter *writer);

#endif
