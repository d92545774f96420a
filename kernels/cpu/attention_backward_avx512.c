/* Attention backward on AVX-512: five products per pair of a key block and a few panels of queries,
 *
 *   P^T = 2^(K Q^T - lse)     dS^T = P^T (V dO^T - delta)
 *   dV += P^T dO              dK += dS^T Q              dQ^T += K^T dS^T
 *
 * all on the transposed scores as they are, without a transposition in between. The accumulators of the first
 * two start at -lse and -delta, so that P and dS come straight from the registers of the products. */
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

/* Panels whose scores against a key block are held at a time. */
#define STEP_PANELS 3

/* Queries and keys are cut into chunks for threads to share out: as many as give this many tasks at a time,
 * but none shorter than CHUNK_BLOCKS key blocks, because a task starts with nothing of its own in the cache.
 * The number of threads plays no part, so that it does not change the order of sums. */
#define WANTED_TASKS 64
#define CHUNK_BLOCKS 6

/* The state of one head. */
typedef struct Head {
  float *q;           /* panels, with the factor scale log2(e) */
  float *dout;        /* panels */
  float *dq;          /* panels: sum of dS K, without the scale */
  float *q_rows;      /* (Lp, Dp), with the factor scale */
  float *dout_rows;   /* (Lp, Dp) */
  float *minus_lse;   /* (Lp), in units of log 2; -inf for a query that sees nothing, so that P is 0 */
  float *minus_delta; /* (Lp): -rowsum(dO O) */
} Head;

/* A block of keys of one key head. */
typedef struct Block {
  const float *k;   /* tiles */
  const float *v;   /* tiles */
  float *dk;        /* (keys, Dp) */
  float *dv;        /* (keys, Dp) */
  int64_t start;    /* global position of the first key */
  int64_t count;    /* keys */
  int64_t head_dim; /* D */
  int64_t row;      /* Dp */
} Block;

/* P^T and dS^T of a few panels against a block, each panel [key][PANEL]. */
typedef struct Scores {
  float p[STEP_PANELS][KEY_BLOCK * PANEL];
  float ds[STEP_PANELS][KEY_BLOCK * PANEL];
  Sight sight[STEP_PANELS];
} Scores;

/* What the next step needs of one head, which the five products of a step ask for ahead. */
typedef struct Next {
  Ahead q;
  Ahead dout;
  Ahead dq;
  Ahead q_rows;
  Ahead dout_rows;
} Next;

static Head head_of(const AttentionDims *dims, int64_t length, float *state, int64_t head) {
  float *start = state + head * backward_head_floats(dims, length);
  const int64_t queries = panel_count(length) * PANEL;
  const int64_t panels = queries * dims->head_dim;
  const int64_t rows = queries * padded_dim(dims);
  return (Head){.q = start,
                .dout = start + panels,
                .dq = start + 2 * panels,
                .q_rows = start + 3 * panels,
                .dout_rows = start + 3 * panels + rows,
                .minus_lse = start + 3 * panels + 2 * rows,
                .minus_delta = start + 3 * panels + 2 * rows + queries};
}

/* ---------------------------------------------------------------- the five products */

/* tile = start + a b over D, of one tile of keys or values and one panel. */
static inline __attribute__((always_inline)) void score_tile(int64_t head_dim, const float *keys,
                                                             const float *panel, const float *start,
                                                             Ahead *ahead, Tile *tile) {
  const __m512 starts[2] = {_mm512_loadu_ps(start), _mm512_loadu_ps(start + 16)};
  tile_set(tile, starts);
  for (int64_t d = 0; d < head_dim; d += 8) {
    tile_multiply(tile, 2, keys + d * TILE, 1, TILE, panel + d * PANEL, PANEL, ahead);
  }
}

/* P^T and dS^T of all tiles in sight of one panel. */
static void panel_scores(const Head *head, int64_t panel, const Block *block, const Sight *sight, float *p,
                         float *ds, Next *next) {
  const int64_t at = panel * PANEL * block->head_dim;
  for (int64_t t = sight->begin; t < sight->end; t++) {
    Tile tile;
    float *tile_p = p + t * TILE * PANEL;
    float *tile_ds = ds + t * TILE * PANEL;
    score_tile(block->head_dim, block->k + t * TILE * block->head_dim, head->q + at,
               head->minus_lse + panel * PANEL, &next->q, &tile);
    const bool whole = sight_whole(sight, t);
#pragma GCC unroll 8
    for (int r = 0; r < 8; r++) {
#pragma GCC unroll 2
      for (int v = 0; v < 2; v++) {
        __m512 power = exp2_avx512(tile.row[r][v]);
        if (!whole) power = _mm512_maskz_mov_ps(sight_mask(sight, v, t * TILE + r), power);
        _mm512_storeu_ps(tile_p + r * PANEL + 16 * v, power);
      }
    }
    score_tile(block->head_dim, block->v + t * TILE * block->head_dim, head->dout + at,
               head->minus_delta + panel * PANEL, &next->dout, &tile);
#pragma GCC unroll 8
    for (int r = 0; r < 8; r++) {
#pragma GCC unroll 2
      for (int v = 0; v < 2; v++) {
        const __m512 power = _mm512_loadu_ps(tile_p + r * PANEL + 16 * v);
        _mm512_storeu_ps(tile_ds + r * PANEL + 16 * v, _mm512_mul_ps(power, tile.row[r][v]));
      }
    }
  }
}

/* out (8, Dp) columns [d, d + 16 vectors) += scores^T (8, queries) rows (queries, Dp), over the panels that
 * see tile t. */
static inline __attribute__((always_inline)) void add_key_tile(int vectors, const Sight *sight, int64_t t,
                                                               const float (*scores)[KEY_BLOCK * PANEL],
                                                               const float *rows, int64_t row, Ahead *ahead,
                                                               float *out) {
  const __m512 zero[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
  Tile tile;
  tile_set(&tile, zero);
  for (int64_t i = 0; i < STEP_PANELS; i++) {
    if (t < sight[i].begin || t >= sight[i].end) continue;
    for (int64_t q = 0; q < PANEL; q += 8) {
      tile_multiply(&tile, vectors, scores[i] + t * TILE * PANEL + q, PANEL, 1, rows + (i * PANEL + q) * row,
                    row, ahead);
    }
  }
  tile_add_to(&tile, vectors, out, row);
}

/* dv += P^T dO or dk += dS^T Q: out (keys, Dp) += scores^T rows, rows (STEP_PANELS PANEL, Dp). */
static void add_keys(const Block *block, const Sight *sight, const float (*scores)[KEY_BLOCK * PANEL],
                     const float *rows, Ahead *ahead, float *out) {
  int64_t begin = KEY_BLOCK / TILE;
  int64_t end = 0;
  for (int64_t i = 0; i < STEP_PANELS; i++) {
    if (sight[i].begin == sight[i].end) continue;
    begin = min_of(begin, sight[i].begin);
    end = max_of(end, sight[i].end);
  }
  const int64_t row = block->row;
  for (int64_t d = 0; d < row; d += 32) {
    for (int64_t t = begin; t < end; t++) {
      float *to = out + t * TILE * row + d;
      if (d + 32 <= row) {
        add_key_tile(2, sight, t, scores, rows + d, row, ahead, to);
      } else {
        add_key_tile(1, sight, t, scores, rows + d, row, ahead, to);
      }
    }
  }
}

/* dq [d][PANEL] += K^T dS^T over the tiles in sight. */
static void add_queries(const Block *block, const Sight *sight, const float *ds, Ahead *ahead, float *dq) {
  const __m512 zero[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
  for (int64_t d = 0; d < block->head_dim; d += 8) {
    Tile tile;
    tile_set(&tile, zero);
    for (int64_t t = sight->begin; t < sight->end; t++) {
      tile_multiply(&tile, 2, block->k + (t * block->head_dim + d) * TILE, TILE, 1, ds + t * TILE * PANEL,
                    PANEL, ahead);
    }
    tile_add_to(&tile, 2, dq + d * PANEL, PANEL);
  }
}

/* ---------------------------------------------------------------- blocks */

/* Panels [begin, end), at most STEP_PANELS, of one head against a block. */
static void backward_step(const Head *head, const QueryRun *run, int64_t begin, int64_t end,
                          const Block *block, Scores *scores, Next *next) {
  bool seen = false;
  for (int64_t i = 0; i < STEP_PANELS; i++) {
    scores->sight[i] =
        begin + i < end ? sight_of(run, begin + i, block->start, block->count) : (Sight){.begin = 0};
    seen = seen || scores->sight[i].begin < scores->sight[i].end;
  }
  if (!seen) return;
  for (int64_t i = 0; begin + i < end; i++) {
    panel_scores(head, begin + i, block, &scores->sight[i], scores->p[i], scores->ds[i], next);
  }
  const int64_t rows = begin * PANEL * block->row;
  add_keys(block, scores->sight, scores->p, head->dout_rows + rows, &next->dout_rows, block->dv);
  add_keys(block, scores->sight, scores->ds, head->q_rows + rows, &next->q_rows, block->dk);
  for (int64_t i = 0; begin + i < end; i++) {
    if (scores->sight[i].begin == scores->sight[i].end) continue;
    add_queries(block, &scores->sight[i], scores->ds[i], &next->dq,
                head->dq + (begin + i) * PANEL * block->head_dim);
  }
}

/* One call of backward_block. */
typedef struct Call {
  const Device *device;
  const AttentionDims *dims;
  QueryRun run;
  float *state;
  int64_t key_length;
  int64_t key_start;
  const float *kv;
  float *dkv;
} Call;

/* Block b of the keys of key head kv_head. */
static Block block_of(const Call *call, int64_t kv_head, int64_t b) {
  const int64_t key = b * KEY_BLOCK;
  const AttentionDims *dims = call->dims;
  const int64_t kv_size = kv_floats(dims, call->key_length);
  const int64_t dkv_size = dkv_floats(dims, call->key_length);
  const float *k = call->kv + kv_head * 2 * kv_size + key * dims->head_dim;
  float *dk = call->dkv + kv_head * 2 * dkv_size + key * padded_dim(dims);
  return (Block){.k = k,
                 .v = k + kv_size,
                 .dk = dk,
                 .dv = dk + dkv_size,
                 .start = call->key_start + key,
                 .count = min_of(KEY_BLOCK, call->key_length - key),
                 .head_dim = dims->head_dim,
                 .row = padded_dim(dims)};
}

/* Units [begin, end) of part `part` of `parts`. */
typedef struct Part {
  int64_t begin;
  int64_t end;
} Part;

static Part part_of(int64_t units, int64_t part, int64_t parts) {
  return (Part){.begin = units * part / parts, .end = units * (part + 1) / parts};
}

/* The panels [begin, end) of one head, maybe none. */
static Next next_step(const AttentionDims *dims, const Head *head, int64_t begin, int64_t end) {
  const int64_t panel = PANEL * dims->head_dim;
  const int64_t row_panel = PANEL * padded_dim(dims);
  const int64_t at = begin < end ? begin : 0;
  const int64_t count = end - begin;
  return (Next){.q = ahead_of(head->q + at * panel, count * panel),
                .dout = ahead_of(head->dout + at * panel, count * panel),
                .dq = ahead_of(head->dq + at * panel, count * panel),
                .q_rows = ahead_of(head->q_rows + at * row_panel, count * row_panel),
                .dout_rows = ahead_of(head->dout_rows + at * row_panel, count * row_panel)};
}

/* The panels of `queries` that may see a block: those that do not end before it and do not begin after it in
 * their first key. */
static Part panels_in_reach(const Call *call, const Block *block, Part queries) {
  const int64_t behind = (block->start - call->run.start) / PANEL;
  Part reach = {.begin = clamp(behind, queries.begin, queries.end), .end = queries.end};
  const int64_t *first_key = call->run.first_key;
  while (reach.end > reach.begin && first_key[(reach.end - 1) * PANEL] >= block->start + block->count) {
    reach.end--;
  }
  return reach;
}

/* All query heads of key head kv_head: panels of `queries` against key blocks of `keys`. */
static void backward_part(const Call *call, int64_t kv_head, Part queries, Part keys) {
  const int64_t group = call->dims->heads / call->dims->kv_heads;
  _Alignas(64) Scores scores;
  for (int64_t b = keys.begin; b < keys.end; b++) {
    const Block block = block_of(call, kv_head, b);
    const Part reach = panels_in_reach(call, &block, queries);
    for (int64_t h = kv_head * group; h < (kv_head + 1) * group; h++) {
      const Head head = head_of(call->dims, call->run.length, call->state, h);
      for (int64_t i = reach.begin; i < reach.end; i += STEP_PANELS) {
        device_poll(call->device); /* every some tens of microseconds */
        const int64_t end = min_of(i + STEP_PANELS, reach.end);
        Next next = next_step(call->dims, &head, end, min_of(end + STEP_PANELS, reach.end));
        backward_step(&head, &call->run, i, end, &block, &scores, &next);
      }
    }
  }
}

/* Queries and keys are cut into the same number of chunks. At turn s, query chunk (c + s) mod chunks meets
 * key chunk c: no two tasks of a turn add to the same dq, dk or dv, and the order of all sums is fixed. */
static void backward_turn(int team, const Call *call, int64_t chunks, int64_t turn) {
  const int64_t panels = panel_count(call->run.length);
  const int64_t blocks = (call->key_length + KEY_BLOCK - 1) / KEY_BLOCK;
#pragma omp parallel for num_threads(team) if (team > 1) schedule(dynamic)
  for (int64_t task = 0; task < chunks * call->dims->kv_heads; task++) {
    const int64_t key_chunk = task / call->dims->kv_heads;
    const int64_t query_chunk = (key_chunk + turn) % chunks;
    backward_part(call, task % call->dims->kv_heads, part_of(panels, query_chunk, chunks),
                  part_of(blocks, key_chunk, chunks));
  }
}

void attention_backward_block_avx512(Device *device, const AttentionDims *dims, int64_t query_length,
                                     int64_t query_start, const int64_t *first_key, void *state,
                                     int64_t key_length, int64_t key_start, const void *kv, void *dkv) {
  const Call call = {.device = device,
                     .dims = dims,
                     .run = {.length = query_length, .start = query_start, .first_key = first_key},
                     .state = state,
                     .key_length = key_length,
                     .key_start = key_start,
                     .kv = kv,
                     .dkv = dkv};
  const int64_t blocks = (key_length + KEY_BLOCK - 1) / KEY_BLOCK;
  const int64_t chunks = max_of(1, min_of(WANTED_TASKS / dims->kv_heads, blocks / CHUNK_BLOCKS));
  const int team = team_size(device, dims->heads * query_length * key_length * dims->head_dim / 4);
  for (int64_t turn = 0; turn < chunks; turn++) backward_turn(team, &call, chunks, turn);
}

/* ---------------------------------------------------------------- begin and end */

/* Copies `count` (up to PANEL) rows of d floats, times `factor`, to (PANEL, Dp), zeros in the padding. */
static void copy_panel(int64_t count, int64_t d, float factor, const float *from, int64_t stride, float *to) {
  const int64_t row = round_up(d, 16);
  for (int64_t i = 0; i < count; i++) {
    for (int64_t j = 0; j < d; j++) to[i * row + j] = factor * from[i * stride + j];
    for (int64_t j = d; j < row; j++) to[i * row + j] = 0.0F;
  }
  memset(to + count * row, 0, (size_t)((PANEL - count) * row) * sizeof(float));
}

/* -lse in units of log 2 and -delta of a panel, `count` of its queries real. */
static void panel_statistics(int64_t count, int64_t d, const float *out, const float *dout, int64_t stride,
                             const float *lse, float *minus_lse, float *minus_delta) {
  for (int64_t i = 0; i < PANEL; i++) {
    const bool seeing = i < count && lse[i] != -INFINITY;
    minus_lse[i] = seeing ? -LOG2_E * lse[i] : -INFINITY;
    __m256 sum = _mm256_setzero_ps();
    for (int64_t j = 0; j < d && i < count; j += 8) {
      sum =
          _mm256_fmadd_ps(_mm256_loadu_ps(out + i * stride + j), _mm256_loadu_ps(dout + i * stride + j), sum);
    }
    minus_delta[i] = -_mm512_reduce_add_ps(_mm512_zextps256_ps512(sum));
  }
}

void attention_backward_begin_avx512(Device *device, const AttentionDims *dims, int64_t length, const elem *q,
                                     int64_t stride, const elem *out, const elem *dout, const float *lse,
                                     void *state) {
  const int64_t d = dims->head_dim;
  const int64_t row = dims->heads * d;
  const int64_t panels = panel_count(length);
  const int team = team_size(device, dims->heads * length * d / 8);
#pragma omp parallel for num_threads(team) if (team > 1) collapse(2)
  for (int64_t h = 0; h < dims->heads; h++) {
    for (int64_t i = 0; i < panels; i++) {
      poll_within(device, i, 4 * PANEL * d);
      const Head to = head_of(dims, length, state, h);
      const int64_t at = i * PANEL;
      const int64_t count = panel_queries(length, i);
      const float *from_q = (const float *)q + at * stride + h * d;
      const float *from_dout = (const float *)dout + at * row + h * d;
      pack_panel(count, d, dims->scale * LOG2_E, from_q, stride, to.q + at * d);
      pack_panel(count, d, 1.0F, from_dout, row, to.dout + at * d);
      memset(to.dq + at * d, 0, (size_t)(PANEL * d) * sizeof(float));
      copy_panel(count, d, dims->scale, from_q, stride, to.q_rows + at * padded_dim(dims));
      copy_panel(count, d, 1.0F, from_dout, row, to.dout_rows + at * padded_dim(dims));
      panel_statistics(count, d, (const float *)out + at * row + h * d, from_dout, row, lse + h * length + at,
                       to.minus_lse + at, to.minus_delta + at);
    }
  }
}

void attention_backward_end_avx512(Device *device, const AttentionDims *dims, int64_t length,
                                   const void *state, elem *dq, int64_t stride) {
  const int64_t d = dims->head_dim;
  const int64_t panels = panel_count(length);
  float factors[PANEL];
  for (int64_t i = 0; i < PANEL; i++) factors[i] = dims->scale;
  const int team = team_size(device, dims->heads * length * d / 8);
#pragma omp parallel for num_threads(team) if (team > 1) collapse(2)
  for (int64_t h = 0; h < dims->heads; h++) {
    for (int64_t i = 0; i < panels; i++) {
      poll_within(device, i, 4 * PANEL * d);
      const float *head = (const float *)state + h * backward_head_floats(dims, length);
      unpack_panel(panel_queries(length, i), d, factors, head + (2 * panels + i) * PANEL * d,
                   (float *)dq + i * PANEL * stride + h * d, stride);
    }
  }
}

#endif
