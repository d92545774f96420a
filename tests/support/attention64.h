/* Attention in float64 from the equations, with full matrices: what the blocks of kernels/ are compared with.
 * Shares no source with them. */
#ifndef RINGGPT_SUPPORT_ATTENTION64_H
#define RINGGPT_SUPPORT_ATTENTION64_H

#include <stdint.h>

/* A whole sequence of T tokens: H query heads of D elements, KV key heads. */
typedef struct Attention64 {
  int64_t length;   /* T */
  int64_t heads;    /* H */
  int64_t kv_heads; /* KV */
  int64_t head_dim; /* D */
  double scale;
  const int64_t *first_key; /* (T), counted from the first token: token i sees first_key[i] ... i */
  const double *q;          /* (T, H, D) */
  const double *k;          /* (T, KV, D) */
  const double *v;          /* (T, KV, D) */
} Attention64;

/* out (T, H, D) and lse (H, T): softmax(scale q k^T + mask) v and the log of its denominator; a token that
 * sees nothing gets 0 and -inf. */
void attention64_forward(const Attention64 *a, double *out, double *lse);

/* Gradients of sum(dout * out): dq (T, H, D), dk, dv (T, KV, D). */
void attention64_backward(const Attention64 *a, const double *dout, double *dq, double *dk, double *dv);

#endif
