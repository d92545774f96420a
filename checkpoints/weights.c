/* The file of weights. */
#include "checkpoints/weights.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoints/safetensors.h"
#include "kernels/base/memory.h"

/* Elements of a transposed tensor that are moved at a time, and never less than a row of the file. */
#define BLOCK_ELEMENTS ((int64_t)1 << 18)

/* The shape of an entry in a file. */
static SafetensorsItem file_item(const TensorEntry *entry) {
  SafetensorsItem item = {.name = entry->name, .rank = entry->rank};
  item.shape[0] = entry->shape[entry->transposed ? 1 : 0];
  item.shape[1] = entry->shape[entry->transposed ? 0 : 1];
  return item;
}

static int64_t block_rows(const SafetensorsItem *item) {
  const int64_t rows = item->shape[1] > 0 ? BLOCK_ELEMENTS / item->shape[1] : 0;
  return rows < 1 ? 1 : rows;
}

static Status alloc_block(const SafetensorsItem *item, float **block, Error *error) {
  return memory_alloc((size_t)(block_rows(item) * item->shape[1]), sizeof **block, "block of a checkpoint",
                      (void **)block, error);
}

/* ---------------------------------------------------------------- writing */

/* Rows [first, first + rows) of the file, whose row i is column i of memory (shape[1] of the file rows). */
static void gather_columns(const SafetensorsItem *item, const float *memory, int64_t first, int64_t rows,
                           float *block) {
  const int64_t inputs = item->shape[0];
  const int64_t outputs = item->shape[1];
  for (int64_t o = 0; o < outputs; o++) {
    for (int64_t i = 0; i < rows; i++) block[i * outputs + o] = memory[o * inputs + first + i];
  }
}

static Status write_transposed(SafetensorsWriter *writer, const SafetensorsItem *item, const float *memory,
                               Error *error) {
  float *block = NULL;
  Status status = STATUS_OK;
  TRY(alloc_block(item, &block, error));
  for (int64_t first = 0; first < item->shape[0]; first += block_rows(item)) {
    const int64_t left = item->shape[0] - first;
    const int64_t rows = left < block_rows(item) ? left : block_rows(item);
    gather_columns(item, memory, first, rows, block);
    TRY_GOTO(safetensors_append(writer, block, rows * item->shape[1], error), release);
  }
release:
  free(block);
  return status;
}

static Status write_entries(SafetensorsWriter *writer, const TensorTable *table, const float *weights,
                            Error *error) {
  for (int64_t i = 0; i < table->size; i++) {
    const TensorEntry *entry = &table->entries[i];
    if (entry->transposed) {
      const SafetensorsItem item = file_item(entry);
      TRY(write_transposed(writer, &item, weights + entry->offset, error));
    } else {
      TRY(safetensors_append(writer, weights + entry->offset, entry->count, error));
    }
  }
  return STATUS_OK;
}

Status weights_write(const char *path, const TensorTable *table, const float *weights, ManifestFile *file,
                     Error *error) {
  SafetensorsItem *items = NULL;
  SafetensorsWriter writer = SAFETENSORS_WRITER_CLOSED;
  Status status = STATUS_OK;
  TRY(memory_alloc((size_t)table->size, sizeof *items, "names of a checkpoint", (void **)&items, error));
  for (int64_t i = 0; i < table->size; i++) items[i] = file_item(&table->entries[i]);
  TRY_GOTO(safetensors_create(path, items, table->size, &writer, error), release);
  TRY_GOTO(write_entries(&writer, table, weights, error), close);
  TRY_GOTO(safetensors_finish(&writer, error), close);
  (void)snprintf(file->name, sizeof file->name, "%s", WEIGHTS_NAME);
  file->size = writer.size;
  file->crc32 = writer.crc32;
close:
  safetensors_abandon(&writer);
release:
  free(items);
  return status;
}

/* ---------------------------------------------------------------- reading */

/* The entry of that name, or of the name without its first component: base models are also saved without the
 * "transformer." or "model." in front. */
static const SafetensorsEntry *find_entry(const Safetensors *tensors, const char *name) {
  const SafetensorsEntry *found = safetensors_find(tensors, name);
  if (found != NULL) return found;
  if (strncmp(name, "transformer.", 12) == 0) return safetensors_find(tensors, name + 12);
  if (strncmp(name, "model.", 6) == 0) return safetensors_find(tensors, name + 6);
  return NULL;
}

/* "(2, 3)" in text. */
static void print_shape(int rank, const int64_t *shape, char *text, size_t size) {
  size_t used = 0;
  for (int i = 0; i < rank && used < size; i++) {
    used += (size_t)snprintf(text + used, size - used, "%s%lld", i == 0 ? "(" : ", ", (long long)shape[i]);
  }
  if (used < size) (void)snprintf(text + used, size - used, "%s", rank == 0 ? "()" : ")");
}

static Status check_shape(const Safetensors *tensors, const SafetensorsEntry *found,
                          const SafetensorsItem *item, Error *error) {
  bool same = found->rank == item->rank;
  for (int i = 0; same && i < item->rank; i++) same = found->shape[i] == item->shape[i];
  if (same) return STATUS_OK;
  char in_file[SAFETENSORS_MAX_RANK * 22 + 4];
  char in_model[64];
  print_shape(found->rank, found->shape, in_file, sizeof in_file);
  print_shape(item->rank, item->shape, in_model, sizeof in_model);
  return fail(
      error, STATUS_CONFIG,
      "%s: tensor %s has shape %s, the model of the configuration needs %s: use the configuration that "
      "it was made with",
      tensors->file.path, found->name, in_file, in_model);
}

static Status read_transposed(const Safetensors *tensors, const SafetensorsEntry *found,
                              const SafetensorsItem *item, float *memory, Error *error) {
  const int64_t inputs = item->shape[0];
  const int64_t outputs = item->shape[1];
  float *block = NULL;
  Status status = STATUS_OK;
  TRY(alloc_block(item, &block, error));
  for (int64_t first = 0; first < inputs; first += block_rows(item)) {
    const int64_t rows = inputs - first < block_rows(item) ? inputs - first : block_rows(item);
    TRY_GOTO(safetensors_read(tensors, found, first * outputs, rows * outputs, block, error), release);
    for (int64_t o = 0; o < outputs; o++) {
      for (int64_t i = 0; i < rows; i++) memory[o * inputs + first + i] = block[i * outputs + o];
    }
  }
release:
  free(block);
  return status;
}

static Status read_entry(const Safetensors *tensors, const TensorEntry *entry, float *weights, bool *used,
                         Error *error) {
  const SafetensorsItem item = file_item(entry);
  const SafetensorsEntry *found = find_entry(tensors, entry->name);
  if (found == NULL) {
    return fail(error, STATUS_CONFIG, "%s: has no tensor %s, which the model of the configuration needs",
                tensors->file.path, entry->name);
  }
  used[found - tensors->entries] = true;
  TRY(check_shape(tensors, found, &item, error));
  if (entry->transposed) return read_transposed(tensors, found, &item, weights + entry->offset, error);
  return safetensors_read(tensors, found, 0, entry->count, weights + entry->offset, error);
}

static bool ends_with(const char *text, const char *end) {
  const size_t length = strlen(text);
  const size_t tail = strlen(end);
  return length >= tail && strcmp(text + length - tail, end) == 0;
}

/* Causal masks and frequencies of RoPE, which older files hold beside the parameters. */
static bool is_buffer(const char *name) {
  return ends_with(name, ".attn.bias") || ends_with(name, ".attn.masked_bias") ||
         ends_with(name, ".rotary_emb.inv_freq");
}

/* A head beside tied weights is a copy of the embedding, or the model is not tied. */
static Status check_tied_head(const Safetensors *tensors, const SafetensorsEntry *head,
                              const TensorTable *table, const float *weights, Error *error) {
  const TensorEntry *embedding = NULL;
  for (int64_t i = 0; i < table->size && embedding == NULL; i++) {
    const char *name = table->entries[i].name;
    if (ends_with(name, ".wte.weight") || ends_with(name, ".embed_tokens.weight")) {
      embedding = &table->entries[i];
    }
  }
  float *copy = NULL;
  Status status = STATUS_OK;
  bool same = embedding != NULL && head->count == embedding->count;
  TRY(memory_alloc((size_t)BLOCK_ELEMENTS, sizeof *copy, "block of a checkpoint", (void **)&copy, error));
  for (int64_t first = 0; same && first < head->count; first += BLOCK_ELEMENTS) {
    const int64_t part = head->count - first < BLOCK_ELEMENTS ? head->count - first : BLOCK_ELEMENTS;
    TRY_GOTO(safetensors_read(tensors, head, first, part, copy, error), release);
    same = memcmp(copy, weights + embedding->offset + first, (size_t)part * sizeof *copy) == 0;
  }
  if (!same) {
    status = fail(error, STATUS_CONFIG,
                  "%s: has an lm_head.weight of its own, but the model of the configuration ties it to the "
                  "embedding: set model.tie_word_embeddings to false",
                  tensors->file.path);
  }
release:
  free(copy);
  return status;
}

static Status check_unused(const Safetensors *tensors, const bool *used, const TensorTable *table,
                           const float *weights, Error *error) {
  for (int64_t i = 0; i < tensors->count; i++) {
    const SafetensorsEntry *entry = &tensors->entries[i];
    if (used[i] || is_buffer(entry->name)) continue;
    if (strcmp(entry->name, "lm_head.weight") == 0) {
      TRY(check_tied_head(tensors, entry, table, weights, error));
      continue;
    }
    return fail(error, STATUS_CONFIG, "%s: holds a tensor %s, which the model of the configuration lacks",
                tensors->file.path, entry->name);
  }
  return STATUS_OK;
}

Status weights_read(const char *path, const TensorTable *table, float *weights, Error *error) {
  Safetensors tensors = SAFETENSORS_CLOSED;
  bool *used = NULL;
  Status status = STATUS_OK;
  TRY(safetensors_open(path, &tensors, error));
  TRY_GOTO(memory_alloc((size_t)tensors.count, sizeof *used, "marks of tensors", (void **)&used, error),
           close);
  for (int64_t i = 0; i < table->size; i++) {
    TRY_GOTO(read_entry(&tensors, &table->entries[i], weights, used, error), release);
  }
  status = check_unused(&tensors, used, table, weights, error);
release:
  free(used);
close:
  safetensors_close(&tensors);
  return status;
}
