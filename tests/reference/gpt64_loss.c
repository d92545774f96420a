/* The reference model in float64: its forward pass, its loss and its backward pass. See gpt64.h. */
#include "tests/reference/gpt64.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/reference/gpt64_parts.h"

/* ---------------------------------------------------------------- memory of one call */

/* What one layer's forward pass leaves for its backward pass. */
typedef struct LayerState {
  RefMatrix x;             /* (T, C) the layer's input */
  RefMatrix x_normed;      /* (T, C) */
  RefMatrix qkv;           /* (T, (H + 2 KV) D) queries, keys and values side by side, after RoPE */
  RefMatrix p;             /* (H x T, T) attention weights */
  RefMatrix o;             /* (T, C) attention output */
  RefMatrix middle;        /* (T, C) x plus the attention's part */
  RefMatrix middle_normed; /* (T, C) */
  RefMatrix mlp;           /* (T, F) or (T, 2 F): c_fc, or gate and up side by side */
  RefMatrix activations;   /* (T, F) */
} LayerState;

/* One call's matrices, and the gradients, which all layers use in turn. */
typedef struct State {
  RefAttention attention;
  LayerState *layers; /* (L + 1); the last holds in x the output of all layers */
  RefMatrix normed;   /* (T, C) after the final norm */
  RefMatrix logits;   /* (T, V), then their gradient */
  RefMatrix dx;       /* (T, C) gradient of the residual stream */
  RefMatrix dnormed;  /* (T, C) */
  RefMatrix dqkv;     /* (T, (H + 2 KV) D) */
  RefMatrix do_out;   /* (T, C) */
  RefMatrix branch;   /* (T, C) what a branch adds to the residual stream, or its gradient */
  RefMatrix dmlp;     /* as mlp */
  RefMatrix dact;     /* (T, F) */
  RefMatrix dp;       /* (T, T) */
} State;

/* Hands out matrices from one block; without a block it only counts. */
typedef struct Arena {
  double *block;
  int64_t used;
} Arena;

static RefMatrix take(Arena *arena, int64_t rows, int64_t cols) {
  RefMatrix m = {arena->block != NULL ? arena->block + arena->used : NULL, rows, cols, cols};
  arena->used += rows * cols;
  return m;
}

static void take_all(const Gpt64Config *config, int64_t t, Arena *arena, State *state) {
  const int64_t c = config->hidden;
  const int64_t qkv = c + 2 * (c / config->heads) * config->kv_heads;
  const int64_t mlp = config->intermediate * (config->gpt2 ? 1 : 2);
  for (int64_t l = 0; l < config->layers; l++) {
    state->layers[l] = (LayerState){.x = take(arena, t, c),
                                    .x_normed = take(arena, t, c),
                                    .qkv = take(arena, t, qkv),
                                    .p = take(arena, config->heads * t, t),
                                    .o = take(arena, t, c),
                                    .middle = take(arena, t, c),
                                    .middle_normed = take(arena, t, c),
                                    .mlp = take(arena, t, mlp),
                                    .activations = take(arena, t, config->intermediate)};
  }
  state->layers[config->layers].x = take(arena, t, c);
  state->normed = take(arena, t, c);
  state->logits = take(arena, t, config->vocab);
  state->dx = take(arena, t, c);
  state->dnormed = take(arena, t, c);
  state->dqkv = take(arena, t, qkv);
  state->do_out = take(arena, t, c);
  state->branch = take(arena, t, c);
  state->dmlp = take(arena, t, mlp);
  state->dact = take(arena, t, config->intermediate);
  state->dp = take(arena, t, t);
}

/* ---------------------------------------------------------------- parts of a layer */

static void fan_forward(const Fan *fan, RefMatrix x, RefMatrix y) {
  int64_t first = 0;
  for (int i = 0; i < fan->count; i++) {
    const int64_t outputs = ref_linear_outputs(&fan->linear[i]);
    ref_linear_forward(&fan->linear[i], x, ref_columns(y, first, outputs));
    first += outputs;
  }
}

static void fan_backward(const Fan *fan, RefMatrix x, RefMatrix dy, RefMatrix dx) {
  int64_t first = 0;
  for (int i = 0; i < fan->count; i++) {
    const int64_t outputs = ref_linear_outputs(&fan->linear[i]);
    ref_linear_backward(&fan->linear[i], x, ref_columns(dy, first, outputs), dx);
    first += outputs;
  }
}

/* The queries, keys and values within their common matrix. */
static RefMatrix queries(const Gpt64Config *config, RefMatrix qkv) {
  return ref_columns(qkv, 0, config->hidden);
}

static RefMatrix keys(const Gpt64Config *config, RefMatrix qkv) {
  const int64_t width = config->hidden / config->heads * config->kv_heads;
  return ref_columns(qkv, config->hidden, width);
}

static RefMatrix values(const Gpt64Config *config, RefMatrix qkv) {
  const int64_t width = config->hidden / config->heads * config->kv_heads;
  return ref_columns(qkv, config->hidden + width, width);
}

/* RoPE on queries and keys, or its derivative with direction -1; GPT-2 has none. */
static void rotate(const Gpt64Config *config, RefMatrix qkv, double direction) {
  if (config->gpt2) return;
  const int64_t d = config->hidden / config->heads;
  ref_rope(queries(config, qkv), d, &config->rope, config->rope_theta, direction);
  ref_rope(keys(config, qkv), d, &config->rope, config->rope_theta, direction);
}

static void activation_forward(const Gpt64Config *config, RefMatrix mlp, RefMatrix y) {
  const int64_t f = config->intermediate;
  if (config->gpt2) {
    ref_gelu_forward(mlp, y);
  } else {
    ref_swiglu_forward(ref_columns(mlp, 0, f), ref_columns(mlp, f, f), y);
  }
}

static void activation_backward(const Gpt64Config *config, RefMatrix mlp, RefMatrix dy, RefMatrix dmlp) {
  const int64_t f = config->intermediate;
  if (config->gpt2) {
    ref_gelu_backward(mlp, dy, dmlp);
  } else {
    ref_swiglu_backward(ref_columns(mlp, 0, f), ref_columns(mlp, f, f), dy, ref_columns(dmlp, 0, f),
                        ref_columns(dmlp, f, f));
  }
}

/* ---------------------------------------------------------------- layers */

/* y += dropout(linear(x)), the branch of the residual stream at `place`. */
static void branch_forward(const Gpt64 *model, const RefLinear *linear, uint32_t place, RefMatrix x,
                           State *state, RefMatrix y) {
  ref_set_zero(state->branch);
  ref_linear_forward(linear, x, state->branch);
  ref_dropout(model->dropout, place, state->branch);
  ref_add(state->branch, y);
}

/* dx += from the gradient state->dx of the residual stream. */
static void branch_backward(const Gpt64 *model, const RefLinear *linear, uint32_t place, RefMatrix x,
                            State *state, RefMatrix dx) {
  ref_set_zero(state->branch);
  ref_add(state->dx, state->branch);
  ref_dropout(model->dropout, place, state->branch);
  ref_linear_backward(linear, x, state->branch, dx);
}

static uint32_t attention_place(int64_t layer) {
  return (uint32_t)(2 * layer + 1);
}

static uint32_t mlp_place(int64_t layer) {
  return (uint32_t)(2 * layer + 2);
}

/* middle = x + attention(norm(x)); output = middle + mlp(norm(middle)). */
static void layer_forward(const Gpt64 *model, int64_t layer, State *state) {
  const Gpt64Config *config = &model->config;
  const LayerParts *parts = &model->parts->layers[layer];
  const LayerState *s = &state->layers[layer];
  const RefMatrix output = state->layers[layer + 1].x;
  ref_norm_forward(&parts->attention_norm, s->x, s->x_normed);
  fan_forward(&parts->attention_in, s->x_normed, s->qkv);
  rotate(config, s->qkv, 1);
  ref_attention_forward(&state->attention, queries(config, s->qkv), keys(config, s->qkv),
                        values(config, s->qkv), s->p, s->o);
  ref_add(s->x, s->middle);
  branch_forward(model, &parts->attention_out, attention_place(layer), s->o, state, s->middle);

  ref_norm_forward(&parts->mlp_norm, s->middle, s->middle_normed);
  fan_forward(&parts->mlp_in, s->middle_normed, s->mlp);
  activation_forward(config, s->mlp, s->activations);
  ref_add(s->middle, output);
  branch_forward(model, &parts->mlp_out, mlp_place(layer), s->activations, state, output);
}

/* Turns g->dx from the gradient of the layer's output into that of its input. A residual passes it on as it
 * is, and the branch adds to it. */
static void layer_backward(const Gpt64 *model, int64_t layer, State *g) {
  const Gpt64Config *config = &model->config;
  const LayerParts *parts = &model->parts->layers[layer];
  const LayerState *s = &g->layers[layer];
  ref_set_zero(g->dact);
  ref_set_zero(g->dmlp);
  ref_set_zero(g->dnormed);
  branch_backward(model, &parts->mlp_out, mlp_place(layer), s->activations, g, g->dact);
  activation_backward(config, s->mlp, g->dact, g->dmlp);
  fan_backward(&parts->mlp_in, s->middle_normed, g->dmlp, g->dnormed);
  ref_norm_backward(&parts->mlp_norm, s->middle, g->dnormed, g->dx);

  ref_set_zero(g->do_out);
  ref_set_zero(g->dqkv);
  ref_set_zero(g->dnormed);
  branch_backward(model, &parts->attention_out, attention_place(layer), s->o, g, g->do_out);
  ref_attention_backward(&g->attention, queries(config, s->qkv), keys(config, s->qkv), values(config, s->qkv),
                         s->p, g->do_out, g->dp, queries(config, g->dqkv), keys(config, g->dqkv),
                         values(config, g->dqkv));
  rotate(config, g->dqkv, -1);
  fan_backward(&parts->attention_in, s->x_normed, g->dqkv, g->dnormed);
  ref_norm_backward(&parts->attention_norm, s->x, g->dnormed, g->dx);
}

/* ---------------------------------------------------------------- embedding */

static RefMatrix row_of(double *table, int64_t cols, int64_t i) {
  return (RefMatrix){table + i * cols, 1, cols, cols};
}

/* x_t = embedding[token_t] (+ positions[t]). */
static void embedding_forward(const Gpt64 *model, const int32_t *tokens, RefMatrix x) {
  const int64_t c = model->config.hidden;
  for (int64_t t = 0; t < x.rows; t++) {
    const RefMatrix x_t = ref_rows(x, t, 1);
    ref_add(row_of(model->parts->embedding->value, c, tokens[t]), x_t);
    if (model->config.gpt2) ref_add(row_of(model->parts->positions->value, c, t), x_t);
  }
}

static void embedding_backward(const Gpt64 *model, const int32_t *tokens, RefMatrix dx) {
  const int64_t c = model->config.hidden;
  for (int64_t t = 0; t < dx.rows; t++) {
    const RefMatrix dx_t = ref_rows(dx, t, 1);
    ref_add(dx_t, row_of(model->parts->embedding->grad, c, tokens[t]));
    if (model->config.gpt2) ref_add(dx_t, row_of(model->parts->positions->grad, c, t));
  }
}

/* ---------------------------------------------------------------- the model */

static void forward(const Gpt64 *model, const int32_t *tokens, State *s) {
  const Gpt64Config *config = &model->config;
  const Gpt64Parts *parts = model->parts;
  embedding_forward(model, tokens, s->layers[0].x);
  ref_dropout(model->dropout, 0, s->layers[0].x);
  for (int64_t l = 0; l < config->layers; l++) layer_forward(model, l, s);
  ref_norm_forward(&parts->final_norm, s->layers[config->layers].x, s->normed);
  ref_linear_forward(&parts->head, s->normed, s->logits);
}

/* Starts from the gradient of the logits, in s->logits. */
static void backward(const Gpt64 *model, const int32_t *tokens, State *s) {
  const Gpt64Config *config = &model->config;
  const Gpt64Parts *parts = model->parts;
  ref_linear_backward(&parts->head, s->normed, s->logits, s->dnormed);
  ref_norm_backward(&parts->final_norm, s->layers[config->layers].x, s->dnormed, s->dx);
  for (int64_t l = config->layers - 1; l >= 0; l--) layer_backward(model, l, s);
  ref_dropout(model->dropout, 0, s->dx);
  embedding_backward(model, tokens, s->dx);
}

static bool is_in_range(const Gpt64Config *config, const int32_t *tokens, const int32_t *targets,
                        int64_t length) {
  if (length < 0 || (config->gpt2 && length > config->max_positions)) return false;
  for (int64_t t = 0; t < length; t++) {
    if (tokens[t] < 0 || tokens[t] >= config->vocab || targets[t] >= config->vocab) return false;
  }
  return true;
}

/* The matrices of one call, in one block. False, and nothing to close, without memory. */
static bool open_state(const Gpt64Config *config, const int64_t *first_key, int64_t length, Arena *arena,
                       State *state) {
  *arena = (Arena){0};
  *state = (State){.attention = {.heads = config->heads,
                                 .kv_heads = config->kv_heads,
                                 .head_dim = config->hidden / config->heads,
                                 .first_key = first_key,
                                 .window = config->window}};
  state->layers = calloc((size_t)config->layers + 1, sizeof *state->layers);
  if (state->layers == NULL) return false;
  take_all(config, length, arena, state);
  *arena = (Arena){.block = calloc((size_t)arena->used + 1, sizeof(double))};
  if (arena->block == NULL) {
    free(state->layers);
    return false;
  }
  take_all(config, length, arena, state);
  return true;
}

static void close_state(Arena *arena, State *state) {
  free(arena->block);
  free(state->layers);
}

double gpt64_loss(Gpt64 *model, const int32_t *tokens, const int32_t *targets, const int64_t *first_key,
                  int64_t length, double divisor, double *nll_per_token, bool gradients) {
  Arena arena;
  State state;
  if (!is_in_range(&model->config, tokens, targets, length)) return NAN;
  if (!open_state(&model->config, first_key, length, &arena, &state)) return NAN;
  forward(model, tokens, &state);
  const double nll = ref_cross_entropy(state.logits, targets, 1 / divisor, gradients, nll_per_token);
  if (gradients) backward(model, tokens, &state);
  close_state(&arena, &state);
  return nll / divisor;
}

bool gpt64_logits(const Gpt64 *model, const int32_t *tokens, int64_t length, double *logits) {
  Arena arena;
  State state;
  if (!is_in_range(&model->config, tokens, tokens, length)) return false;
  if (!open_state(&model->config, NULL, length, &arena, &state)) return false;
  forward(model, tokens, &state);
  memcpy(logits, state.logits.at, (size_t)(length * model->config.vocab) * sizeof(double));
  close_state(&arena, &state);
  return true;
}
