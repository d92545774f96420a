/* The files of AdamW's moments. */
#include "checkpoints/moments.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoints/directory.h"
#include "checkpoints/safetensors.h"
#include "kernels/base/memory.h"

#define MOMENTS 2
#define MOMENTS_PREFIX "optimizer-"

/* PyTorch's names of AdamW's moments, m and v. */
static const char *const MOMENT_NAMES[MOMENTS] = {"exp_avg", "exp_avg_sq"};

/* Room for a parameter's name, a moment's and an offset. */
typedef struct SliceName {
  char text[160];
} SliceName;

static int64_t larger(int64_t a, int64_t b) {
  return a > b ? a : b;
}

static int64_t smaller(int64_t a, int64_t b) {
  return a < b ? a : b;
}

/* ---------------------------------------------------------------- writing */

/* Elements of all ranges. */
static int64_t ranges_length(const CheckpointRange *ranges, int64_t count) {
  int64_t length = 0;
  for (int64_t i = 0; i < count; i++) length += ranges[i].end - ranges[i].begin;
  return length;
}

/* Appends the slices of one range of the flat table, in the order of the table, to (names, items), which hold
 * `count` already; returns how many they hold then. */
static int64_t describe_range(const TensorTable *table, int moment, CheckpointRange range, int64_t count,
                              SliceName *names, SafetensorsItem *items) {
  for (int64_t i = 0; i < table->size; i++) {
    const TensorEntry *entry = &table->entries[i];
    const int64_t first = larger(range.begin, entry->offset);
    const int64_t last = smaller(range.end, entry->offset + entry->count);
    if (first >= last) continue;
    (void)snprintf(names[count].text, sizeof names[count].text, "%s/%s@%" PRId64, entry->name,
                   MOMENT_NAMES[moment], first - entry->offset);
    items[count] = (SafetensorsItem){.name = names[count].text, .rank = 1, .shape = {last - first, 1}};
    count++;
  }
  return count;
}

/* Describes the slices of a rank's ranges, first those of m, then those of v, so that the data of a moment
 * lie one behind the other as in memory. */
static int64_t describe_slices(const CheckpointState *state, SliceName *names, SafetensorsItem *items) {
  int64_t count = 0;
  for (int moment = 0; moment < MOMENTS; moment++) {
    for (int64_t i = 0; i < state->range_count; i++) {
      count = describe_range(state->table, moment, state->ranges[i], count, names, items);
    }
  }
  return count;
}

static Status write_slices(const char *path, const CheckpointState *state, SliceName *names,
                           SafetensorsItem *items, ManifestFile *file, Error *error) {
  SafetensorsWriter writer = SAFETENSORS_WRITER_CLOSED;
  Status status = STATUS_OK;
  const int64_t length = ranges_length(state->ranges, state->range_count);
  const int64_t count = describe_slices(state, names, items);
  TRY(safetensors_create(path, items, count, &writer, error));
  TRY_GOTO(safetensors_append(&writer, state->m, length, error), close);
  TRY_GOTO(safetensors_append(&writer, state->v, length, error), close);
  TRY_GOTO(safetensors_finish(&writer, error), close);
  file->size = writer.size;
  file->crc32 = writer.crc32;
close:
  safetensors_abandon(&writer);
  return status;
}

Status moments_write(const char *directory, int rank, int ranks, const CheckpointState *state,
                     ManifestFile *file, Error *error) {
  char path[PATH_MAX];
  SliceName *names = NULL;
  SafetensorsItem *items = NULL;
  Status status = STATUS_OK;
  const size_t most = MOMENTS * (size_t)(state->table->size + state->range_count);
  (void)snprintf(file->name, sizeof file->name, MOMENTS_PREFIX "%05d-of-%05d.safetensors", rank, ranks);
  TRY(directory_join(directory, file->name, path, error));
  TRY(memory_alloc(most, sizeof *names, "names of slices", (void **)&names, error));
  TRY_GOTO(memory_alloc(most, sizeof *items, "names of slices", (void **)&items, error), release);
  status = write_slices(path, state, names, items, file, error);
release:
  free(items);
  free(names);
  return status;
}

/* ---------------------------------------------------------------- reading */

/* A slice that a file holds: elements [begin, end) of the flat table. */
typedef struct Slice {
  int moment;
  int64_t begin;
  int64_t end;
} Slice;

/* A parameter in a list by name. */
typedef struct Named {
  const TensorEntry *entry;
} Named;

typedef struct Reader {
  const CheckpointTarget *target;
  Named *by_name; /* (table->size), in order of name */
  Slice *slices;  /* (capacity), those of all files read so far */
  int64_t count;
  int64_t capacity;
  Error *error;
} Reader;

static int compare_entries(const void *left, const void *right) {
  const Named *a = left;
  const Named *b = right;
  return strcmp(a->entry->name, b->entry->name);
}

static int compare_name(const void *key, const void *element) {
  const Named *named = element;
  return strcmp(key, named->entry->name);
}

static const TensorEntry *find_parameter(const Reader *reader, const char *name) {
  const Named *found =
      bsearch(name, reader->by_name, (size_t)reader->target->table->size, sizeof *found, compare_name);
  return found == NULL ? NULL : found->entry;
}

/* Cuts "PARAMETER/MOMENT@OFFSET" into its parts. */
static bool parse_name(const char *text, char parameter[sizeof(SliceName)], int *moment, int64_t *offset) {
  const char *slash = strrchr(text, '/');
  if (slash == NULL || (size_t)(slash - text) >= sizeof(SliceName)) return false;
  memcpy(parameter, text, (size_t)(slash - text));
  parameter[slash - text] = '\0';
  const char *at = strchr(slash, '@');
  if (at == NULL) return false;
  *offset = strtoll(at + 1, NULL, 10);
  for (*moment = 0; *moment < MOMENTS; (*moment)++) {
    char expected[64];
    (void)snprintf(expected, sizeof expected, "/%s@%" PRId64, MOMENT_NAMES[*moment], *offset);
    if (strcmp(slash, expected) == 0) return *offset >= 0;
  }
  return false;
}

/* Finds which elements of the flat table an entry of a file holds. */
static Status place_slice(const Reader *reader, const char *path, const SafetensorsEntry *entry,
                          Slice *slice) {
  char name[sizeof(SliceName)];
  int64_t offset = 0;
  if (!parse_name(entry->name, name, &slice->moment, &offset)) {
    return fail(reader->error, STATUS_DATA, "%s: %s does not name a slice of a moment", path, entry->name);
  }
  const TensorEntry *parameter = find_parameter(reader, name);
  if (parameter == NULL) {
    return fail(reader->error, STATUS_CONFIG, "%s: %s belongs to no parameter of the model", path,
                entry->name);
  }
  if (strcmp(entry->dtype, "F32") != 0 || entry->rank != 1 || offset > parameter->count ||
      entry->count > parameter->count - offset) {
    return fail(reader->error, STATUS_DATA, "%s: %s does not lie in the %lld elements of its parameter", path,
                entry->name, (long long)parameter->count);
  }
  slice->begin = parameter->offset + offset;
  slice->end = slice->begin + entry->count;
  return STATUS_OK;
}

static Status append_slice(Reader *reader, const Slice *slice) {
  if (reader->count == reader->capacity) {
    const int64_t capacity = reader->capacity == 0 ? 64 : 2 * reader->capacity;
    Slice *grown = realloc(reader->slices, (size_t)capacity * sizeof *grown);
    if (grown == NULL) return fail(reader->error, STATUS_SYSTEM, "no memory left for the list of slices");
    reader->slices = grown;
    reader->capacity = capacity;
  }
  reader->slices[reader->count++] = *slice;
  return STATUS_OK;
}

/* Reads what the target wants of one slice. */
static Status read_slice(const Reader *reader, const Safetensors *tensors, const SafetensorsEntry *entry,
                         const Slice *slice) {
  const CheckpointTarget *target = reader->target;
  float *moment = slice->moment == 0 ? target->m : target->v;
  for (int64_t i = 0; i < target->range_count; i++) {
    const CheckpointRange range = target->ranges[i];
    const int64_t begin = larger(slice->begin, range.begin);
    const int64_t end = smaller(slice->end, range.end);
    if (begin < end) {
      TRY(safetensors_read(tensors, entry, begin - slice->begin, end - begin, moment + (begin - range.begin),
                           reader->error));
    }
    moment += range.end - range.begin;
  }
  return STATUS_OK;
}

static Status read_file(Reader *reader, const char *path) {
  Safetensors tensors = SAFETENSORS_CLOSED;
  Status status = STATUS_OK;
  TRY(safetensors_open(path, &tensors, reader->error));
  for (int64_t i = 0; i < tensors.count; i++) {
    Slice slice = {0};
    TRY_GOTO(place_slice(reader, path, &tensors.entries[i], &slice), close);
    TRY_GOTO(append_slice(reader, &slice), close);
    TRY_GOTO(read_slice(reader, &tensors, &tensors.entries[i], &slice), close);
  }
close:
  safetensors_close(&tensors);
  return status;
}

static int compare_slices(const void *left, const void *right) {
  const Slice *a = left;
  const Slice *b = right;
  if (a->moment != b->moment) return a->moment - b->moment;
  if (a->begin != b->begin) return a->begin < b->begin ? -1 : 1;
  return (a->end > b->end) - (a->end < b->end);
}

static Status not_tiled(const Reader *reader, const char *directory, int moment, int64_t element,
                        const char *what) {
  const TensorTable *table = reader->target->table;
  int64_t i = 0;
  while (i + 1 < table->size && table->entries[i + 1].offset <= element) i++;
  return fail(reader->error, STATUS_DATA, "%s: %s of %s, element %lld, is %s", directory,
              MOMENT_NAMES[moment], table->entries[i].name, (long long)(element - table->entries[i].offset),
              what);
}

/* Checks that the slices hold every element of both moments exactly once. */
static Status check_tiling(const Reader *reader, const char *directory) {
  const int64_t total = reader->target->table->total;
  if (reader->count > 0) qsort(reader->slices, (size_t)reader->count, sizeof *reader->slices, compare_slices);
  int64_t next = 0;
  for (int moment = 0; moment < MOMENTS; moment++) {
    int64_t end = 0;
    for (; next < reader->count && reader->slices[next].moment == moment; next++) {
      const Slice *slice = &reader->slices[next];
      if (slice->begin > end) return not_tiled(reader, directory, moment, end, "missing");
      if (slice->begin < end) return not_tiled(reader, directory, moment, slice->begin, "there twice");
      end = slice->end;
    }
    if (end != total) return not_tiled(reader, directory, moment, end, "missing");
  }
  return STATUS_OK;
}

static Status read_files(Reader *reader, const char *directory, const ManifestFiles *files) {
  for (int64_t i = 0; i < files->count; i++) {
    char path[PATH_MAX];
    if (strncmp(files->files[i].name, MOMENTS_PREFIX, strlen(MOMENTS_PREFIX)) != 0) continue;
    TRY(directory_join(directory, files->files[i].name, path, reader->error));
    TRY(read_file(reader, path));
  }
  return check_tiling(reader, directory);
}

Status moments_read(const char *directory, const ManifestFiles *files, const CheckpointTarget *target,
                    Error *error) {
  Reader reader = {.target = target, .error = error};
  const TensorTable *table = target->table;
  TRY(memory_alloc((size_t)table->size, sizeof *reader.by_name, "names of parameters",
                   (void **)&reader.by_name, error));
  for (int64_t i = 0; i < table->size; i++) reader.by_name[i].entry = &table->entries[i];
  qsort(reader.by_name, (size_t)table->size, sizeof *reader.by_name, compare_entries);
  const Status status = read_files(&reader, directory, files);
  free(reader.slices);
  free(reader.by_name);
  return status;
}
