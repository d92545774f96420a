/* What a panel of queries sees of a block of keys: which tiles to compute, and which of them need a mask. */
#ifndef RINGGPT_CPU_ATTENTION_SIGHT_AVX512_H
#define RINGGPT_CPU_ATTENTION_SIGHT_AVX512_H

#include <immintrin.h>
#include <stdbool.h>
#include <stdint.h>

#include "kernels/cpu/attention_layout_avx512.h"

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
  __mmask16 seeing[2]; /* the queries that see some key */
  __m512i first[2];    /* per query: it sees the keys [first, last) of the block; */
  __m512i last[2];     /* only set where some tile is not seen whole */
} Sight;

static inline int64_t clamp(int64_t value, int64_t low, int64_t high) {
  return max_of(low, min_of(value, high));
}

/* The first keys of sixteen queries, `count` of them real, relative to the block and clamped to it. */
static inline __m512i sight_first(const int64_t *first_key, int64_t count, int64_t key_start,
                                  int64_t key_count) {
  const __m512i low = _mm512_set1_epi64(key_start);
  const __m512i high = _mm512_set1_epi64(key_start + key_count);
  const __mmask16 real = (__mmask16)(count >= 16 ? 0xFFFF : (1 << max_of(count, 0)) - 1);
  __m256i half[2];
  for (int i = 0; i < 2; i++) {
    const __m512i keys = _mm512_maskz_loadu_epi64((__mmask8)(real >> (8 * i)), first_key + (ptrdiff_t)8 * i);
    const __m512i inside = _mm512_min_epi64(_mm512_max_epi64(keys, low), high);
    half[i] = _mm512_cvtepi64_epi32(_mm512_sub_epi64(inside, low));
  }
  return _mm512_inserti64x4(_mm512_castsi256_si512(half[0]), half[1], 1);
}

/* What panel `panel` of a run sees of the `key_count` keys from global position `key_start` on. */
static inline Sight sight_of(const QueryRun *run, int64_t panel, int64_t key_start, int64_t key_count) {
  const int64_t *first_key = run->first_key + panel * PANEL;
  const int64_t count = panel_queries(run->length, panel);
  const int64_t reach = run->start + panel * PANEL + 1 - key_start; /* keys before the first query's end */
  const int64_t first = clamp(first_key[0], key_start, key_start + key_count) - key_start;
  const int64_t last = clamp(reach + count - 1, 0, key_count);
  Sight sight = {.seeing = {0xFFFF, 0xFFFF}};
  if (first >= last) return sight;
  sight.begin = first / TILE;
  sight.end = (last + TILE - 1) / TILE;
  const int64_t whole_first = clamp(first_key[count - 1], key_start, key_start + key_count) - key_start;
  sight.whole_begin = (whole_first + TILE - 1) / TILE;
  sight.whole_end = clamp(reach, 0, key_count) / TILE;
  if (sight.whole_begin <= sight.begin && sight.end <= sight.whole_end) return sight;
  const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const int32_t near = (int32_t)clamp(reach, -PANEL, key_count);
  for (int v = 0; v < 2; v++) {
    sight.first[v] =
        sight_first(first_key + (ptrdiff_t)16 * v, count - (int64_t)16 * v, key_start, key_count);
    sight.last[v] = _mm512_min_epi32(_mm512_add_epi32(lanes, _mm512_set1_epi32(near + 16 * v)),
                                     _mm512_set1_epi32((int32_t)key_count));
    sight.seeing[v] = _mm512_cmplt_epi32_mask(sight.first[v], sight.last[v]);
  }
  return sight;
}

/* The first block of a run of keys that panel `panel` and those after it see. */
static inline int64_t sight_first_block(const QueryRun *run, int64_t panel, int64_t key_start,
                                        int64_t key_length) {
  const int64_t first_key = run->first_key[panel * PANEL];
  return (clamp(first_key, key_start, key_start + key_length) - key_start) / KEY_BLOCK;
}

static inline bool sight_whole(const Sight *sight, int64_t tile) {
  return tile >= sight->whole_begin && tile < sight->whole_end;
}

/* The queries of vector v that see key `key` of the block, for a tile that is not seen whole. */
static inline __mmask16 sight_mask(const Sight *sight, int v, int64_t key) {
  const __m512i index = _mm512_set1_epi32((int32_t)key);
  return _mm512_mask_cmpgt_epi32_mask(_mm512_cmple_epi32_mask(sight->first[v], index), sight->last[v], index);
}

#endif
