/* The buffers of one rank's rows. What lies inside a buffer is laid out twice by the same function: first to
 * learn the buffer's size, then to place its parts. */
#include "model/activations.h"

#include "model/phases.h"

/* Rows of logits begin at multiples of so many elements, whatever the vocabulary: products of matrices whose
 * rows lie unevenly are slow, most of all on GPUs. */
#define LOGITS_ALIGNMENT 64

typedef struct Cursor {
  char *base; /* NULL while measuring */
  size_t used;
} Cursor;

static size_t bytes_of(int64_t rows, int64_t columns, size_t size) {
  return arena_times(arena_times((size_t)rows, (size_t)columns), size);
}

static void *take(Cursor *cursor, int64_t rows, int64_t columns, size_t size) {
  void *place = cursor->base == NULL ? NULL : cursor->base + cursor->used;
  cursor->used = arena_plus(cursor->used, arena_aligned(bytes_of(rows, columns, size)));
  return place;
}

/* Columns of the tensors of a layer. */
typedef struct Widths {
  int64_t c, qkv, attention, heads, hidden, f;
} Widths;

static Widths widths_of(const ModelConfig *config) {
  const int64_t head_dim = config->hidden_size / config->num_attention_heads;
  const int64_t f = config->intermediate_size;
  return (Widths){
      .c = config->hidden_size,
      .qkv = (config->num_attention_heads + 2 * config->num_key_value_heads) * head_dim,
      .attention = config->num_attention_heads * head_dim,
      .heads = config->num_attention_heads,
      .hidden = config->activation == ACTIVATION_SWIGLU ? 2 * f : f,
      .f = f,
  };
}

/* Rows whose MLP exists at one time. */
static int64_t mlp_rows(const ActivationsPlan *plan) {
  return plan->mlp_chunk > 0 && plan->mlp_chunk < plan->rows ? plan->mlp_chunk : plan->rows;
}

static bool all_kept(const ActivationsPlan *plan) {
  return plan->training && !plan->recompute;
}

static bool mlp_kept(const ActivationsPlan *plan) {
  return all_kept(plan) && plan->mlp_chunk == 0;
}

static void take_statistics(Cursor *cursor, int64_t rows, LayerActivations *layer) {
  layer->mean1 = take(cursor, rows, 1, sizeof(float));
  layer->rstd1 = take(cursor, rows, 1, sizeof(float));
  layer->mean2 = take(cursor, rows, 1, sizeof(float));
  layer->rstd2 = take(cursor, rows, 1, sizeof(float));
}

/* What is kept of one layer: what backward needs of it even when the rest is computed again, and the rest
 * where it is not. */
static void take_kept(Cursor *cursor, const ActivationsPlan *plan, LayerActivations *layer) {
  const Widths widths = widths_of(plan->config);
  const int64_t n = plan->rows;
  const size_t size = plan->elem_size;
  layer->input = take(cursor, n, widths.c, size);
  layer->attention = take(cursor, n, widths.attention, size);
  layer->lse = take(cursor, n, widths.heads, sizeof(float));
  if (!all_kept(plan)) return;
  take_statistics(cursor, n, layer);
  layer->norm1 = take(cursor, n, widths.c, size);
  layer->qkv = take(cursor, n, widths.qkv, size);
  layer->middle = take(cursor, n, widths.c, size);
  layer->norm2 = take(cursor, n, widths.c, size);
  if (!mlp_kept(plan)) return;
  layer->hidden = take(cursor, n, widths.hidden, size);
  layer->activated = take(cursor, n, widths.f, size);
}

size_t activations_layer_bytes(const ActivationsPlan *plan) {
  Cursor cursor = {0};
  LayerActivations layer;
  if (plan->training) take_kept(&cursor, plan, &layer);
  return cursor.used;
}

/* The few numbers of each row; `shared` gets those that layers share. */
static void take_rows(Cursor *cursor, const ActivationsPlan *plan, LayerActivations *shared,
                      Activations *out) {
  const ModelConfig *config = plan->config;
  const int64_t n = plan->rows;
  if (!all_kept(plan)) take_statistics(cursor, n, shared);
  out->mean = take(cursor, n, 1, sizeof(float));
  out->rstd = take(cursor, n, 1, sizeof(float));
  out->nll = take(cursor, n, 1, sizeof(float));
  out->tokens = take(cursor, n, 1, sizeof(int32_t));
  out->targets = take(cursor, n, 1, sizeof(int32_t));
  out->positions = take(cursor, n, 1, sizeof(int64_t));
  if (config->position == POSITION_ROPE) {
    out->rope = take(cursor, n, config->hidden_size / config->num_attention_heads, sizeof(float));
  }
  if (plan->training && plan->dropout) out->token_numbers = take(cursor, n, 1, sizeof(int64_t));
}

static int64_t logits_stride(const ModelConfig *config) {
  return (config->vocab_size + LOGITS_ALIGNMENT - 1) / LOGITS_ALIGNMENT * LOGITS_ALIGNMENT;
}

/* What layers share, as far as it is not kept: the stream and attention's output in evaluation alone. */
static void describe_shared(const ActivationsPlan *plan, ArenaBuffer *buffers) {
  const Widths widths = widths_of(plan->config);
  const int64_t n = plan->rows;
  const size_t size = plan->elem_size;
  if (!plan->training) {
    /* The residual stream is updated in place; lse is for backward alone. */
    buffers[BUFFER_INPUT] = (ArenaBuffer){.bytes = bytes_of(n, widths.c, size), .times = PHASES_ALL};
    buffers[BUFFER_ATTENTION] =
        (ArenaBuffer){.bytes = bytes_of(n, widths.attention, size), .times = PHASE_UNPACK | PHASE_MIDDLE};
    buffers[BUFFER_LSE] =
        (ArenaBuffer){.bytes = bytes_of(n, widths.heads, sizeof(float)), .times = PHASE_UNPACK};
  }
  if (!all_kept(plan)) {
    buffers[BUFFER_NORM1] = (ArenaBuffer){.bytes = bytes_of(n, widths.c, size),
                                          .times = PHASE_NORM1 | PHASE_QKV | PHASES_BACKWARD};
    buffers[BUFFER_QKV] = (ArenaBuffer){.bytes = bytes_of(n, widths.qkv, size),
                                        .times = PHASE_QKV | PHASE_PACK | PHASES_QKV_AGAIN};
    /* The next layer's first norm, or the final one, adds it. */
    buffers[BUFFER_MIDDLE] = (ArenaBuffer){.bytes = bytes_of(n, widths.c, size),
                                           .times = PHASE_MIDDLE | PHASE_MLP | PHASE_NORM1 | PHASE_LOSS |
                                                    PHASE_AGAIN | PHASE_D_MLP};
    buffers[BUFFER_NORM2] = (ArenaBuffer){.bytes = bytes_of(n, widths.c, size),
                                          .times = PHASE_MIDDLE | PHASE_MLP | PHASE_AGAIN | PHASE_D_MLP};
  }
  if (!mlp_kept(plan)) {
    const uint32_t times = PHASE_MLP | PHASE_D_MLP;
    buffers[BUFFER_HIDDEN] =
        (ArenaBuffer){.bytes = bytes_of(mlp_rows(plan), widths.hidden, size), .times = times};
    buffers[BUFFER_ACTIVATED] =
        (ArenaBuffer){.bytes = bytes_of(mlp_rows(plan), widths.f, size), .times = times};
  }
}

static void describe_loss(const ActivationsPlan *plan, ArenaBuffer *buffers) {
  const int64_t n = plan->rows;
  const int64_t chunk = plan->loss_chunk < n ? plan->loss_chunk : n;
  const size_t stream = bytes_of(n, plan->config->hidden_size, plan->elem_size);
  buffers[BUFFER_FINAL_NORM] = (ArenaBuffer){.bytes = stream, .times = PHASE_LOSS};
  buffers[BUFFER_LOGITS] = (ArenaBuffer){
      .bytes = bytes_of(chunk, logits_stride(plan->config), plan->elem_size), .times = PHASE_LOSS};
  if (plan->training) {
    buffers[BUFFER_OUTPUT] = (ArenaBuffer){.bytes = stream, .times = PHASE_MLP | PHASE_LOSS};
  }
}

static void describe_backward(const ActivationsPlan *plan, ArenaBuffer *buffers) {
  const Widths widths = widths_of(plan->config);
  const int64_t n = plan->rows;
  const size_t size = plan->elem_size;
  const int64_t widest = widths.c > widths.attention ? widths.c : widths.attention;
  buffers[BUFFER_GRADIENT] = (ArenaBuffer){.bytes = bytes_of(n, widths.c, size), .times = PHASES_GRADIENT};
  buffers[BUFFER_GRAD_NORM] =
      (ArenaBuffer){.bytes = bytes_of(n, widest, size),
                    .times = PHASE_LOSS | PHASE_D_MLP | PHASE_D_OUT | PHASE_D_PACK | PHASE_D_QKV};
  buffers[BUFFER_GRAD_QKV] =
      (ArenaBuffer){.bytes = bytes_of(n, widths.qkv, size), .times = PHASE_D_UNPACK | PHASE_D_QKV};
  buffers[BUFFER_GRAD_HIDDEN] =
      (ArenaBuffer){.bytes = bytes_of(mlp_rows(plan), widths.hidden, size), .times = PHASE_D_MLP};
  buffers[BUFFER_GRAD_ACTIVATED] =
      (ArenaBuffer){.bytes = bytes_of(mlp_rows(plan), widths.f, size), .times = PHASE_D_MLP};
  if (plan->dropout) {
    buffers[BUFFER_GRAD_BRANCH] =
        (ArenaBuffer){.bytes = bytes_of(n, widths.c, size), .times = PHASE_D_MLP | PHASE_D_OUT};
  }
}

void activations_buffers(const ActivationsPlan *plan, ArenaBuffer buffers[ACTIVATION_BUFFERS]) {
  Cursor rows = {0};
  LayerActivations shared;
  Activations ignored;
  for (int i = 0; i < ACTIVATION_BUFFERS; i++) buffers[i] = (ArenaBuffer){0};
  take_rows(&rows, plan, &shared, &ignored);
  buffers[BUFFER_ROWS] = (ArenaBuffer){.bytes = rows.used, .times = PHASES_ALL};
  buffers[BUFFER_KEPT] = (ArenaBuffer){
      .bytes = arena_times((size_t)plan->config->num_hidden_layers, activations_layer_bytes(plan)),
      .times = PHASES_ALL};
  describe_shared(plan, buffers);
  describe_loss(plan, buffers);
  if (plan->training) describe_backward(plan, buffers);
}

void activations_bind(const ActivationsPlan *plan, const ArenaBuffer buffers[ACTIVATION_BUFFERS], char *base,
                      LayerActivations *layers, Activations *activations) {
  void *place[ACTIVATION_BUFFERS];
  for (int i = 0; i < ACTIVATION_BUFFERS; i++) {
    place[i] = buffers[i].bytes > 0 ? base + buffers[i].offset : NULL;
  }
  LayerActivations shared = {.input = place[BUFFER_INPUT],
                             .attention = place[BUFFER_ATTENTION],
                             .lse = place[BUFFER_LSE],
                             .norm1 = place[BUFFER_NORM1],
                             .qkv = place[BUFFER_QKV],
                             .middle = place[BUFFER_MIDDLE],
                             .norm2 = place[BUFFER_NORM2],
                             .hidden = place[BUFFER_HIDDEN],
                             .activated = place[BUFFER_ACTIVATED]};
  Activations made = {.layers = layers,
                      .output = plan->training ? place[BUFFER_OUTPUT] : place[BUFFER_INPUT],
                      .final_norm = place[BUFFER_FINAL_NORM],
                      .logits = place[BUFFER_LOGITS],
                      .logits_stride = logits_stride(plan->config),
                      .gradient = place[BUFFER_GRADIENT],
                      .grad_norm = place[BUFFER_GRAD_NORM],
                      .grad_qkv = place[BUFFER_GRAD_QKV],
                      .grad_hidden = place[BUFFER_GRAD_HIDDEN],
                      .grad_activated = place[BUFFER_GRAD_ACTIVATED],
                      .grad_branch = place[BUFFER_GRAD_BRANCH]};
  Cursor rows = {.base = place[BUFFER_ROWS]};
  Cursor kept = {.base = place[BUFFER_KEPT]};
  take_rows(&rows, plan, &shared, &made);
  for (int64_t l = 0; l < plan->config->num_hidden_layers; l++) {
    layers[l] = shared;
    if (plan->training) take_kept(&kept, plan, &layers[l]);
  }
  *activations = made;
}
