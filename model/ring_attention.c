/* Ring attention, forward and backward. */
#include "model/ring_attention.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/base/memory.h"

/* A piece of device memory. */
typedef struct Buffer {
  void *memory;
} Buffer;

struct RingAttention {
  Device *device;
  Comm *ring;
  AttentionDims dims;
  bool local; /* only the own block is computed */

  /* Heads that are computed at a time. */
  AttentionDims group;
  int64_t kv_head; /* the first key head of the group at hand */

  /* The batch at hand. */
  int64_t sequences;
  int64_t window;
  const Documents *documents; /* NULL: no mask */
  Layout layout;
  int hop_count;
  int *hops; /* (hop_count) ascending distances, the first is 0; room for the ring's size */

  /* Sizes of one chunk, and of the messages that hold the chunks of all sequences. A run of several chunks
   * lies where its first chunk would; it needs no more than they. */
  size_t kv_chunk, dkv_chunk, state_chunk;
  size_t kv_message, dkv_message;

  bool given;                      /* the memory is the caller's */
  void *own;                       /* block of device memory, where it is not */
  int64_t *host_keys;              /* (local length) host memory: a sequence's first keys on their way */
  ArenaBuffer rooms[RING_BUFFERS]; /* what there is, from the block's beginning */
  Buffer first_key;                /* RING_FIRST_KEY, and so on */
  Buffer states;
  Buffer kv[2];
  Buffer dkv_own;
  Buffer dkv_part[2];
  Buffer dkv_arriving;
};

Status ring_attention_create(Device *device, Comm *ring, const AttentionDims *dims, RingAttention **out,
                             Error *error) {
  Status status = STATUS_OK;
  void *attention = NULL;
  void *hops = NULL;
  *out = NULL;
  TRY_GOTO(memory_alloc(1, sizeof(RingAttention), "ring attention", &attention, error), failed);
  TRY_GOTO(memory_alloc((size_t)ring->size, sizeof(int), "ring attention", &hops, error), failed);
  *out = attention;
  **out = (RingAttention){.device = device, .ring = ring, .dims = *dims, .hops = hops};
  return STATUS_OK;
failed:
  free(attention);
  return status;
}

void ring_attention_destroy(RingAttention *attention) {
  if (attention == NULL) return;
  if (!attention->given) {
    device_free(attention->device, attention->own);
    free(attention->host_keys);
  }
  free(attention->hops);
  free(attention);
}

void ring_attention_stay_local(RingAttention *attention) {
  attention->local = true;
}

int ring_attention_hops(const RingAttention *attention) {
  return attention->hop_count;
}

/* ---------------------------------------------------------------- getting ready for a batch */

/* True when rank `reader` needs a key of rank `owner` for some sequence. */
static bool needs(const RingAttention *attention, int reader, int owner) {
  const Layout *layout = &attention->layout;
  for (int64_t b = 0; b < attention->sequences; b++) {
    for (Run queries = {0}; layout_next_run(layout, b, reader, &queries);) {
      for (Run keys = {0}; layout_next_run(layout, b, owner, &keys);) {
        if (mask_visible(attention->documents, b, queries, keys, layout->sequence_length,
                         attention->window)) {
          return true;
        }
      }
    }
  }
  return false;
}

/* A hop is kept when any rank needs it. Every rank knows all document starts and decides the same. */
static void plan_hops(RingAttention *attention) {
  const int size = attention->ring->size;
  attention->hop_count = 0;
  attention->hops[attention->hop_count++] = 0;
  for (int hop = 1; hop < size && !attention->local; hop++) {
    bool needed = false;
    for (int owner = 0; owner < size && !needed; owner++) {
      needed = needs(attention, (owner + hop) % size, owner);
    }
    if (needed) attention->hops[attention->hop_count++] = hop;
  }
}

/* First keys of the rows of all sequences, to the device. */
static void write_first_keys(RingAttention *attention) {
  const Layout *layout = &attention->layout;
  const size_t row_bytes = (size_t)layout->local_length * sizeof(int64_t);
  for (int64_t b = 0; b < attention->sequences; b++) {
    int64_t *first_key = attention->host_keys;
    for (Run run = {0}; layout_next_run(layout, b, attention->ring->rank, &run);) {
      mask_fill_run(attention->documents, b, run, layout->sequence_length, attention->window,
                    first_key + run.local);
    }
    device_write(attention->device, (char *)attention->first_key.memory + (size_t)b * row_bytes,
                 attention->host_keys, row_bytes);
  }
}

/* Sizes of one chunk, and of the messages that hold the chunks of all sequences. */
static void measure_chunks(RingAttention *attention, bool backward) {
  const AttentionOps *ops = &attention->device->ops.attention;
  const AttentionDims *dims = &attention->group;
  const int64_t length = attention->layout.chunk_length;
  const size_t chunks = (size_t)(attention->sequences * layout_rank_chunks(&attention->layout));
  attention->state_chunk = ring_state_bytes(ops, dims, &attention->layout, backward);
  attention->kv_chunk = ops->kv_bytes(dims, length);
  attention->dkv_chunk = ops->dkv_bytes(dims, length);
  attention->kv_message = chunks * attention->kv_chunk;
  attention->dkv_message = chunks * attention->dkv_chunk;
}

static void bind(RingAttention *attention, char *base) {
  Buffer *const places[RING_BUFFERS] = {
      &attention->first_key, &attention->states,      &attention->kv[0],       &attention->kv[1],
      &attention->dkv_own,   &attention->dkv_part[0], &attention->dkv_part[1], &attention->dkv_arriving};
  for (int i = 0; i < RING_BUFFERS; i++) places[i]->memory = base + attention->rooms[i].offset;
}

/* Whether every buffer has room for what a batch needs. */
static bool has_room(const RingAttention *attention, const ArenaBuffer needed[RING_BUFFERS]) {
  for (int i = 0; i < RING_BUFFERS; i++) {
    if (attention->rooms[i].bytes < needed[i].bytes) return false;
  }
  return true;
}

/* Takes memory of its own for a batch, and for all those before. */
static Status grow(RingAttention *attention, const ArenaBuffer needed[RING_BUFFERS], Error *error) {
  ArenaBuffer wanted[RING_BUFFERS];
  void *keys = NULL;
  for (int i = 0; i < RING_BUFFERS; i++) {
    wanted[i] = needed[i];
    if (wanted[i].bytes < attention->rooms[i].bytes) wanted[i].bytes = attention->rooms[i].bytes;
  }
  const size_t bytes = arena_place(wanted, RING_BUFFERS);
  memset(attention->rooms, 0, sizeof attention->rooms);
  device_free(attention->device, attention->own);
  attention->own = NULL;
  TRY(device_alloc(attention->device, bytes, "ring attention", &attention->own, error));
  TRY(memory_alloc(wanted[RING_FIRST_KEY].bytes, 1, "attention masks", &keys, error));
  free(attention->host_keys);
  attention->host_keys = keys;
  memcpy(attention->rooms, wanted, sizeof wanted);
  bind(attention, attention->own);
  return STATUS_OK;
}

void ring_attention_give(RingAttention *attention, char *base, const ArenaBuffer buffers[RING_BUFFERS],
                         int64_t *host_keys) {
  attention->given = true;
  attention->host_keys = host_keys;
  memcpy(attention->rooms, buffers, sizeof attention->rooms);
  bind(attention, base);
}

static Status reserve(RingAttention *attention, bool backward, Error *error) {
  ArenaBuffer needed[RING_BUFFERS];
  ring_memory(&attention->device->ops.attention, &attention->dims, attention->sequences, &attention->layout,
              backward, needed);
  measure_chunks(attention, backward);
  if (has_room(attention, needed)) return STATUS_OK;
  if (!attention->given) return grow(attention, needed, error);
  return fail(error, STATUS_INTERNAL, "attention of %lld sequences of %lld tokens: no memory was planned",
              (long long)attention->sequences, (long long)attention->layout.sequence_length);
}

Status ring_attention_prepare(RingAttention *attention, int64_t sequences, const Layout *layout,
                              const Documents *documents, int64_t window, bool backward, Error *error) {
  attention->window = window;
  attention->documents = documents;
  attention->sequences = sequences;
  attention->layout = *layout;
  attention->group = ring_group(&attention->device->ops.attention, &attention->dims, layout);
  TRY(reserve(attention, backward, error));
  plan_hops(attention);
  write_first_keys(attention);
  return STATUS_OK;
}

/* ---------------------------------------------------------------- one run of queries or keys */

/* Where a run of sequence `b` begins in its rank's rows and buffers. */
typedef struct Place {
  int64_t row;
  int64_t chunk; /* over all sequences */
} Place;

static Place place_of(const RingAttention *attention, int64_t b, Run run) {
  const int64_t row = b * attention->layout.local_length + run.local;
  return (Place){.row = row, .chunk = row / attention->layout.chunk_length};
}

/* The next run of this rank. */
static bool next_run(const RingAttention *attention, int64_t b, Run *run) {
  return layout_next_run(&attention->layout, b, attention->ring->rank, run);
}

static char *at(const Buffer *buffer, int64_t chunk, size_t bytes) {
  return (char *)buffer->memory + (size_t)chunk * bytes;
}

/* Elements from one row to the next. */
static int64_t qkv_stride(const RingAttention *attention) {
  return (attention->dims.heads + 2 * attention->dims.kv_heads) * attention->dims.head_dim;
}

static int64_t out_stride(const RingAttention *attention) {
  return attention->dims.heads * attention->dims.head_dim;
}

/* The first query head of the group at hand. */
static int64_t query_head(const RingAttention *attention) {
  return attention->kv_head * (attention->dims.heads / attention->dims.kv_heads);
}

/* Bytes from the start of rows of qkv to where the group's heads of q, k or v begin in `row`. */
typedef enum Part { PART_Q, PART_K, PART_V } Part;

static size_t qkv_offset(const RingAttention *attention, int64_t row, Part part) {
  const AttentionDims *dims = &attention->dims;
  const int64_t heads[] = {[PART_Q] = query_head(attention),
                           [PART_K] = dims->heads + attention->kv_head,
                           [PART_V] = dims->heads + dims->kv_heads + attention->kv_head};
  const int64_t elements = row * qkv_stride(attention) + heads[part] * dims->head_dim;
  return (size_t)elements * attention->device->ops.elem_size;
}

/* Bytes from the start of a (N, H D) tensor to the group's heads in a row. */
static size_t out_offset(const RingAttention *attention, int64_t row) {
  const int64_t elements = row * out_stride(attention) + query_head(attention) * attention->dims.head_dim;
  return (size_t)elements * attention->device->ops.elem_size;
}

/* Floats from the start of the statistics to those of the group in a run: (H, length) of a run lie together.
 */
static int64_t lse_offset(const RingAttention *attention, int64_t row, Run run) {
  return attention->dims.heads * row + query_head(attention) * run.length;
}

static void pack_own_keys(RingAttention *attention, const elem *qkv, const Buffer *kv) {
  for (int64_t b = 0; b < attention->sequences; b++) {
    for (Run run = {0}; next_run(attention, b, &run);) {
      const Place place = place_of(attention, b, run);
      attention->device->ops.attention.pack_kv(attention->device, &attention->group, run.length,
                                               (const char *)qkv + qkv_offset(attention, place.row, PART_K),
                                               (const char *)qkv + qkv_offset(attention, place.row, PART_V),
                                               qkv_stride(attention),
                                               at(kv, place.chunk, attention->kv_chunk));
    }
  }
}

/* Which block a hop computes, and into what. */
typedef struct Block {
  Run queries;
  Run keys;
  const int64_t *first_key;
  void *state;
  const void *kv;
  void *dkv; /* NULL in the forward pass */
} Block;

static void compute_block(RingAttention *attention, const Block *block) {
  const AttentionOps *ops = &attention->device->ops.attention;
  if (block->dkv == NULL) {
    ops->forward_block(attention->device, &attention->group, block->queries.length, block->queries.start,
                       block->first_key, block->state, block->keys.length, block->keys.start, block->kv);
  } else {
    ops->backward_block(attention->device, &attention->group, block->queries.length, block->queries.start,
                        block->first_key, block->state, block->keys.length, block->keys.start, block->kv,
                        block->dkv);
  }
}

/* Which pairs of a run of queries and a run of keys are computed. Of the own keys, those in the same half of
 * the rank's share as the queries are half of the causal work, and those in the other half the rest. */
typedef enum Pairs { PAIRS_ALL, PAIRS_SAME, PAIRS_OTHER } Pairs;

static bool chosen(const Layout *layout, Pairs pairs, Run queries, Run keys) {
  const int64_t half = layout_rank_chunks(layout) / 2 * layout->chunk_length;
  return pairs == PAIRS_ALL || (pairs == PAIRS_SAME) == ((queries.local < half) == (keys.local < half));
}

/* Computes the own queries of one sequence against the keys of rank `owner`. */
static void compute_sequence(RingAttention *attention, int64_t b, int owner, Pairs pairs, const Buffer *kv,
                             const Buffer *dkv) {
  const Layout *layout = &attention->layout;
  for (Run queries = {0}; next_run(attention, b, &queries);) {
    const Place q = place_of(attention, b, queries);
    for (Run keys = {0}; layout_next_run(layout, b, owner, &keys);) {
      const int64_t chunk = place_of(attention, b, keys).chunk;
      if (!chosen(layout, pairs, queries, keys) ||
          !mask_visible(attention->documents, b, queries, keys, layout->sequence_length, attention->window)) {
        continue;
      }
      const Block block = {
          .queries = queries,
          .keys = keys,
          .first_key = (const int64_t *)attention->first_key.memory + q.row,
          .state = at(&attention->states, q.chunk, attention->state_chunk),
          .kv = at(kv, chunk, attention->kv_chunk),
          .dkv = dkv == NULL ? NULL : at(dkv, chunk, attention->dkv_chunk),
      };
      compute_block(attention, &block);
    }
  }
}

/* Computes the own queries of all sequences against the keys that hop number `hop` brings; dkv NULL: forward.
 */
static void compute_hop(RingAttention *attention, int hop, Pairs pairs, const Buffer *kv, const Buffer *dkv) {
  const int size = attention->ring->size;
  const int owner = (attention->ring->rank - attention->hops[hop] + size) % size;
  for (int64_t b = 0; b < attention->sequences; b++) compute_sequence(attention, b, owner, pairs, kv, dkv);
}

/* ---------------------------------------------------------------- transfers */

/* Sends the keys and values at hand on to the next rank that needs them, if there is a next hop. */
static Status send_keys(RingAttention *attention, int hop, int current, CommRequest *request, Error *error) {
  if (hop + 1 == attention->hop_count) return STATUS_OK;
  return comm_shift_start(attention->ring, COMM_KEYS_VALUES, attention->hops[hop + 1] - attention->hops[hop],
                          attention->kv[current].memory, attention->kv[1 - current].memory,
                          attention->kv_message, request, error);
}

/* Sends the gradient of the keys of a hop after them; after the last hop, home. */
static Status send_gradient(RingAttention *attention, int hop, const Buffer *part, CommRequest *request,
                            Error *error) {
  const int next = hop + 1 < attention->hop_count ? attention->hops[hop + 1] : attention->ring->size;
  return comm_shift_start(attention->ring, COMM_KEY_VALUE_GRADIENTS, next - attention->hops[hop],
                          part->memory, attention->dkv_arriving.memory, attention->dkv_message, request,
                          error);
}

/* ---------------------------------------------------------------- a ring of one */

static bool is_alone(const RingAttention *attention) {
  return ring_is_alone(&attention->device->ops.attention, &attention->layout);
}

/* Sequence `b` where the device computes it at once; it is one run. */
static AttentionSequence whole_sequence(const RingAttention *attention, int64_t b, const elem *qkv) {
  const int64_t row = b * attention->layout.local_length;
  return (AttentionSequence){.length = attention->layout.local_length,
                             .first_key = (const int64_t *)attention->first_key.memory + row,
                             .q = (const char *)qkv + qkv_offset(attention, row, PART_Q),
                             .k = (const char *)qkv + qkv_offset(attention, row, PART_K),
                             .v = (const char *)qkv + qkv_offset(attention, row, PART_V),
                             .q_stride = qkv_stride(attention),
                             .kv_stride = qkv_stride(attention),
                             .out_stride = out_stride(attention),
                             .kv = attention->kv[0].memory};
}

/* Floats from the start of the statistics to those of the group in sequence `b`. */
static int64_t whole_lse(const RingAttention *attention, int64_t b) {
  const int64_t length = attention->layout.local_length;
  return lse_offset(attention, b * length, (Run){.length = length});
}

static void forward_alone(RingAttention *attention, const elem *qkv, elem *out, float *lse) {
  for (int64_t b = 0; b < attention->sequences; b++) {
    const AttentionSequence sequence = whole_sequence(attention, b, qkv);
    attention->device->ops.attention.forward_alone(attention->device, &attention->group, &sequence,
                                                   (char *)out + out_offset(attention, b * sequence.length),
                                                   lse + whole_lse(attention, b));
  }
}

static void backward_alone(RingAttention *attention, const elem *qkv, const elem *out, const float *lse,
                           const elem *dout, elem *dqkv) {
  for (int64_t b = 0; b < attention->sequences; b++) {
    const AttentionSequence sequence = whole_sequence(attention, b, qkv);
    const int64_t row = b * sequence.length;
    const AttentionGradients gradients = {.out = (const char *)out + out_offset(attention, row),
                                          .lse = lse + whole_lse(attention, b),
                                          .dout = (const char *)dout + out_offset(attention, row),
                                          .state = attention->states.memory,
                                          .dkv = attention->dkv_own.memory,
                                          .dq = (char *)dqkv + qkv_offset(attention, row, PART_Q),
                                          .dk = (char *)dqkv + qkv_offset(attention, row, PART_K),
                                          .dv = (char *)dqkv + qkv_offset(attention, row, PART_V)};
    attention->device->ops.attention.backward_alone(attention->device, &attention->group, &sequence,
                                                    &gradients);
  }
}

/* ---------------------------------------------------------------- forward */

static void begin_forward(RingAttention *attention, const elem *qkv) {
  for (int64_t b = 0; b < attention->sequences; b++) {
    for (Run run = {0}; next_run(attention, b, &run);) {
      const Place place = place_of(attention, b, run);
      attention->device->ops.attention.forward_begin(
          attention->device, &attention->group, run.length,
          (const char *)qkv + qkv_offset(attention, place.row, PART_Q), qkv_stride(attention),
          at(&attention->states, place.chunk, attention->state_chunk));
    }
  }
}

static void end_forward(RingAttention *attention, elem *out, float *lse) {
  for (int64_t b = 0; b < attention->sequences; b++) {
    for (Run run = {0}; next_run(attention, b, &run);) {
      const Place place = place_of(attention, b, run);
      attention->device->ops.attention.forward_end(
          attention->device, &attention->group, run.length,
          at(&attention->states, place.chunk, attention->state_chunk),
          (char *)out + out_offset(attention, place.row), out_stride(attention),
          lse + lse_offset(attention, place.row, run));
    }
  }
}

/* Of the group of heads at hand. */
static Status forward_group(RingAttention *attention, const elem *qkv, elem *out, float *lse, Error *error) {
  int current = 0;
  pack_own_keys(attention, qkv, &attention->kv[0]);
  begin_forward(attention, qkv);
  for (int hop = 0; hop < attention->hop_count; hop++) {
    CommRequest keys = {0};
    TRY(send_keys(attention, hop, current, &keys, error));
    compute_hop(attention, hop, PAIRS_ALL, &attention->kv[current], NULL);
    /* Not every rank need have failed: one that waited now might wait for the whole block of another. */
    TRY(device_check(attention->device, error));
    TRY(comm_wait(attention->ring, &keys, error));
    current = 1 - current;
  }
  end_forward(attention, out, lse);
  return STATUS_OK;
}

Status ring_attention_forward(RingAttention *attention, const elem *qkv, elem *out, float *lse,
                              Error *error) {
  const int64_t heads = attention->dims.kv_heads;
  for (attention->kv_head = 0; attention->kv_head < heads; attention->kv_head += attention->group.kv_heads) {
    if (is_alone(attention)) {
      forward_alone(attention, qkv, out, lse);
    } else {
      TRY(forward_group(attention, qkv, out, lse, error));
    }
  }
  return device_check(attention->device, error);
}

/* ---------------------------------------------------------------- backward */

static void begin_backward(RingAttention *attention, const elem *qkv, const elem *out, const float *lse,
                           const elem *dout) {
  for (int64_t b = 0; b < attention->sequences; b++) {
    for (Run run = {0}; next_run(attention, b, &run);) {
      const Place place = place_of(attention, b, run);
      const size_t offset = out_offset(attention, place.row);
      attention->device->ops.attention.backward_begin(
          attention->device, &attention->group, run.length,
          (const char *)qkv + qkv_offset(attention, place.row, PART_Q), qkv_stride(attention),
          (const char *)out + offset, (const char *)dout + offset, out_stride(attention),
          lse + lse_offset(attention, place.row, run),
          at(&attention->states, place.chunk, attention->state_chunk));
    }
  }
}

static void end_backward(RingAttention *attention, const Buffer *dkv, elem *dqkv) {
  const AttentionOps *ops = &attention->device->ops.attention;
  for (int64_t b = 0; b < attention->sequences; b++) {
    for (Run run = {0}; next_run(attention, b, &run);) {
      const Place place = place_of(attention, b, run);
      ops->backward_end(attention->device, &attention->group, run.length,
                        at(&attention->states, place.chunk, attention->state_chunk),
                        (char *)dqkv + qkv_offset(attention, place.row, PART_Q), qkv_stride(attention));
      ops->unpack_dkv(attention->device, &attention->group, run.length,
                      at(dkv, place.chunk, attention->dkv_chunk),
                      (char *)dqkv + qkv_offset(attention, place.row, PART_K),
                      (char *)dqkv + qkv_offset(attention, place.row, PART_V), qkv_stride(attention));
    }
  }
}

/* Computes the gradient that this rank owes to the keys of hop number `hop` (>= 1) and sends it on, with what
 * the ranks before added. */
static Status backward_hop(RingAttention *attention, int hop, const Buffer *kv, CommRequest *gradient,
                           Error *error) {
  Device *device = attention->device;
  const Buffer *part = &attention->dkv_part[hop % 2];
  device_zero(device, part->memory, attention->dkv_message);
  compute_hop(attention, hop, PAIRS_ALL, kv, part);
  if (hop > 1) {
    TRY(comm_wait(attention->ring, gradient, error));
    device->ops.add_f32(device, (int64_t)(attention->dkv_message / sizeof(float)),
                        attention->dkv_arriving.memory, part->memory);
  }
  return send_gradient(attention, hop, part, gradient, error);
}

static Status backward_group(RingAttention *attention, const elem *qkv, const elem *out, const float *lse,
                             const elem *dout, elem *dqkv, Error *error) {
  Device *device = attention->device;
  const Buffer *own = &attention->dkv_own;
  CommRequest keys = {0};
  CommRequest gradient = {0};
  int current = 0;
  pack_own_keys(attention, qkv, &attention->kv[0]);
  begin_backward(attention, qkv, out, lse, dout);
  device_zero(device, own->memory, attention->dkv_message);
  TRY(send_keys(attention, 0, 0, &keys, error));
  compute_hop(attention, 0, PAIRS_SAME, &attention->kv[0], own);
  for (int hop = 1; hop < attention->hop_count; hop++) {
    TRY(comm_wait(attention->ring, &keys, error));
    current = 1 - current;
    TRY(send_keys(attention, hop, current, &keys, error));
    TRY(backward_hop(attention, hop, &attention->kv[current], &gradient, error));
  }
  /* The other half of the own block, while the gradient of the last hop travels home. Where other keys have
     taken the place of the own ones, these are packed again. */
  current = attention->hop_count > 2 ? 1 - current : 0;
  if (attention->hop_count > 2) pack_own_keys(attention, qkv, &attention->kv[current]);
  compute_hop(attention, 0, PAIRS_OTHER, &attention->kv[current], own);
  if (attention->hop_count > 1) {
    TRY(comm_wait(attention->ring, &gradient, error));
    device->ops.add_f32(device, (int64_t)(attention->dkv_message / sizeof(float)),
                        attention->dkv_arriving.memory, own->memory);
  }
  end_backward(attention, own, dqkv);
  return STATUS_OK;
}

Status ring_attention_backward(RingAttention *attention, const elem *qkv, const elem *out, const float *lse,
                               const elem *dout, elem *dqkv, Error *error) {
  const int64_t heads = attention->dims.kv_heads;
  for (attention->kv_head = 0; attention->kv_head < heads; attention->kv_head += attention->group.kv_heads) {
    if (is_alone(attention)) {
      backward_alone(attention, qkv, out, lse, dout, dqkv);
    } else {
      TRY(backward_group(attention, qkv, out, lse, dout, dqkv, error));
    }
  }
  return device_check(attention->device, error);
}
