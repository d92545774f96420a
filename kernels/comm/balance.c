/* Gives the chunks of packed documents to the ranks of a ring. */
#include "kernels/comm/balance.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/base/memory.h"

/* What is even enough, in percent of the mean: beyond it finer layouts gain less than their short runs cost.
 */
#define EVEN_RANKS 105
#define EVEN_HOPS 115

/* Exchanges of two chunks in one layout, for each rank and sequence; a few are usual. */
#define MOST_EXCHANGES 8

static int64_t chunk_count(const Layout *layout) {
  return layout_rank_chunks(layout) * layout->ring_size;
}

Status balancer_create(const Layout *layout, int64_t sequences, int64_t window, Balancer *out, Error *error) {
  const size_t chunks = (size_t)(sequences * chunk_count(layout));
  const size_t ranks = (size_t)layout->ring_size;
  const char *what = "owners of the chunks of a batch";
  Status status = STATUS_OK;
  void *queries = NULL;
  void *load = NULL;
  void *hop = NULL;
  void *owner = NULL;
  void *best = NULL;
  *out = (Balancer){0};
  TRY_GOTO(memory_alloc(chunks, sizeof(int64_t), what, &queries, error), failed);
  TRY_GOTO(memory_alloc(ranks, sizeof(int64_t), what, &load, error), failed);
  TRY_GOTO(memory_alloc(ranks * ranks, sizeof(int64_t), what, &hop, error), failed);
  TRY_GOTO(memory_alloc(chunks, sizeof(int32_t), what, &owner, error), failed);
  TRY_GOTO(memory_alloc(chunks, sizeof(int32_t), what, &best, error), failed);
  *out = (Balancer){.layout = *layout,
                    .sequences = sequences,
                    .window = window,
                    .queries = queries,
                    .load = load,
                    .hop = hop,
                    .owner = owner,
                    .best = best};
  return STATUS_OK;
failed:
  free(owner);
  free(hop);
  free(load);
  free(queries);
  return status;
}

void balancer_free(Balancer *balancer) {
  free(balancer->best);
  free(balancer->owner);
  free(balancer->hop);
  free(balancer->load);
  free(balancer->queries);
  *balancer = (Balancer){0};
}

/* ---------------------------------------------------------------- counting pairs */

/* 1 + 2 + ... + n. */
static int64_t triangle(int64_t n) {
  return n > 0 ? n * (n + 1) / 2 : 0;
}

/* Pairs of a query and a key that lies at least `distance` before it. */
static int64_t pairs_apart(Run queries, Run keys, int64_t distance) {
  const int64_t start = queries.start - distance;
  const int64_t end = start + queries.length;
  const int64_t keys_end = keys.start + keys.length;
  return triangle(end - keys.start) - triangle(start - keys.start) - triangle(end - keys_end) +
         triangle(start - keys_end);
}

/* Pairs of one document. */
static int64_t visible_pairs(const Balancer *balancer, Run queries, Run keys) {
  const int64_t causal = pairs_apart(queries, keys, 0);
  return balancer->window > 0 ? causal - pairs_apart(queries, keys, balancer->window) : causal;
}

/* The part of a document that lies in a chunk, which it touches. */
static Run part_in_chunk(const Balancer *balancer, Run document, int64_t chunk) {
  const int64_t begin = chunk * balancer->layout.chunk_length;
  const int64_t end = begin + balancer->layout.chunk_length;
  const int64_t document_end = document.start + document.length;
  const int64_t start = document.start > begin ? document.start : begin;
  return (Run){.start = start, .length = (document_end < end ? document_end : end) - start};
}

/* Pairs of the queries of every chunk. */
static void count_queries(Balancer *balancer, const Documents *documents) {
  const int64_t chunks = chunk_count(&balancer->layout);
  memset(balancer->queries, 0, (size_t)(balancer->sequences * chunks) * sizeof(int64_t));
  for (int64_t b = 0; b < balancer->sequences; b++) {
    int64_t *queries = balancer->queries + b * chunks;
    for (Run document = {0}; documents_next(documents, b, balancer->layout.sequence_length, &document);) {
      const int64_t end = document.start + document.length;
      for (int64_t c = document.start / balancer->layout.chunk_length;
           c * balancer->layout.chunk_length < end; c++) {
        queries[c] += visible_pairs(balancer, part_in_chunk(balancer, document, c), document);
      }
    }
  }
}

/* Adds the pairs of one document to the hops at which their keys arrive. */
static void add_document(Balancer *balancer, const int32_t *owner, Run document) {
  const int64_t length = balancer->layout.chunk_length;
  const int ranks = balancer->layout.ring_size;
  const int64_t first = document.start / length;
  for (int64_t c = first; c * length < document.start + document.length; c++) {
    const Run queries = part_in_chunk(balancer, document, c);
    for (int64_t k = first; k <= c; k++) {
      const int hop = (owner[c] - owner[k] + ranks) % ranks;
      balancer->hop[hop * ranks + owner[c]] +=
          visible_pairs(balancer, queries, part_in_chunk(balancer, document, k));
    }
  }
}

/* The work of the owners at hand. */
static Balance measure(Balancer *balancer, const Documents *documents) {
  const int ranks = balancer->layout.ring_size;
  Balance balance = {0};
  memset(balancer->hop, 0, (size_t)ranks * (size_t)ranks * sizeof(int64_t));
  memset(balancer->load, 0, (size_t)ranks * sizeof(int64_t));
  for (int64_t b = 0; b < balancer->sequences; b++) {
    const int32_t *owner = balancer->owner + b * chunk_count(&balancer->layout);
    for (Run document = {0}; documents_next(documents, b, balancer->layout.sequence_length, &document);) {
      add_document(balancer, owner, document);
    }
  }
  for (int hop = 0; hop < ranks; hop++) {
    int64_t most = 0;
    for (int rank = 0; rank < ranks; rank++) {
      const int64_t pairs = balancer->hop[hop * ranks + rank];
      balancer->load[rank] += pairs;
      balance.pairs += pairs;
      if (pairs > most) most = pairs;
    }
    balance.hops += most;
  }
  for (int rank = 0; rank < ranks; rank++) {
    if (balancer->load[rank] > balance.largest) balance.largest = balancer->load[rank];
  }
  return balance;
}

/* ---------------------------------------------------------------- choosing owners */

/* Gives groups of chunks to the ranks, forth and back, 2R `rounds` groups in all: one round is zigzag. */
static void deal(Balancer *balancer, int64_t rounds) {
  const int ranks = balancer->layout.ring_size;
  const int64_t chunks = chunk_count(&balancer->layout);
  const int64_t group = ranks == 1 ? 1 : chunks / (2 * ranks * rounds);
  for (int64_t i = 0; i < balancer->sequences * chunks; i++) {
    const int place = (int)(i % chunks / group % (2 * ranks));
    balancer->owner[i] = place < ranks ? place : 2 * ranks - 1 - place;
  }
}

/* True when `part` is at most `percent` of the mean over the ranks. */
static bool even(const Balancer *balancer, int64_t pairs, int64_t part, int percent) {
  return 100.0 * (double)part * balancer->layout.ring_size <= (double)percent * (double)pairs;
}

static bool ranks_even(const Balancer *balancer, const Balance *balance) {
  return even(balancer, balance->pairs, balance->largest, EVEN_RANKS);
}

static bool all_even(const Balancer *balancer, const Balance *balance) {
  return ranks_even(balancer, balance) && even(balancer, balance->pairs, balance->hops, EVEN_HOPS);
}

/* Even ranks come first, then even hops. */
static bool better(const Balancer *balancer, const Balance *a, const Balance *b) {
  const bool even_a = ranks_even(balancer, a);
  if (even_a != ranks_even(balancer, b)) return even_a;
  return even_a ? a->hops < b->hops : a->largest < b->largest;
}

/* Two chunks of one sequence, by their numbers over all sequences. */
typedef struct Exchange {
  int64_t from; /* of the rank that has most */
  int64_t to;
  int64_t largest; /* of the two ranks afterwards */
} Exchange;

/* The best partner of chunk `from`, if there is a better one than *best. */
static void find_partner(const Balancer *balancer, int64_t from, Exchange *best) {
  const int64_t chunks = chunk_count(&balancer->layout);
  const int64_t begin = from / chunks * chunks;
  const int64_t most = balancer->load[balancer->owner[from]];
  for (int64_t to = begin; to < begin + chunks; to++) {
    const int64_t moved = balancer->queries[from] - balancer->queries[to];
    if (moved <= 0 || balancer->owner[to] == balancer->owner[from]) continue;
    const int64_t left = most - moved;
    const int64_t taken = balancer->load[balancer->owner[to]] + moved;
    const int64_t largest = left > taken ? left : taken;
    if (largest < best->largest) *best = (Exchange){.from = from, .to = to, .largest = largest};
  }
}

/* Exchanges one chunk of the rank that has most; false where that makes nothing better. */
static bool exchange(Balancer *balancer) {
  int rank = 0;
  for (int i = 1; i < balancer->layout.ring_size; i++) {
    if (balancer->load[i] > balancer->load[rank]) rank = i;
  }
  Exchange best = {.from = -1, .largest = balancer->load[rank]};
  for (int64_t from = 0; from < balancer->sequences * chunk_count(&balancer->layout); from++) {
    if (balancer->owner[from] == rank) find_partner(balancer, from, &best);
  }
  if (best.from < 0) return false;
  const int32_t other = balancer->owner[best.to];
  const int64_t moved = balancer->queries[best.from] - balancer->queries[best.to];
  balancer->load[rank] -= moved;
  balancer->load[other] += moved;
  balancer->owner[best.from] = other;
  balancer->owner[best.to] = rank;
  return true;
}

/* Exchanges chunks until the ranks are even, as far as that goes. */
static Balance exchange_chunks(Balancer *balancer, const Documents *documents, Balance balance) {
  const int64_t most = balancer->sequences * balancer->layout.ring_size * MOST_EXCHANGES;
  for (int64_t i = 0; i < most && !ranks_even(balancer, &balance) && exchange(balancer); i++) {
    balance.largest = 0;
    for (int rank = 0; rank < balancer->layout.ring_size; rank++) {
      if (balancer->load[rank] > balance.largest) balance.largest = balancer->load[rank];
    }
  }
  return measure(balancer, documents);
}

/* The owners at hand, as Layout.chunks. */
static void list_chunks(const Balancer *balancer, int32_t *chunks) {
  const int64_t count = chunk_count(&balancer->layout);
  for (int64_t b = 0; b < balancer->sequences; b++) {
    for (int rank = 0; rank < balancer->layout.ring_size; rank++) {
      for (int64_t c = 0; c < count; c++) {
        if (balancer->owner[b * count + c] == rank) *chunks++ = (int32_t)c;
      }
    }
  }
}

void balancer_measure_zigzag(Balancer *balancer, const Documents *documents, Balance *balance) {
  deal(balancer, 1);
  *balance = measure(balancer, documents);
}

void balancer_choose(Balancer *balancer, const Documents *documents, int32_t *chunks, Balance *balance) {
  const size_t bytes =
      (size_t)(balancer->sequences * chunk_count(&balancer->layout)) * sizeof *balancer->owner;
  balancer_measure_zigzag(balancer, documents, balance);
  memcpy(balancer->best, balancer->owner, bytes);
  count_queries(balancer, documents);
  for (int64_t rounds = 1; rounds <= layout_rank_chunks(&balancer->layout) / 2; rounds *= 2) {
    if (all_even(balancer, balance)) break;
    deal(balancer, rounds);
    const Balance found = exchange_chunks(balancer, documents, measure(balancer, documents));
    if (!better(balancer, &found, balance)) continue;
    *balance = found;
    memcpy(balancer->best, balancer->owner, bytes);
  }
  memcpy(balancer->owner, balancer->best, bytes);
  list_chunks(balancer, chunks);
}
