/* What the model does one thing after the other, for the plan of its memory: a buffer says in which phases
 * its content matters, and buffers without a common phase may share bytes. A phase comes again with every
 * layer. */
#ifndef RINGGPT_MODEL_PHASES_H
#define RINGGPT_MODEL_PHASES_H

enum {
  PHASE_EMBED = 1U << 0,   /* embeddings, and the gradient of theirs at the end */
  PHASE_NORM1 = 1U << 1,   /* the first norm, which adds the residual */
  PHASE_QKV = 1U << 2,     /* q, k and v, turned */
  PHASE_PACK = 1U << 3,    /* attention: own keys packed, states begun */
  PHASE_HOPS = 1U << 4,    /* attention: blocks and transfers */
  PHASE_UNPACK = 1U << 5,  /* attention: its output */
  PHASE_MIDDLE = 1U << 6,  /* output product and second norm, which adds the residual */
  PHASE_MLP = 1U << 7,     /* a chunk of rows after the other */
  PHASE_LOSS = 1U << 8,    /* final norm, logits, loss and the gradient of them */
  PHASE_AGAIN = 1U << 9,   /* backward of a layer begins: what was not kept is computed again */
  PHASE_D_MLP = 1U << 10,  /* gradient of the MLP and the second norm */
  PHASE_D_OUT = 1U << 11,  /* gradient of the output product */
  PHASE_D_PACK = 1U << 12, /* attention backward: keys packed, states begun */
  PHASE_D_HOPS = 1U << 13,
  PHASE_D_UNPACK = 1U << 14, /* gradients of q, k and v */
  PHASE_D_QKV = 1U << 15,    /* gradient of their product and of the first norm */

  PHASES_ALL = (1U << 16) - 1U,
  PHASES_ATTENTION = PHASE_PACK | PHASE_HOPS | PHASE_UNPACK,
  PHASES_D_ATTENTION = PHASE_D_PACK | PHASE_D_HOPS | PHASE_D_UNPACK,
  PHASES_FORWARD = PHASE_AGAIN - 1U, /* the only ones of an evaluation */
  PHASES_BACKWARD = PHASES_ALL & ~PHASES_FORWARD,
  /* From the loss on the gradient of the residual stream is there. */
  PHASES_GRADIENT = PHASE_EMBED | PHASE_LOSS | PHASES_BACKWARD,
  /* From q, k and v computed again to the last use of them. */
  PHASES_QKV_AGAIN = PHASE_AGAIN | PHASE_D_MLP | PHASE_D_OUT | PHASE_D_PACK | PHASE_D_HOPS,
};

#endif
