/* Where the documents of a batch begin, and the first key that each query may see. */
#include "model/documents.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/base/memory.h"

static int compare_positions(const void *a, const void *b) {
  const int64_t x = *(const int64_t *)a;
  const int64_t y = *(const int64_t *)b;
  return (x > y) - (x < y);
}

/* gathered (size, row): per rank the sequence's offsets (sequences + 1), then its starts. */
static void merge(Documents *documents, const int64_t *gathered, int64_t row, int ranks) {
  int64_t count = 0;
  for (int64_t b = 0; b < documents->sequences; b++) {
    documents->offsets[b] = count;
    for (int rank = 0; rank < ranks; rank++) {
      const int64_t *offsets = gathered + rank * row;
      const int64_t *starts = offsets + documents->sequences + 1;
      for (int64_t i = offsets[b]; i < offsets[b + 1]; i++) documents->starts[count++] = starts[i];
    }
    qsort(documents->starts + documents->offsets[b], (size_t)(count - documents->offsets[b]), sizeof(int64_t),
          compare_positions);
  }
  documents->offsets[documents->sequences] = count;
}

Status documents_gather(Comm *ring, int64_t sequences, const int64_t *own_starts, const int64_t *own_offsets,
                        Documents *documents, Error *error) {
  Status status = STATUS_OK;
  void *own = NULL;
  void *gathered = NULL;
  void *offsets = NULL;
  void *starts = NULL;
  int64_t most = own_offsets[sequences];
  *documents = (Documents){0};
  TRY(comm_all_reduce(ring, COMM_I64, COMM_MAX, &most, 1, error));
  const size_t ranks = (size_t)ring->size;
  const size_t row = (size_t)(sequences + 1 + most);
  const char *what = "document starts of a batch";
  TRY_GOTO(memory_alloc(row, sizeof(int64_t), what, &own, error), done);
  TRY_GOTO(memory_alloc(row * ranks, sizeof(int64_t), what, &gathered, error), done);
  TRY_GOTO(memory_alloc((size_t)sequences + 1, sizeof(int64_t), what, &offsets, error), done);
  TRY_GOTO(memory_alloc((size_t)most * ranks, sizeof(int64_t), what, &starts, error), done);
  memcpy(own, own_offsets, (size_t)(sequences + 1) * sizeof(int64_t));
  memcpy((int64_t *)own + sequences + 1, own_starts, (size_t)own_offsets[sequences] * sizeof(int64_t));
  TRY_GOTO(comm_all_gather(ring, own, gathered, row * sizeof(int64_t), error), done);
  *documents = (Documents){.sequences = sequences, .offsets = offsets, .starts = starts};
  merge(documents, gathered, (int64_t)row, ring->size);
  offsets = NULL;
  starts = NULL;
done:
  free(starts);
  free(offsets);
  free(gathered);
  free(own);
  return status;
}

void documents_free(Documents *documents) {
  free(documents->starts);
  free(documents->offsets);
  *documents = (Documents){0};
}

/* The start of the document that holds `position`. */
static int64_t document_start(const Documents *documents, int64_t b, int64_t position) {
  int64_t low = documents->offsets[b];
  int64_t high = documents->offsets[b + 1];
  /* Starts before `low` are at or before the position, those from `high` on behind it. */
  while (low < high) {
    const int64_t middle = low + (high - low) / 2;
    if (documents->starts[middle] <= position) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low == documents->offsets[b] ? 0 : documents->starts[low - 1];
}

int64_t documents_first_key(const Documents *documents, int64_t b, int64_t position, int64_t window) {
  const int64_t document = documents == NULL ? 0 : document_start(documents, b, position);
  const int64_t oldest = window > 0 && position >= window ? position - window + 1 : 0;
  return document > oldest ? document : oldest;
}

void documents_fill_run(const Documents *documents, int64_t b, Run run, int64_t sequence_length,
                        int64_t window, int64_t *first_key) {
  for (int64_t i = 0; i < run.length; i++) {
    const int64_t position = run.start + i;
    first_key[i] =
        position < sequence_length ? documents_first_key(documents, b, position, window) : INT64_MAX;
  }
}

bool documents_visible(const Documents *documents, int64_t b, Run queries, Run keys, int64_t sequence_length,
                       int64_t window) {
  if (queries.start >= sequence_length || keys.start >= sequence_length) return false;
  const int64_t end = queries.start + queries.length;
  const int64_t last_query = (end < sequence_length ? end : sequence_length) - 1;
  const int64_t last_key = keys.start + keys.length - 1;
  /* first_key never falls, so the first query sees furthest back. */
  return keys.start <= last_query && documents_first_key(documents, b, queries.start, window) <= last_key;
}
