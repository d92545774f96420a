/* Ring attention, forward and backward (H. Liu, M. Zaharia, P. Abbeel, "Ring attention with blockwise
 * transformers", 2023; layouts of kernels/comm/layout.h).
 *
 * Each rank keeps its queries. Keys and values travel: at hop h a rank computes with those of rank - h, while
 * they are already on their way to the next rank that needs them. Forward folds every block into a running
 * state in float. Backward lets keys and values travel again; the float gradient of each other rank's keys
 * follows one hop behind, every rank adds its part, and a last transfer brings the sum home. Backward
 * computes half of its own block before the other ranks' keys arrive and half while the gradient of its own
 * keys comes home, so that every transfer has work to hide behind. Hops that no rank needs, because of
 * documents or a window, are skipped by all ranks alike: both keys and gradients jump over them.
 */
#ifndef RINGGPT_MODEL_RING_ATTENTION_H
#define RINGGPT_MODEL_RING_ATTENTION_H

#include "kernels/base/status.h"
#include "kernels/comm/comm.h"
#include "kernels/comm/layout.h"
#include "kernels/device.h"
#include "model/mask.h"
#include "model/ring_memory.h"

typedef struct RingAttention RingAttention;

/* Makes the ring attention of one rank. device and ring stay the caller's and must outlive it. */
Status ring_attention_create(Device *device, Comm *ring, const AttentionDims *dims, RingAttention **out,
                             Error *error);

/* Releases it; NULL is allowed. */
void ring_attention_destroy(RingAttention *attention);

/* Works from now on in buffers of the caller's, placed in the block of device memory at `base`; host_keys is
 * host memory for int64_t, one for each row, used in ring_attention_prepare alone. Without it ring attention
 * takes what a batch needs when that is more than any before. */
void ring_attention_give(RingAttention *attention, char *base, const ArenaBuffer buffers[RING_BUFFERS],
                         int64_t *host_keys);

/* From now on queries see the keys of their own rank alone: no hop beyond the own block is made. For
 * comparisons: what the model then cannot do comes over the ring. */
void ring_attention_stay_local(RingAttention *attention);

/* Gets ready for a batch: `sequences` sequences cut as `layout`, whose chunks stay until the batch is done;
 * documents NULL means no document mask; window 0 no sliding window. `backward` says that gradients will be
 * asked for. The buffers that were given must be large enough. Decides which hops are needed, on every rank
 * alike. */
Status ring_attention_prepare(RingAttention *attention, int64_t sequences, const Layout *layout,
                              const Documents *documents, int64_t window, bool backward, Error *error);

/* qkv (N, (H + 2 KV) D): this rank's rows, N = sequences x local length, each with the heads of q, then k,
 * then v. out (N, H D). lse (H x N) in an order of its own, to be handed to the backward pass. Collective. */
Status ring_attention_forward(RingAttention *attention, const elem *qkv, elem *out, float *lse, Error *error);

/* dqkv (N, (H + 2 KV) D) is overwritten by the gradient, from dout (N, H D) and what forward gave.
 * Collective. */
Status ring_attention_backward(RingAttention *attention, const elem *qkv, const elem *out, const float *lse,
                               const elem *dout, elem *dqkv, Error *error);

/* Hops that the batch at hand computes, the own block included. */
int ring_attention_hops(const RingAttention *attention);

#endif
