/* Byte-pair encoding of one word.
 *
 * The word is a linked list of symbols, at first one a byte. A heap holds the pairs that may be merged, the
 * one with the lowest rank on top and, of equal ones, the leftmost. A pair that is out of date, because one
 * of its symbols was merged in the meantime, is recognised when it comes to the top. */
#include "data/bpe.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* A merge of the table: an entry of a hash table with open addressing. */
typedef struct Merge {
  int32_t left; /* -1: the entry is free */
  int32_t right;
  int32_t merged;
  int64_t rank; /* order in which the merges were learned */
} Merge;

typedef struct Symbol {
  int32_t token; /* -1: was merged into the symbol before it */
  int64_t previous;
  int64_t next; /* -1: none */
} Symbol;

/* A pair of neighbours that a merge applies to. */
typedef struct Pair {
  int64_t place; /* of the left symbol */
  Merge merge;
} Pair;

struct Bpe {
  int32_t byte_tokens[256];
  Merge *merges; /* (merge_capacity), a power of two, at most half of it in use */
  size_t merge_capacity;
  int64_t merge_count;
  Symbol *symbols; /* (word_capacity) of the word at hand */
  Pair *heap;      /* (2 word_capacity): at first n - 1 pairs; each of the n - 1 merges takes one, adds two */
  size_t heap_size;
  size_t word_capacity;
};

/* The entry of a pair, or the free one where it belongs. */
static Merge *find_merge(Merge *merges, size_t capacity, int32_t left, int32_t right) {
  uint64_t hash = ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) * 0x9E3779B97F4A7C15U;
  hash ^= hash >> 32;
  size_t place = (size_t)hash & (capacity - 1);
  while (merges[place].left >= 0 && (merges[place].left != left || merges[place].right != right)) {
    place = (place + 1) & (capacity - 1);
  }
  return &merges[place];
}

/* Makes the hash table twice as large. */
static Status grow_merges(Bpe *bpe, Error *error) {
  const size_t capacity = bpe->merge_capacity == 0 ? 1024 : 2 * bpe->merge_capacity;
  Merge *merges = malloc(capacity * sizeof *merges);
  if (merges == NULL) return fail(error, STATUS_SYSTEM, "no memory left for the merges of a tokenizer");
  for (size_t i = 0; i < capacity; i++) merges[i].left = -1;
  for (size_t i = 0; i < bpe->merge_capacity; i++) {
    const Merge *merge = &bpe->merges[i];
    if (merge->left >= 0) *find_merge(merges, capacity, merge->left, merge->right) = *merge;
  }
  free(bpe->merges);
  bpe->merges = merges;
  bpe->merge_capacity = capacity;
  return STATUS_OK;
}

Status bpe_create(const int32_t byte_tokens[256], Bpe **out, Error *error) {
  *out = NULL;
  Bpe *bpe = calloc(1, sizeof *bpe);
  if (bpe == NULL) return fail(error, STATUS_SYSTEM, "no memory left for a tokenizer");
  memcpy(bpe->byte_tokens, byte_tokens, sizeof bpe->byte_tokens);
  const Status status = grow_merges(bpe, error);
  if (status != STATUS_OK) {
    bpe_destroy(bpe);
    return status;
  }
  *out = bpe;
  return STATUS_OK;
}

Status bpe_add_merge(Bpe *bpe, int32_t left, int32_t right, int32_t merged, Error *error) {
  if ((size_t)bpe->merge_count >= bpe->merge_capacity / 2) TRY(grow_merges(bpe, error));
  Merge *entry = find_merge(bpe->merges, bpe->merge_capacity, left, right);
  if (entry->left >= 0) return STATUS_OK;
  *entry = (Merge){.left = left, .right = right, .merged = merged, .rank = bpe->merge_count};
  bpe->merge_count++;
  return STATUS_OK;
}

static bool comes_first(const Pair *a, const Pair *b) {
  return a->merge.rank != b->merge.rank ? a->merge.rank < b->merge.rank : a->place < b->place;
}

static void heap_push(Bpe *bpe, Pair pair) {
  size_t at = bpe->heap_size++;
  for (; at > 0 && comes_first(&pair, &bpe->heap[(at - 1) / 2]); at = (at - 1) / 2) {
    bpe->heap[at] = bpe->heap[(at - 1) / 2];
  }
  bpe->heap[at] = pair;
}

static Pair heap_pop(Bpe *bpe) {
  const Pair top = bpe->heap[0];
  const Pair moved = bpe->heap[--bpe->heap_size];
  size_t at = 0;
  for (size_t child = 1; child < bpe->heap_size; child = 2 * at + 1) {
    if (child + 1 < bpe->heap_size && comes_first(&bpe->heap[child + 1], &bpe->heap[child])) child++;
    if (!comes_first(&bpe->heap[child], &moved)) break;
    bpe->heap[at] = bpe->heap[child];
    at = child;
  }
  bpe->heap[at] = moved;
  return top;
}

/* Puts the pair of the symbol at `place` and the next one on the heap, if it can be merged. */
static void consider_pair(Bpe *bpe, int64_t place) {
  if (place < 0 || bpe->symbols[place].next < 0) return;
  const int32_t left = bpe->symbols[place].token;
  const int32_t right = bpe->symbols[bpe->symbols[place].next].token;
  const Merge *merge = find_merge(bpe->merges, bpe->merge_capacity, left, right);
  if (merge->left >= 0) heap_push(bpe, (Pair){.place = place, .merge = *merge});
}

/* Merges the symbol at `place` with the next one. */
static void merge_at(Bpe *bpe, int64_t place, int32_t merged) {
  Symbol *symbol = &bpe->symbols[place];
  Symbol *gone = &bpe->symbols[symbol->next];
  symbol->token = merged;
  symbol->next = gone->next;
  gone->token = -1;
  if (symbol->next >= 0) bpe->symbols[symbol->next].previous = place;
  consider_pair(bpe, symbol->previous);
  consider_pair(bpe, place);
}

static Status make_room(Bpe *bpe, size_t bytes, Error *error) {
  if (bytes <= bpe->word_capacity) return STATUS_OK;
  const size_t capacity = bytes < 256 ? 256 : 2 * bytes;
  free(bpe->symbols);
  free(bpe->heap);
  bpe->symbols = malloc(capacity * sizeof *bpe->symbols);
  bpe->heap = malloc(2 * capacity * sizeof *bpe->heap);
  bpe->word_capacity = bpe->symbols == NULL || bpe->heap == NULL ? 0 : capacity;
  if (bpe->word_capacity > 0) return STATUS_OK;
  return fail(error, STATUS_SYSTEM, "no memory left for a word of %zu bytes", bytes);
}

static void merge_word(Bpe *bpe) {
  while (bpe->heap_size > 0) {
    const Pair pair = heap_pop(bpe);
    const Symbol *symbol = &bpe->symbols[pair.place];
    const bool current = symbol->token == pair.merge.left && symbol->next >= 0 &&
                         bpe->symbols[symbol->next].token == pair.merge.right;
    if (current) merge_at(bpe, pair.place, pair.merge.merged);
  }
}

Status bpe_encode(Bpe *bpe, const char *word, size_t bytes, TokenList *list, Error *error) {
  TRY(make_room(bpe, bytes, error));
  TRY(token_list_reserve(list, (int64_t)bytes, error));
  const int64_t length = (int64_t)bytes;
  for (int64_t i = 0; i < length; i++) {
    bpe->symbols[i] = (Symbol){.token = bpe->byte_tokens[(unsigned char)word[i]],
                               .previous = i - 1,
                               .next = i + 1 < length ? i + 1 : -1};
  }
  bpe->heap_size = 0;
  for (int64_t i = 0; i < length; i++) consider_pair(bpe, i);
  merge_word(bpe);
  for (int64_t i = 0; i >= 0 && i < length; i = bpe->symbols[i].next) {
    list->tokens[list->count++] = bpe->symbols[i].token;
  }
  return STATUS_OK;
}

void bpe_destroy(Bpe *bpe) {
  if (bpe == NULL) return;
  free(bpe->merges);
  free(bpe->symbols);
  free(bpe->heap);
  free(bpe);
}
