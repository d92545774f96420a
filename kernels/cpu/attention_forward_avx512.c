/* Attention forward on AVX-512: panels of queries fold blocks of keys.
 *
 * The exponents are taken relative to a reference score per query rather than to the running maximum: the
 * first tile that a query sees gives its reference, and only when a block's scores pass it by more than 2^60
 * is the reference raised and the block computed again. The result is the same, and the common block needs
 * neither a maximum nor a rescaling; its exponentials come straight from the registers of the product. */
#if defined(__AVX512F__)

#include <math.h>
#include <string.h>

#include "kernels/cpu/attention_layout_avx512.h"
#include "kernels/cpu/attention_pack_avx512.h"
#include "kernels/cpu/attention_sight_avx512.h"
#include "kernels/cpu/attention_tile_avx512.h"
#include "kernels/cpu/exp2_avx512.h"
#include "kernels/cpu/poll.h"
#include "kernels/device.h"

/* Panels of one task: their q and values share the second-level cache with a block of keys and values. */
#define TASK_PANELS 8

/* A block's sum of 2^(score - reference) from which on the reference is raised. */
#define SUM_LIMIT 0x1p60F

/* The state of one head. */
typedef struct Head {
  float *q;         /* panels */
  float *values;    /* panels: sum of 2^(score - reference) v */
  float *reference; /* (Lp): -inf before the first visible key */
  float *sum;       /* (Lp): sum of 2^(score - reference) */
} Head;

/* One panel, a part of a Head. */
typedef Head Panel;

/* A block of keys and values of one key head. */
typedef struct Block {
  const float *k; /* tiles */
  const float *v; /* tiles */
  int64_t head_dim;
  Ahead next_k; /* the same of the next block */
  Ahead next_v;
} Block;

static Head head_of(const AttentionDims *dims, int64_t length, float *state, int64_t head) {
  float *start = state + head * forward_head_floats(dims, length);
  const int64_t queries = panel_count(length) * PANEL;
  return (Head){.q = start,
                .values = start + queries * dims->head_dim,
                .reference = start + 2 * queries * dims->head_dim,
                .sum = start + queries * (2 * dims->head_dim + 1)};
}

static Panel panel_of(const AttentionDims *dims, const Head *head, int64_t panel) {
  return (Panel){.q = head->q + panel * PANEL * dims->head_dim,
                 .values = head->values + panel * PANEL * dims->head_dim,
                 .reference = head->reference + panel * PANEL,
                 .sum = head->sum + panel * PANEL};
}

/* ---------------------------------------------------------------- scores */

/* tile = start + k q of one tile of keys; unseen scores become -inf. */
static inline __attribute__((always_inline)) void score_tile(const Panel *panel, Block *block,
                                                             const Sight *sight, int64_t t,
                                                             const __m512 start[2], Tile *tile) {
  const float *k = block->k + t * TILE * block->head_dim;
  tile_set(tile, start);
  for (int64_t d = 0; d < block->head_dim; d += 8) {
    tile_multiply(tile, 2, k + d * TILE, 1, TILE, panel->q + d * PANEL, PANEL, &block->next_k);
  }
  if (sight_whole(sight, t)) return;
  const __m512 unseen = _mm512_set1_ps(-INFINITY);
#pragma GCC unroll 8
  for (int r = 0; r < 8; r++) {
#pragma GCC unroll 2
    for (int v = 0; v < 2; v++) {
      tile->row[r][v] = _mm512_mask_mov_ps(unseen, sight_mask(sight, v, t * TILE + r), tile->row[r][v]);
    }
  }
}

/* maximum (2 x 16) = the largest score that each query sees in tiles [begin, end), or -inf. */
static void largest_scores(const Panel *panel, Block *block, const Sight *sight, int64_t begin, int64_t end,
                           __m512 maximum[2]) {
  const __m512 zero[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
  maximum[0] = maximum[1] = _mm512_set1_ps(-INFINITY);
  for (int64_t t = begin; t < end; t++) {
    Tile tile;
    score_tile(panel, block, sight, t, zero, &tile);
    for (int r = 0; r < 8; r++) {
      for (int v = 0; v < 2; v++) maximum[v] = _mm512_max_ps(tile.row[r][v], maximum[v]);
    }
  }
}

/* The queries of vector v that have no reference yet. */
static __mmask16 without_reference(const Panel *panel, int v) {
  return _mm512_cmp_ps_mask(_mm512_loadu_ps(panel->reference + (ptrdiff_t)16 * v), _mm512_set1_ps(-INFINITY),
                            _CMP_EQ_OQ);
}

/* Gives a reference to the queries that see their first keys in this block: mostly all in one tile. */
static void find_references(const Panel *panel, Block *block, const Sight *sight) {
  for (int64_t t = sight->begin; t < sight->end; t++) {
    const __mmask16 missing[2] = {without_reference(panel, 0) & sight->seeing[0],
                                  without_reference(panel, 1) & sight->seeing[1]};
    if ((missing[0] | missing[1]) == 0) return;
    __m512 maximum[2];
    largest_scores(panel, block, sight, t, t + 1, maximum);
    for (int v = 0; v < 2; v++) {
      _mm512_mask_storeu_ps(panel->reference + (ptrdiff_t)16 * v, missing[v], maximum[v]);
    }
  }
}

/* Raises the references of some queries of vector v to the block's maximum, and rescales what they hold; the
 * others keep their bits. */
static void raise_reference(const Panel *panel, int64_t head_dim, int v, __mmask16 raised, __m512 maximum) {
  float *reference = panel->reference + (ptrdiff_t)16 * v;
  const __m512 old = _mm512_loadu_ps(reference);
  const __m512 next = _mm512_mask_max_ps(old, raised, old, maximum);
  const __m512 factor = exp2_avx512(_mm512_maskz_sub_ps(raised, old, next));
  _mm512_storeu_ps(reference, next);
  float *sum = panel->sum + (ptrdiff_t)16 * v;
  const __m512 total = _mm512_loadu_ps(sum);
  _mm512_storeu_ps(sum, _mm512_mask_mul_ps(total, raised, total, factor));
  for (int64_t d = 0; d < head_dim; d++) {
    float *values = panel->values + d * PANEL + (ptrdiff_t)16 * v;
    const __m512 value = _mm512_loadu_ps(values);
    _mm512_storeu_ps(values, _mm512_mask_mul_ps(value, raised, value, factor));
  }
}

/* p [key][PANEL] = 2^(score - reference) of all tiles in sight; sum (2 x 16) = their sum per query. */
static void exponentials(const Panel *panel, Block *block, const Sight *sight, float *p, __m512 sum[2]) {
  __m512 start[2];
  for (int v = 0; v < 2; v++) {
    /* A query that still has none sees nothing here: its start of +inf is masked out of every tile. */
    start[v] = _mm512_sub_ps(_mm512_setzero_ps(), _mm512_loadu_ps(panel->reference + (ptrdiff_t)16 * v));
    sum[v] = _mm512_setzero_ps();
  }
  for (int64_t t = sight->begin; t < sight->end; t++) {
    Tile tile;
    score_tile(panel, block, sight, t, start, &tile);
#pragma GCC unroll 8
    for (int r = 0; r < 8; r++) {
#pragma GCC unroll 2
      for (int v = 0; v < 2; v++) {
        const __m512 power = exp2_avx512(tile.row[r][v]);
        sum[v] = _mm512_add_ps(sum[v], power);
        _mm512_storeu_ps(p + (t * TILE + r) * PANEL + (ptrdiff_t)16 * v, power);
      }
    }
  }
}

/* ---------------------------------------------------------------- folding */

/* values [d][PANEL] += v p over the tiles in sight. */
static void add_values(const Panel *panel, Block *block, const Sight *sight, const float *p) {
  const __m512 zero[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
  for (int64_t d = 0; d < block->head_dim; d += 8) {
    Tile tile;
    tile_set(&tile, zero);
    for (int64_t t = sight->begin; t < sight->end; t++) {
      tile_multiply(&tile, 2, block->v + (t * block->head_dim + d) * TILE, TILE, 1, p + t * TILE * PANEL,
                    PANEL, &block->next_v);
    }
    tile_add_to(&tile, 2, panel->values + d * PANEL, PANEL);
  }
}

static void fold_block(const Panel *panel, Block *block, const Sight *sight) {
  _Alignas(64) float p[KEY_BLOCK * PANEL];
  __m512 sum[2];
  find_references(panel, block, sight);
  exponentials(panel, block, sight, p, sum);
  const __m512 limit = _mm512_set1_ps(SUM_LIMIT);
  const __mmask16 large[2] = {_mm512_cmp_ps_mask(sum[0], limit, _CMP_GE_OQ),
                              _mm512_cmp_ps_mask(sum[1], limit, _CMP_GE_OQ)};
  if ((large[0] | large[1]) != 0) {
    __m512 maximum[2];
    largest_scores(panel, block, sight, sight->begin, sight->end, maximum);
    for (int v = 0; v < 2; v++) raise_reference(panel, block->head_dim, v, large[v], maximum[v]);
    exponentials(panel, block, sight, p, sum);
  }
  for (int v = 0; v < 2; v++) {
    float *total = panel->sum + (ptrdiff_t)16 * v;
    _mm512_storeu_ps(total, _mm512_add_ps(_mm512_loadu_ps(total), sum[v]));
  }
  add_values(panel, block, sight, p);
}

/* Folds all keys into the panels [begin, end) of one head: block after block, so that a block is read from
 * the cache by all panels but the first. */
static void fold_keys(const Device *device, const AttentionDims *dims, const Head *head, const QueryRun *run,
                      int64_t begin, int64_t end, int64_t key_length, int64_t key_start, const float *kv) {
  const int64_t d = dims->head_dim;
  const int64_t first = sight_first_block(run, begin, key_start, key_length);
  const int64_t last = clamp(run->start + end * PANEL - key_start, 0, key_length);
  for (int64_t key = first * KEY_BLOCK; key < last; key += KEY_BLOCK) {
    device_poll(device); /* every some tens of microseconds */
    const int64_t count = min_of(KEY_BLOCK, key_length - key);
    const int64_t left = min_of(KEY_BLOCK, key_length - key - count);
    const int64_t next = left > 0 ? key + KEY_BLOCK : key;
    const float *v = kv + kv_floats(dims, key_length);
    Block block = {.k = kv + key * d,
                   .v = v + key * d,
                   .head_dim = d,
                   .next_k = ahead_of(kv + next * d, left * d),
                   .next_v = ahead_of(v + next * d, left * d)};
    for (int64_t i = begin; i < end; i++) {
      const Sight sight = sight_of(run, i, key_start + key, count);
      if (sight.begin == sight.end) continue;
      const Panel panel = panel_of(dims, head, i);
      fold_block(&panel, &block, &sight);
    }
  }
}

void attention_forward_block_avx512(Device *device, const AttentionDims *dims, int64_t query_length,
                                    int64_t query_start, const int64_t *first_key, void *state,
                                    int64_t key_length, int64_t key_start, const void *kv) {
  const QueryRun run = {.length = query_length, .start = query_start, .first_key = first_key};
  const int64_t panels = panel_count(query_length);
  const int64_t parts = (panels + TASK_PANELS - 1) / TASK_PANELS;
  const int64_t group = dims->heads / dims->kv_heads;
  const int team = team_size(device, dims->heads * query_length * key_length * dims->head_dim / 8);
  /* Under a causal mask the last queries have the most work: they come first. */
#pragma omp parallel for num_threads(team) if (team > 1) schedule(dynamic)
  for (int64_t task = 0; task < parts * dims->heads; task++) {
    const int64_t begin = (parts - 1 - task / dims->heads) * TASK_PANELS;
    const int64_t head = task % dims->heads;
    const Head to = head_of(dims, query_length, state, head);
    fold_keys(device, dims, &to, &run, begin, min_of(begin + TASK_PANELS, panels), key_length, key_start,
              (const float *)kv + head / group * 2 * kv_floats(dims, key_length));
  }
}

/* ---------------------------------------------------------------- begin and end */

void attention_forward_begin_avx512(Device *device, const AttentionDims *dims, int64_t length, const elem *q,
                                    int64_t stride, void *state) {
  const int64_t d = dims->head_dim;
  const int64_t panels = panel_count(length);
  const int team = team_size(device, dims->heads * length * d / 8);
#pragma omp parallel for num_threads(team) if (team > 1) collapse(2)
  for (int64_t h = 0; h < dims->heads; h++) {
    for (int64_t i = 0; i < panels; i++) {
      poll_within(device, i, 2 * PANEL * d);
      const Head head = head_of(dims, length, state, h);
      const Panel to = panel_of(dims, &head, i);
      pack_panel(panel_queries(length, i), d, dims->scale * LOG2_E,
                 (const float *)q + i * PANEL * stride + h * d, stride, to.q);
      memset(to.values, 0, (size_t)(PANEL * d) * sizeof(float));
      memset(to.sum, 0, PANEL * sizeof(float));
      for (int64_t lane = 0; lane < PANEL; lane++) to.reference[lane] = -INFINITY;
    }
  }
}

/* The result of one panel, `count` of its queries real: values over sum, and the logarithm of the sum. */
static void finish_panel(int64_t count, int64_t d, const float *values, const float *reference,
                         const float *sum, float *out, int64_t row, float *lse) {
  float factors[PANEL] = {0};
  for (int64_t lane = 0; lane < count; lane++) {
    const bool seeing = sum[lane] != 0.0F;
    factors[lane] = seeing ? 1.0F / sum[lane] : 0.0F;
    lse[lane] = seeing ? LN_2 * reference[lane] + logf(sum[lane]) : -INFINITY;
  }
  unpack_panel(count, d, factors, values, out, row);
}

void attention_forward_end_avx512(Device *device, const AttentionDims *dims, int64_t length,
                                  const void *state, elem *out, float *lse) {
  const int64_t d = dims->head_dim;
  const int64_t row = dims->heads * d;
  const int64_t panels = panel_count(length);
  const int team = team_size(device, dims->heads * length * d / 8);
#pragma omp parallel for num_threads(team) if (team > 1) collapse(2)
  for (int64_t h = 0; h < dims->heads; h++) {
    for (int64_t i = 0; i < panels; i++) {
      poll_within(device, i, 2 * PANEL * d);
      const float *head = (const float *)state + h * forward_head_floats(dims, length);
      const float *reference = head + 2 * panels * PANEL * d;
      const int64_t at = i * PANEL;
      finish_panel(panel_queries(length, i), d, head + (panels * PANEL + at) * d, reference + at,
                   reference + panels * PANEL + at, (float *)out + at * row + h * d, row,
                   lse + h * length + at);
    }
  }
}

#endif
