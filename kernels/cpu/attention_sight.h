/* What a panel of queries sees of a block of keys: which tiles to compute, and which of them need a mask. */
#ifndef RINGGPT_CPU_ATTENTION_SIGHT_H
#define RINGGPT_CPU_ATTENTION_SIGHT_H

#include "kernels/cpu/attention_layout.h"

/* A run of queries as a block meets it. */
typedef struct QueryRun {
  int64_t length;
  int64_t start;            /* global position of the first */
  const int64_t *first_key; /* (length), global */
} QueryRun;

/* Neither the first nor the last visible key falls from query to query, so the tiles that any query of a
 * panel sees are a range, and so are those that every query sees whole. */
typedef struct Sight {
  int64_t begin; /* tiles [begin, end) of the block are seen by some query; empty: begin == end */
  int64_t end;
  int64_t whole_begin; /* tiles [whole_begin, whole_end) are seen whole by every query */
  int64_t whole_end;
  Mask seeing[PANEL_VECTORS]; /* the queries that see some key */
  int32_t first[PANEL];       /* per query: it sees the keys [first, last) of the block; */
  int32_t last[PANEL];        /* only set where some tile is not seen whole */
} Sight;

/* Keys [first, last) of each query of a panel, `count` of them real. */
static inline void sight_of_queries(const int64_t *first_key, int64_t count, int64_t reach, int64_t key_start,
                                    int64_t key_count, Sight *sight) {
  for (int64_t i = 0; i < PANEL; i++) {
    const int64_t first = i < count ? first_key[i] : key_start + key_count;
    sight->first[i] = (int32_t)(clamp(first, key_start, key_start + key_count) - key_start);
    sight->last[i] = (int32_t)clamp(reach + i, 0, key_count);
  }
  for (int v = 0; v < PANEL_VECTORS; v++) {
    const int64_t lane = (int64_t)v * VECTOR_FLOATS;
    sight->seeing[v] = lanes_below(sight->first + lane, sight->last + lane);
  }
}

/* What panel `panel` of a run sees of the `key_count` keys from global position `key_start` on. */
static inline Sight sight_of(const QueryRun *run, int64_t panel, int64_t key_start, int64_t key_count) {
  const int64_t *first_key = run->first_key + panel * PANEL;
  const int64_t count = panel_queries(run->length, panel);
  const int64_t reach = run->start + panel * PANEL + 1 - key_start; /* keys before the first query's end */
  const int64_t first = clamp(first_key[0], key_start, key_start + key_count) - key_start;
  const int64_t last = clamp(reach + count - 1, 0, key_count);
  Sight sight;
  sight.begin = sight.end = sight.whole_begin = sight.whole_end = 0;
  for (int v = 0; v < PANEL_VECTORS; v++) sight.seeing[v] = mask_all();
  if (first >= last) return sight;
  sight.begin = first / TILE;
  sight.end = (last + TILE - 1) / TILE;
  const int64_t whole_first = clamp(first_key[count - 1], key_start, key_start + key_count) - key_start;
  sight.whole_begin = (whole_first + TILE - 1) / TILE;
  sight.whole_end = clamp(reach, 0, key_count) / TILE;
  if (sight.whole_begin <= sight.begin && sight.end <= sight.whole_end) return sight;
  sight_of_queries(first_key, count, reach, key_start, key_count, &sight);
  return sight;
}

/* The first block of a run of keys that panel `panel` and those after it see. */
static inline int64_t sight_first_block(const QueryRun *run, int64_t panel, int64_t key_start,
                                        int64_t key_length) {
  const int64_t first_key = run->first_key[panel * PANEL];
  return (clamp(first_key, key_start, key_start + key_length) - key_start) / KEY_BLOCK;
}

/* The pairs of a real query of the panels [begin, end) and a key that it sees. */
static inline int64_t sight_pairs(const QueryRun *run, int64_t begin, int64_t end, int64_t key_start,
                                  int64_t key_length) {
  const int64_t last = min_of(end * PANEL, run->length);
  int64_t pairs = 0;
  for (int64_t i = begin * PANEL; i < last; i++) {
    const int64_t first_key = max_of(run->first_key[i], key_start);
    pairs += max_of(0, min_of(run->start + i + 1, key_start + key_length) - first_key);
  }
  return pairs;
}

static inline bool sight_whole(const Sight *sight, int64_t tile) {
  return tile >= sight->whole_begin && tile < sight->whole_end;
}

/* The queries of vector v that see key `key` of the block, for a tile that is not seen whole. */
static inline Mask sight_mask(const Sight *sight, int v, int64_t key) {
  const int64_t lane = (int64_t)v * VECTOR_FLOATS;
  return lanes_within(sight->first + lane, (int32_t)key, sight->last + lane);
}

#endif
