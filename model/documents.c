/* The first key that each query may see. */
#include "model/documents.h"

#include <stddef.h>

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
