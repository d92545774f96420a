/* Where the documents that are packed into the sequences of a batch begin: a bit for each position, so that
 * many documents take no more memory than one, and every rank can have those of whole sequences. */
#ifndef RINGGPT_COMM_DOCUMENTS_H
#define RINGGPT_COMM_DOCUMENTS_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/comm/layout.h"

/* A view of bits that belong to someone else. */
typedef struct Documents {
  int64_t words;         /* of a sequence: documents_words of its length */
  const uint64_t *marks; /* (sequences, words) bit p % 64 of word p / 64: a document begins at position p.
                            Position 0 begins one whatever its bit says */
} Documents;

/* Words for the marks of a sequence of `length` positions. */
int64_t documents_words(int64_t length);

/* Marks a position of one sequence, marks (words). */
void documents_mark(uint64_t *marks, int64_t position);

/* Whether sequence b has a mark at `position`. */
bool documents_marked(const Documents *documents, int64_t b, int64_t position);

/* The start of the document that holds `position`. */
int64_t documents_start(const Documents *documents, int64_t b, int64_t position);

/* Steps through the documents of sequence b, of `length` positions: start with a zero document; false behind
 * the last one. `documents` NULL: the sequence is one document. `local` stays zero. */
bool documents_next(const Documents *documents, int64_t b, int64_t length, Run *document);

#endif
