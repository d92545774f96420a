/* The memory that ring attention works in: see the header. */
#include "model/ring_memory.h"

#include <stddef.h>

#include "model/phases.h"

AttentionDims ring_group(const AttentionOps *ops, const AttentionDims *dims, const Layout *layout) {
  AttentionDims group = *dims;
  if (layout->ring_size > 1) return group;
  group.kv_heads = ops->heads_at_once(dims, layout->local_length);
  group.heads = dims->heads / dims->kv_heads * group.kv_heads;
  return group;
}

bool ring_is_alone(const AttentionOps *ops, const Layout *layout) {
  return layout->ring_size == 1 && ops->forward_alone != NULL;
}

uint32_t ring_joined_phases(const AttentionOps *ops, const AttentionDims *dims, const Layout *layout) {
  const bool by_groups = ring_group(ops, dims, layout).kv_heads < dims->kv_heads;
  return by_groups || ring_is_alone(ops, layout) ? PHASES_ATTENTION | PHASES_D_ATTENTION : 0;
}

size_t ring_state_bytes(const AttentionOps *ops, const AttentionDims *group, const Layout *layout,
                        bool backward) {
  const size_t forward = ring_is_alone(ops, layout) ? 0 : ops->forward_bytes(group, layout->chunk_length);
  const size_t other = backward ? ops->backward_bytes(group, layout->chunk_length) : 0;
  return forward > other ? forward : other;
}

void ring_memory(const AttentionOps *ops, const AttentionDims *dims, int64_t sequences, const Layout *layout,
                 bool backward, ArenaBuffer buffers[RING_BUFFERS]) {
  const AttentionDims group = ring_group(ops, dims, layout);
  const int ring_size = layout->ring_size;
  const int64_t length = layout->chunk_length;
  const bool alone = ring_is_alone(ops, layout);
  const size_t at_once = alone ? 1 : (size_t)sequences;
  const size_t chunks = arena_times(at_once, (size_t)layout_rank_chunks(layout));
  const size_t rows = arena_times((size_t)sequences, (size_t)layout->local_length);
  const size_t states = arena_times(chunks, ring_state_bytes(ops, &group, layout, backward));
  const uint32_t computing = alone ? PHASES_D_ATTENTION : PHASES_ATTENTION | PHASES_D_ATTENTION;
  const size_t kv = arena_times(chunks, ops->kv_bytes(&group, length));
  const size_t dkv = backward ? arena_times(chunks, ops->dkv_bytes(&group, length)) : 0;
  const bool travels = ring_size > 1;
  const uint32_t packing = PHASE_PACK | PHASE_D_PACK;
  const uint32_t hops = PHASE_HOPS | PHASE_D_HOPS;
  const ArenaBuffer on_its_way = {.bytes = travels ? dkv : 0, .times = PHASE_D_HOPS};
  buffers[RING_FIRST_KEY] = (ArenaBuffer){.bytes = arena_times(rows, sizeof(int64_t)), .times = PHASES_ALL};
  buffers[RING_STATES] = (ArenaBuffer){.bytes = states, .times = computing};
  buffers[RING_KV_0] = (ArenaBuffer){.bytes = kv, .times = packing | hops};
  buffers[RING_KV_1] = (ArenaBuffer){.bytes = travels ? kv : 0, .times = hops};
  buffers[RING_DKV_OWN] = (ArenaBuffer){.bytes = dkv, .times = PHASE_D_HOPS | PHASE_D_UNPACK};
  buffers[RING_DKV_PART_0] = ring_size > 2 ? on_its_way : (ArenaBuffer){0};
  buffers[RING_DKV_PART_1] = on_its_way;
  buffers[RING_DKV_ARRIVING] = on_its_way;
}
