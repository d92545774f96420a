/* Where documents begin: see the header. */
#include "kernels/comm/documents.h"

#include <stddef.h>

#define WORD_BITS 64

int64_t documents_words(int64_t length) {
  return length / WORD_BITS + (length % WORD_BITS > 0 ? 1 : 0);
}

void documents_mark(uint64_t *marks, int64_t position) {
  marks[position / WORD_BITS] |= UINT64_C(1) << (position % WORD_BITS);
}

static const uint64_t *marks_of(const Documents *documents, int64_t b) {
  return documents->marks + b * documents->words;
}

bool documents_marked(const Documents *documents, int64_t b, int64_t position) {
  return (marks_of(documents, b)[position / WORD_BITS] >> (position % WORD_BITS) & 1) != 0;
}

int64_t documents_start(const Documents *documents, int64_t b, int64_t position) {
  const uint64_t *marks = marks_of(documents, b);
  int64_t word = position / WORD_BITS;
  /* Bits behind the position are none of its past. */
  uint64_t bits = marks[word] << (WORD_BITS - 1 - position % WORD_BITS);
  if (bits != 0) return position - __builtin_clzll(bits);
  while (--word >= 0) {
    bits = marks[word];
    if (bits != 0) return word * WORD_BITS + WORD_BITS - 1 - __builtin_clzll(bits);
  }
  return 0;
}

/* The first mark at or behind `position`, `length` where there is none. */
static int64_t next_mark(const uint64_t *marks, int64_t position, int64_t length) {
  const int64_t words = documents_words(length);
  for (int64_t word = position / WORD_BITS; word < words; word++) {
    uint64_t bits = marks[word];
    if (word == position / WORD_BITS) bits &= UINT64_MAX << (position % WORD_BITS);
    if (bits == 0) continue;
    const int64_t mark = word * WORD_BITS + __builtin_ctzll(bits);
    return mark < length ? mark : length;
  }
  return length;
}

bool documents_next(const Documents *documents, int64_t b, int64_t length, Run *document) {
  const int64_t start = document->start + document->length;
  if (start >= length) return false;
  const int64_t end = documents == NULL ? length : next_mark(marks_of(documents, b), start + 1, length);
  *document = (Run){.start = start, .length = end - start};
  return true;
}
