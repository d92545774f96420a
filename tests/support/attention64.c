/* Attention in float64 from the equations, with full matrices. */
#include "tests/support/attention64.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static double *matrix(int64_t rows, int64_t columns) {
  double *m = calloc((size_t)(rows * columns) + 1, sizeof *m);
  if (m == NULL) abort();
  return m;
}

/* out (T, T) = x (T, D) times y (T, D)^T, both with a row stride. */
static void product_transposed(const Attention64 *a, const double *x, int64_t x_row, const double *y,
                               int64_t y_row, double *out) {
  const int64_t t = a->length;
  for (int64_t i = 0; i < t; i++) {
    for (int64_t j = 0; j < t; j++) {
      double sum = 0;
      for (int64_t c = 0; c < a->head_dim; c++) sum += x[i * x_row + c] * y[j * y_row + c];
      out[i * t + j] = sum;
    }
  }
}

/* out (T, D) += factor m (T, T), or its transpose, times x (T, D), the last two with row strides. */
static void multiply_add(const Attention64 *a, double factor, const double *m, int transposed,
                         const double *x, int64_t x_row, double *out, int64_t out_row) {
  const int64_t t = a->length;
  for (int64_t i = 0; i < t; i++) {
    for (int64_t j = 0; j < t; j++) {
      const double weight = factor * (transposed ? m[j * t + i] : m[i * t + j]);
      if (weight == 0) continue; /* half of the pairs, under a causal mask */
      for (int64_t c = 0; c < a->head_dim; c++) out[i * out_row + c] += weight * x[j * x_row + c];
    }
  }
}

/* p (T, T): softmax of the visible scores of one head; lse (T). */
static void probabilities(const Attention64 *a, int64_t head, double *p, double *lse) {
  const int64_t t = a->length;
  const int64_t d = a->head_dim;
  const int64_t kv_head = head / (a->heads / a->kv_heads);
  product_transposed(a, a->q + head * d, a->heads * d, a->k + kv_head * d, a->kv_heads * d, p);
  for (int64_t i = 0; i < t; i++) {
    double *row = p + i * t;
    double maximum = -INFINITY;
    for (int64_t j = 0; j < t; j++) {
      row[j] = a->first_key[i] <= j && j <= i ? a->scale * row[j] : -INFINITY;
      maximum = fmax(maximum, row[j]);
    }
    double sum = 0;
    for (int64_t j = 0; j < t && maximum > -INFINITY; j++) sum += exp(row[j] - maximum);
    lse[i] = maximum + log(sum);
    if (maximum == -INFINITY) lse[i] = -INFINITY;
    for (int64_t j = 0; j < t; j++) row[j] = maximum == -INFINITY ? 0 : exp(row[j] - lse[i]);
  }
}

void attention64_forward(const Attention64 *a, double *out, double *lse) {
  const int64_t d = a->head_dim;
  double *p = matrix(a->length, a->length);
  memset(out, 0, (size_t)(a->length * a->heads * d) * sizeof *out);
  for (int64_t head = 0; head < a->heads; head++) {
    const int64_t kv_head = head / (a->heads / a->kv_heads);
    probabilities(a, head, p, lse + head * a->length);
    multiply_add(a, 1, p, 0, a->v + kv_head * d, a->kv_heads * d, out + head * d, a->heads * d);
  }
  free(p);
}

/* dp (T, T), the gradient by the probabilities, becomes that by the scores: the softmax's Jacobian. */
static void softmax_backward(int64_t t, const double *p, double *dp) {
  for (int64_t i = 0; i < t; i++) {
    double sum = 0;
    for (int64_t j = 0; j < t; j++) sum += p[i * t + j] * dp[i * t + j];
    for (int64_t j = 0; j < t; j++) dp[i * t + j] = p[i * t + j] * (dp[i * t + j] - sum);
  }
}

void attention64_backward(const Attention64 *a, const double *dout, double *dq, double *dk, double *dv) {
  const int64_t t = a->length;
  const int64_t d = a->head_dim;
  const int64_t q_row = a->heads * d;
  const int64_t k_row = a->kv_heads * d;
  double *p = matrix(t, t);
  double *ds = matrix(t, t);
  double *lse = matrix(t, 1);
  memset(dq, 0, (size_t)(t * q_row) * sizeof *dq);
  memset(dk, 0, (size_t)(t * k_row) * sizeof *dk);
  memset(dv, 0, (size_t)(t * k_row) * sizeof *dv);
  for (int64_t head = 0; head < a->heads; head++) {
    const int64_t q_at = head * d;
    const int64_t k_at = head / (a->heads / a->kv_heads) * d;
    probabilities(a, head, p, lse);
    product_transposed(a, dout + q_at, q_row, a->v + k_at, k_row, ds);
    softmax_backward(t, p, ds);
    multiply_add(a, 1, p, 1, dout + q_at, q_row, dv + k_at, k_row);
    multiply_add(a, a->scale, ds, 1, a->q + q_at, q_row, dk + k_at, k_row);
    multiply_add(a, a->scale, ds, 0, a->k + k_at, k_row, dq + q_at, q_row);
  }
  free(p);
  free(ds);
  free(lse);
}
