/* The operations of the program, as a table per device. A reference version in plain C stands behind every
 * entry; faster versions override single entries. Choosing a table is kernels/device.h.
 *
 * Rules for every entry:
 *  - pointers to arrays are device memory, row-major, without holes unless a row stride is given (in
 * elements);
 *  - sizes are elements, int64_t, and may be zero;
 *  - `elem` is the table's type of activations and weights (float in a table with elem_size 4); statistics,
 *    gradients of weights and the optimizer's state are always float;
 *  - "+=" means that the result is added to what is there;
 *  - results are the same from call to call and for any number of threads of one device;
 *  - a failure is kept in the device, later operations do nothing, device_check reports it. */
#ifndef RINGGPT_OPS_H
#define RINGGPT_OPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct Device Device;

/* An element of the table's type; pointers to it count in elements of Ops.elem_size bytes. */
typedef void elem;

/* What the elements of a table are. */
typedef enum ElementType { ELEMENT_F32, ELEMENT_BF16 } ElementType;

/* A target that has no weight in the loss. */
#define IGNORED_TARGET (-1)

/* Sizes of attention: H query heads of D elements share KV key heads, H / KV each (grouped heads).
 * Query head h reads key head h / (H / KV). */
typedef struct AttentionDims {
  int64_t heads;    /* H */
  int64_t kv_heads; /* KV, divides H */
  int64_t head_dim; /* D, a multiple of 8 */
  float scale;      /* factor on q . k, usually 1 / sqrt(D) */
} AttentionDims;

/* A whole sequence, from position 0 on. */
typedef struct AttentionSequence {
  int64_t length;
  const int64_t *first_key; /* (length) */
  const elem *q;            /* (length, H, D) */
  const elem *k, *v;        /* (length, KV, D) */
  int64_t q_stride;         /* elements from row to row of q and its gradient, */
  int64_t kv_stride;        /* of k, v and theirs, */
  int64_t out_stride;       /* and of out and its own */
  void *kv;                 /* (kv_bytes) worked in */
} AttentionSequence;

/* What its backward pass reads and writes besides. */
typedef struct AttentionGradients {
  const elem *out;  /* (length, H, D) */
  const float *lse; /* (H, length) */
  const elem *dout; /* (length, H, D) */
  void *state;      /* (backward_bytes) worked in */
  void *dkv;        /* (dkv_bytes) worked in, whatever it holds */
  elem *dq;         /* (length, H, D) */
  elem *dk, *dv;    /* (length, KV, D) */
} AttentionGradients;

/* Attention in blocks: a run of queries against a run of keys, each a range of consecutive global positions.
 * Query i at position query_start + i sees the keys at positions first_key[i] ... query_start + i: causal,
 * document and sliding-window masks in one form. first_key never falls with i; a value beyond the query's own
 * position means that it sees nothing. Several blocks are folded into one running state, in float, with one
 * rounding at the end: the online softmax of M. Milakov and N. Gimelshein (2018) as used by FlashAttention
 * (T. Dao, 2023) and ring attention (H. Liu et al., 2023).
 *
 * All buffers made here (`state`, `kv`, `dkv`) have a layout of the implementation's own and sizes that
 * depend on dims and length alone, so that they can travel between ranks; those of m times a length are at
 * most m times those of the length. A `dkv` is made of floats, its sum over ranks is the sum of its floats,
 * and all zeros is its start.
 *
 * A key or value that is not a number makes the results of all queries that see it so, and may make those of
 * queries near them. */
typedef struct AttentionOps {
  const char *name; /* of the implementation; ranks that exchange buffers must have the same */
  /* Bytes of the packed keys and values, and of their float gradient, for `length` positions. */
  size_t (*kv_bytes)(const AttentionDims *dims, int64_t length);
  size_t (*dkv_bytes)(const AttentionDims *dims, int64_t length);
  /* Key heads, with their query heads, that are best computed at a time in `length` positions where nobody
   * waits for the others' keys: so few that what they need stays in caches. Divides KV. */
  int64_t (*heads_at_once)(const AttentionDims *dims, int64_t length);
  /* Bytes of the state of a run of `length` queries. */
  size_t (*forward_bytes)(const AttentionDims *dims, int64_t length);
  size_t (*backward_bytes)(const AttentionDims *dims, int64_t length);

  /* k, v (length, KV, D) with `stride` elements from row to row, to kv. */
  void (*pack_kv)(Device *device, const AttentionDims *dims, int64_t length, const elem *k, const elem *v,
                  int64_t stride, void *kv);
  /* dkv to dk, dv (length, KV, D) with `stride` elements from row to row, which it overwrites. */
  void (*unpack_dkv)(Device *device, const AttentionDims *dims, int64_t length, const void *dkv, elem *dk,
                     elem *dv, int64_t stride);

  /* Forward: begin with q (length, H, D) of row stride `stride`; fold blocks; end with out (length, H, D) of
   * row stride `stride` and lse (H, length), the natural logarithm of the sum of exp(score). A query that saw
   * no key gets out 0 and lse -inf. */
  void (*forward_begin)(Device *device, const AttentionDims *dims, int64_t length, const elem *q,
                        int64_t stride, void *state);
  void (*forward_block)(Device *device, const AttentionDims *dims, int64_t query_length, int64_t query_start,
                        const int64_t *first_key, void *state, int64_t key_length, int64_t key_start,
                        const void *kv);
  void (*forward_end)(Device *device, const AttentionDims *dims, int64_t length, const void *state, elem *out,
                      int64_t stride, float *lse);

  /* Backward: begin with the final out and lse of all keys and the gradient dout (length, H, D), out and dout
   * of row stride `out_stride`; each block adds to dkv and to the state's dq; end writes dq (length, H, D) of
   * row stride `stride`. */
  void (*backward_begin)(Device *device, const AttentionDims *dims, int64_t length, const elem *q,
                         int64_t stride, const elem *out, const elem *dout, int64_t out_stride,
                         const float *lse, void *state);
  void (*backward_block)(Device *device, const AttentionDims *dims, int64_t query_length, int64_t query_start,
                         const int64_t *first_key, void *state, int64_t key_length, int64_t key_start,
                         const void *kv, void *dkv);
  void (*backward_end)(Device *device, const AttentionDims *dims, int64_t length, const void *state, elem *dq,
                       int64_t stride);

  /* All of a pass in one, bit for bit, packing included, for a sequence whose keys are all here: what is made
   * on the way stays in caches, and forward needs no state. Both or none (NULL), where a device gains nothing
   * by it. */
  void (*forward_alone)(Device *device, const AttentionDims *dims, const AttentionSequence *sequence,
                        elem *out, float *lse);
  void (*backward_alone)(Device *device, const AttentionDims *dims, const AttentionSequence *sequence,
                         const AttentionGradients *gradients);
} AttentionOps;

/* One AdamW step's numbers (I. Loshchilov and F. Hutter, 2019). */
typedef struct AdamwStep {
  float learning_rate;
  float beta1;
  float beta2;
  float eps;
  float weight_decay;   /* 0 for tensors without decay */
  float gradient_scale; /* factor on the gradient: clipping */
  int64_t step;         /* 1 at the first update: corrects the bias of the moments */
} AdamwStep;

/* Which elements dropout keeps, and what they are multiplied with. A mask is a function of the key, the row's
 * number and the column alone, in whole numbers, so that every device, grid and cut of a batch has the same:
 *
 *   the block of Philox4x32-10 (kernels/base/philox.h: philox_draw) of seed, PHILOX_DROPOUT, stream and
 *   index rows[i] ceil(c / 4) + b, modulo 2^64, gives the words of the columns 4b, 4b + 1, 4b + 2, 4b + 3;
 *   an element is kept where its word >= threshold. */
typedef struct DropoutKey {
  uint64_t seed;
  uint32_t stream;    /* the place in the model */
  uint32_t threshold; /* 2^32 times the probability of being dropped; 0 keeps all */
  float scale;        /* factor on the kept elements */
} DropoutKey;

typedef struct Ops {
  const char *name;
  size_t elem_size;
  AttentionOps attention;

  /* y (n, outputs) = x (n, inputs) w (outputs, inputs)^T + bias (outputs); bias may be NULL. Rows of y, and
   * of its gradient dy below, are y_stride >= outputs elements apart; what lies between them is left alone.
   */
  void (*linear_forward)(Device *device, int64_t n, int64_t inputs, int64_t outputs, int64_t y_stride,
                         const elem *x, const elem *w, const elem *bias, elem *y);
  /* dx (n, inputs) = dy (n, outputs) w (outputs, inputs). */
  void (*linear_backward_input)(Device *device, int64_t n, int64_t inputs, int64_t outputs, int64_t y_stride,
                                const elem *dy, const elem *w, elem *dx);
  /* dw (outputs, inputs) += dy (n, outputs)^T x (n, inputs); dbias (outputs) += column sums of dy, unless
   * NULL. */
  void (*linear_backward_weight)(Device *device, int64_t n, int64_t inputs, int64_t outputs, int64_t y_stride,
                                 const elem *dy, const elem *x, float *dw, float *dbias);

  /* y (n, c) = wte[token] + wpe[position]; without wpe (NULL) positions are not read.
   * tokens (n) in [0, rows of wte), positions (n) in [0, rows of wpe). */
  void (*embedding_forward)(Device *device, int64_t n, int64_t c, const int32_t *tokens,
                            const int64_t *positions, const elem *wte, const elem *wpe, elem *y);
  /* dwte[token] += dy, dwpe[position] += dy unless NULL. */
  void (*embedding_backward)(Device *device, int64_t n, int64_t c, const int32_t *tokens,
                             const int64_t *positions, const elem *dy, float *dwte, float *dwpe);

  /* x (n, c) += residual (n, c), rounded to elements, unless that is NULL; then LayerNorm over the rows of
   * this x with weight and bias (c): y = (x - mean) rstd weight + bias, rstd = 1 / sqrt(var + eps); keeps
   * mean (n) and rstd (n). Without a residual x is only read. J. Ba et al., 2016. */
  void (*layernorm_forward)(Device *device, int64_t n, int64_t c, float eps, const elem *residual, elem *x,
                            const elem *weight, const elem *bias, elem *y, float *mean, float *rstd);
  /* dx (n, c) +=, dweight (c) +=, dbias (c) +=. */
  void (*layernorm_backward)(Device *device, int64_t n, int64_t c, const elem *dy, const elem *x,
                             const elem *weight, const float *mean, const float *rstd, elem *dx,
                             float *dweight, float *dbias);

  /* x += residual in the same way; then RMSNorm: y = x rstd weight, rstd = 1 / sqrt(mean of x^2 + eps).
   * B. Zhang and R. Sennrich, 2019. */
  void (*rmsnorm_forward)(Device *device, int64_t n, int64_t c, float eps, const elem *residual, elem *x,
                          const elem *weight, elem *y, float *rstd);
  /* dx (n, c) +=, dweight (c) +=. */
  void (*rmsnorm_backward)(Device *device, int64_t n, int64_t c, const elem *dy, const elem *x,
                           const elem *weight, const float *rstd, elem *dx, float *dweight);

  /* table (n, d): cos (n, d/2) and sin (n, d/2) side by side in each row, of positions[i] times
   * inverse_frequency[j] (d/2), the angle reduced in double. */
  void (*rope_table)(Device *device, int64_t n, int64_t d, const int64_t *positions,
                     const double *inverse_frequency, float *table);
  /* Rotates in place the heads (n, heads, d) at x, row stride `stride`, by the table's angles; element j
   * pairs with j + d/2 (Hugging Face's rotate_half). `inverse` rotates back: the gradient. J. Su et al.,
   * 2021. */
  void (*rope_apply)(Device *device, int64_t n, int64_t heads, int64_t d, int64_t stride, const float *table,
                     bool inverse, elem *x);

  /* GELU in its tanh form (Hugging Face's gelu_new): y = gelu(x); dx = dy gelu'(x). dx may be dy. */
  void (*gelu_forward)(Device *device, int64_t count, const elem *x, elem *y);
  void (*gelu_backward)(Device *device, int64_t count, const elem *x, const elem *dy, elem *dx);

  /* gate_up (n, 2f): gate in columns [0, f), up in [f, 2f). y (n, f) = silu(gate) up, and its gradient
   * dgate_up (n, 2f). N. Shazeer, 2020. */
  void (*swiglu_forward)(Device *device, int64_t n, int64_t f, const elem *gate_up, elem *y);
  void (*swiglu_backward)(Device *device, int64_t n, int64_t f, const elem *gate_up, const elem *dy,
                          elem *dgate_up);

  /* y (n, c) = scale x where the key keeps it, else 0, whatever x is there. rows (n) are the rows' numbers,
   * >= 0. y may be x. N. Srivastava et al., 2014. The gradient is the same with dy for x. */
  void (*dropout)(Device *device, int64_t n, int64_t c, const DropoutKey *key, const int64_t *rows,
                  const elem *x, elem *y);

  /* y = x, rounded to elements. */
  void (*from_floats)(Device *device, int64_t count, const float *x, elem *y);

  /* y += x, floats in every table: gradients that come from another rank. */
  void (*add_f32)(Device *device, int64_t count, const float *x, float *y);

  /* Per row of logits (n, vocab), `stride` elements apart: nll[i] = log sum exp(logits) - logits[target], 0
   * for IGNORED_TARGET. With `gradient` the logits become softmax - one_hot(target), zero rows for ignored
   * targets. */
  void (*cross_entropy)(Device *device, int64_t n, int64_t vocab, int64_t stride, elem *logits,
                        const int32_t *targets, bool gradient, float *nll);

  /* *sum += x (count), or the squares of x, added in double. */
  void (*sum)(Device *device, int64_t count, const float *x, double *sum);
  void (*sum_of_squares)(Device *device, int64_t count, const float *x, double *sum);

  /* Updates master weights, moments m and v (count each) by the scaled gradient. */
  void (*adamw)(Device *device, const AdamwStep *step, int64_t count, const float *gradient, float *weights,
                float *m, float *v);
} Ops;

#endif
