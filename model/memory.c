/* The memory of a model that grows with its batches: see the header. */
#include "model/memory.h"

#include <stdlib.h>

#include "kernels/base/memory.h"
#include "kernels/comm/layout.h"
#include "model/internal.h"
#include "model/phases.h"

/* Gives each of `count` buffers the room that is needed too; whether any had less. */
static bool widen(ArenaBuffer *buffers, const ArenaBuffer *needed, int count) {
  bool grew = false;
  for (int i = 0; i < count; i++) {
    if (buffers[i].bytes >= needed[i].bytes) continue;
    buffers[i] = needed[i];
    grew = true;
  }
  return grew;
}

ActivationsPlan model_memory_activations(const ModelMemory *memory, const ModelOptions *options,
                                         const Ops *ops) {
  return (ActivationsPlan){.config = &options->config,
                           .elem_size = ops->elem_size,
                           .rows = memory->rows,
                           .loss_chunk = options->loss_chunk,
                           .mlp_chunk = options->mlp_chunk,
                           .training = options->training,
                           .recompute = options->recompute,
                           .dropout = options->dropout > 0.0};
}

/* What is in use in one of the joined phases, forward or backward, is in use in all of them. */
static void join_phases(uint32_t joined, ArenaBuffer *buffer) {
  const uint32_t forward = joined & PHASES_ATTENTION;
  const uint32_t backward = joined & PHASES_D_ATTENTION;
  if ((buffer->times & forward) != 0) buffer->times |= forward;
  if ((buffer->times & backward) != 0) buffer->times |= backward;
}

static bool add(ModelMemory *memory, const ModelOptions *options, const Ops *ops, int64_t rows,
                uint32_t joined, const ArenaBuffer ring[RING_BUFFERS]) {
  ArenaBuffer needed[ACTIVATION_BUFFERS];
  if (rows > memory->rows) memory->rows = rows;
  const ActivationsPlan plan = model_memory_activations(memory, options, ops);
  activations_buffers(&plan, needed);
  const bool activations = widen(memory->buffers, needed, ACTIVATION_BUFFERS);
  const bool attention = widen(memory->buffers + ACTIVATION_BUFFERS, ring, RING_BUFFERS);
  const bool newly_joined = (joined & ~memory->joined) != 0;
  memory->joined |= joined;
  if (!activations && !attention && !newly_joined) return false;
  for (int i = 0; i < MODEL_BUFFERS; i++) join_phases(memory->joined, &memory->buffers[i]);
  for (int i = 0; i < MODEL_BUFFERS && !options->training; i++) memory->buffers[i].times &= PHASES_FORWARD;
  memory->bytes = arena_place(memory->buffers, MODEL_BUFFERS);
  memory->host_bytes = arena_times((size_t)memory->rows, sizeof(int64_t));
  return true;
}

bool model_memory_add(ModelMemory *memory, const ModelOptions *options, const Ops *ops, int64_t sequences,
                      const Layout *layout) {
  const AttentionDims dims = model_attention_dims(&options->config);
  ArenaBuffer ring[RING_BUFFERS];
  ring_memory(&ops->attention, &dims, sequences, layout, options->training, ring);
  return add(memory, options, ops, sequences * layout->local_length,
             ring_joined_phases(&ops->attention, &dims, layout), ring);
}

bool model_memory_add_rows(ModelMemory *memory, const ModelOptions *options, const Ops *ops, int64_t rows) {
  const ArenaBuffer none[RING_BUFFERS] = {{0}};
  return add(memory, options, ops, rows, 0, none);
}

/* ---------------------------------------------------------------- the blocks */

static Status replace_device_block(ModelArena *arena, size_t bytes, Error *error) {
  device_free(arena->device, arena->memory);
  arena->memory = NULL;
  arena->bytes = 0;
  arena->version += 1;
  TRY(device_alloc(arena->device, bytes, "activations and ring attention", &arena->memory, error));
  arena->bytes = bytes;
  return STATUS_OK;
}

static Status replace_host_block(ModelArena *arena, size_t bytes, Error *error) {
  free(arena->host);
  arena->host = NULL;
  arena->host_bytes = 0;
  arena->version += 1;
  TRY(memory_alloc(bytes, 1, "positions", &arena->host, error));
  arena->host_bytes = bytes;
  return STATUS_OK;
}

Status model_arena_reserve(ModelArena *arena, size_t bytes, size_t host_bytes, Error *error) {
  if (bytes > arena->bytes) TRY(replace_device_block(arena, bytes, error));
  if (host_bytes > arena->host_bytes) TRY(replace_host_block(arena, host_bytes, error));
  return STATUS_OK;
}

void model_arena_release(ModelArena *arena) {
  if (arena->device != NULL) device_free(arena->device, arena->memory);
  free(arena->host);
  *arena = (ModelArena){0};
}
