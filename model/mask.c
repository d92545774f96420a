/* Which keys a query may see: see the header. */
#include "model/mask.h"

#include <stddef.h>

static int64_t smaller(int64_t a, int64_t b) {
  return a < b ? a : b;
}

/* The first key in the window of a query. */
static int64_t window_start(int64_t position, int64_t window) {
  return window > 0 && position >= window ? position - window + 1 : 0;
}

/* The first key of a query whose document starts at `document`. */
static int64_t first_of(int64_t document, int64_t position, int64_t window) {
  const int64_t oldest = window_start(position, window);
  return document > oldest ? document : oldest;
}

static int64_t start_of(const Documents *documents, int64_t b, int64_t position) {
  return documents == NULL ? 0 : documents_start(documents, b, position);
}

/* The same for the position behind one whose document starts at `document`. */
static int64_t next_start(const Documents *documents, int64_t b, int64_t position, int64_t document) {
  return documents != NULL && documents_marked(documents, b, position) ? position : document;
}

void mask_fill_run(const Documents *documents, int64_t b, Run run, int64_t sequence_length, int64_t window,
                   int64_t *first_key) {
  const int64_t valid = smaller(run.length, sequence_length - run.start);
  int64_t document = valid > 0 ? start_of(documents, b, run.start) : 0;
  for (int64_t i = 0; i < valid; i++) {
    document = next_start(documents, b, run.start + i, document);
    first_key[i] = first_of(document, run.start + i, window);
  }
  for (int64_t i = valid > 0 ? valid : 0; i < run.length; i++) first_key[i] = INT64_MAX;
}

int64_t mask_pairs(const Documents *documents, int64_t b, Run run, int64_t sequence_length, int64_t window) {
  const int64_t end = smaller(run.start + run.length, sequence_length);
  int64_t document = run.start < end ? start_of(documents, b, run.start) : 0;
  int64_t pairs = 0;
  for (int64_t position = run.start; position < end; position++) {
    document = next_start(documents, b, position, document);
    pairs += position + 1 - first_of(document, position, window);
  }
  return pairs;
}

bool mask_visible(const Documents *documents, int64_t b, Run queries, Run keys, int64_t sequence_length,
                  int64_t window) {
  if (queries.start >= sequence_length || keys.start >= sequence_length) return false;
  const int64_t last_query = smaller(queries.start + queries.length, sequence_length) - 1;
  const int64_t last_key = keys.start + keys.length - 1;
  /* The first key never falls, so the first query sees furthest back. */
  return keys.start <= last_query &&
         first_of(start_of(documents, b, queries.start), queries.start, window) <= last_key;
}
