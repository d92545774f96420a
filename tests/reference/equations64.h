/* The equations of a GPT and their derivatives on whole float64 matrices, for the reference model gpt64.
 * Every function is one equation, written from its definition; none is fast and none shares source with the
 * program. A `_backward` function adds to the gradients that it is given; dX stands for d(loss)/dX. */
#ifndef RINGGPT_REFERENCE_EQUATIONS64_H
#define RINGGPT_REFERENCE_EQUATIONS64_H

#include <stdbool.h>
#include <stdint.h>

#include "tests/reference/rope64.h"

/* A view of a row-major matrix (rows, cols) whose rows lie `stride` elements apart; it owns nothing. */
typedef struct RefMatrix {
  double *at;
  int64_t rows;
  int64_t cols;
  int64_t stride;
} RefMatrix;

/* The view of cols columns from column `first` on, and of rows rows from row `first` on. */
RefMatrix ref_columns(RefMatrix m, int64_t first, int64_t cols);
RefMatrix ref_rows(RefMatrix m, int64_t first, int64_t rows);

/* y = 0; y += x. */
void ref_set_zero(RefMatrix y);
void ref_add(RefMatrix x, RefMatrix y);

/* C += s A B; C += s A B^T; C += s A^T B. */
void ref_product(double s, RefMatrix a, RefMatrix b, RefMatrix c);
void ref_product_bt(double s, RefMatrix a, RefMatrix b, RefMatrix c);
void ref_product_at(double s, RefMatrix a, RefMatrix b, RefMatrix c);

/* A linear layer. Its weight is (outputs, inputs), or (inputs, outputs) where inputs_first is set, as in
 * Hugging Face's Conv1D. bias and dbias (outputs) are NULL where there is none. */
typedef struct RefLinear {
  RefMatrix weight;
  RefMatrix dweight;
  const double *bias;
  double *dbias;
  bool inputs_first;
} RefLinear;

int64_t ref_linear_outputs(const RefLinear *linear);

/* y += x W^T + 1 b^T, with x (T, inputs) and y (T, outputs). */
void ref_linear_forward(const RefLinear *linear, RefMatrix x, RefMatrix y);
/* dx += dy W; dW += dy^T x; db += the column sums of dy. */
void ref_linear_backward(const RefLinear *linear, RefMatrix x, RefMatrix dy, RefMatrix dx);

/* LayerNorm (centred, with a bias) or RMSNorm (neither) over the rows of a matrix (T, C); all vectors are
 * (C). */
typedef struct RefNorm {
  const double *weight;
  double *dweight;
  const double *bias;
  double *dbias;
  double eps;
  bool centred;
} RefNorm;

/* y = w * (x - m) / sqrt(mean((x - m)^2) + eps) + b, where m is the row's mean for LayerNorm and 0 for
 * RMSNorm. */
void ref_norm_forward(const RefNorm *norm, RefMatrix x, RefMatrix y);
void ref_norm_backward(const RefNorm *norm, RefMatrix x, RefMatrix dy, RefMatrix dx);

/* gelu(x) = x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))), element by element. */
void ref_gelu_forward(RefMatrix x, RefMatrix y);
void ref_gelu_backward(RefMatrix x, RefMatrix dy, RefMatrix dx);

/* y = silu(gate) * up with silu(x) = x / (1 + exp(-x)), element by element. */
void ref_swiglu_forward(RefMatrix gate, RefMatrix up, RefMatrix y);
void ref_swiglu_backward(RefMatrix gate, RefMatrix up, RefMatrix dy, RefMatrix dgate, RefMatrix dup);

/* Turns in place every head of row t of x (T, heads x d): the pair (j, j + d/2) by the angle
 * direction * t * rope64_frequency, and multiplies it by rope64_magnitude. Direction 1 is the forward, -1
 * (the transpose) the backward. */
void ref_rope(RefMatrix x, int64_t d, const Rope64 *rope, double theta, double direction);

/* Attention of `heads` query heads over kv_heads key heads of head_dim elements; query head h reads key head
 * h / (heads / kv_heads). Query i sees key j where j <= i, j >= first_key[i] (unless first_key is NULL), and
 * i - j < window (unless window is 0). */
typedef struct RefAttention {
  int64_t heads;
  int64_t kv_heads;
  int64_t head_dim;
  const int64_t *first_key;
  int64_t window;
} RefAttention;

/* P_h = softmax(mask(Q_h K_g^T / sqrt(head_dim))), o_h += P_h V_g. q, o (T, heads x head_dim); k, v (T,
 * kv_heads x head_dim); p (heads x T, T) is overwritten. A query that sees no key gets a row of zeros. */
void ref_attention_forward(const RefAttention *attention, RefMatrix q, RefMatrix k, RefMatrix v, RefMatrix p,
                           RefMatrix o);
/* dV = P^T dO; dP = dO V^T; dS = P * (dP - rowsum(P * dP)); dQ = dS K / sqrt(head_dim); dK = dS^T Q /
 * sqrt(head_dim). scratch is (T, T). */
void ref_attention_backward(const RefAttention *attention, RefMatrix q, RefMatrix k, RefMatrix v, RefMatrix p,
                            RefMatrix d_o, RefMatrix scratch, RefMatrix dq, RefMatrix dk, RefMatrix dv);

/* nll_t = log sum_j exp(z_tj) - z_t,target, 0 where the target is negative, for logits z (T, V). With
 * `gradient`, z becomes scale (softmax(z) - onehot(target)), zero where the target is negative. nll (T) may
 * be NULL. Returns the sum of nll. */
double ref_cross_entropy(RefMatrix z, const int32_t *targets, double scale, bool gradient, double *nll);

#endif
