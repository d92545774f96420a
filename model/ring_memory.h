/* The memory that ring attention works in, as a plan. */
#ifndef RINGGPT_MODEL_RING_MEMORY_H
#define RINGGPT_MODEL_RING_MEMORY_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/base/arena.h"
#include "kernels/comm/layout.h"
#include "kernels/ops.h"

/* What it works in, device memory. C chunks of each of the sequences, all but the first keys for the heads
 * and sequences that are computed at a time. */
typedef enum RingBuffer {
  RING_FIRST_KEY,    /* (sequences, local length) int64_t: the first key that each query sees */
  RING_STATES,       /* (sequences, C) states of query runs */
  RING_KV_0,         /* (sequences, C) packed keys and values: at hand */
  RING_KV_1,         /* and arriving; none in a ring of one */
  RING_DKV_OWN,      /* (sequences, C) gradient of the own keys and values */
  RING_DKV_PART_0,   /* (sequences, C) those of other ranks at every second hop; none in a ring of two */
  RING_DKV_PART_1,   /* and at the hops between; while one is computed the other is sent */
  RING_DKV_ARRIVING, /* (sequences, C) gradient as the ranks before left it */
  RING_BUFFERS
} RingBuffer;

/* The heads that are computed at a time: in a ring of one as many as the device wants; else all, since keys
 * and values of all heads travel in one message. */
AttentionDims ring_group(const AttentionOps *ops, const AttentionDims *dims, const Layout *layout);

/* Whether all keys are there from the start and the device computes a sequence at once, one after the other
 * (AttentionOps.forward_alone). */
bool ring_is_alone(const AttentionOps *ops, const Layout *layout);

/* Which of PHASES_ATTENTION and PHASES_D_ATTENTION (model/phases.h) are as one, so that what is in use in one
 * of their phases is in use in all: they come again for every group of heads, or are computed at once. */
uint32_t ring_joined_phases(const AttentionOps *ops, const AttentionDims *dims, const Layout *layout);

/* Bytes of the state of the group's heads in one chunk, for a forward pass and with `backward` for the other.
 */
size_t ring_state_bytes(const AttentionOps *ops, const AttentionDims *group, const Layout *layout,
                        bool backward);

/* The bytes of each buffer for batches of `sequences` sequences cut as `layout`, with `backward` also for
 * their gradients, and the phases (model/phases.h) in which it matters. Those that are not needed have no
 * bytes. */
void ring_memory(const AttentionOps *ops, const AttentionDims *dims, int64_t sequences, const Layout *layout,
                 bool backward, ArenaBuffer buffers[RING_BUFFERS]);

#endif
