/* The equations of a GPT and their derivatives on whole float64 matrices: see the header. */
#include "tests/reference/equations64.h"

#include <math.h>
#include <string.h>

/* ---------------------------------------------------------------- matrices */

static double *row(RefMatrix m, int64_t i) {
  return m.at + i * m.stride;
}

RefMatrix ref_columns(RefMatrix m, int64_t first, int64_t cols) {
  return (RefMatrix){m.at + first, m.rows, cols, m.stride};
}

RefMatrix ref_rows(RefMatrix m, int64_t first, int64_t rows) {
  return (RefMatrix){row(m, first), rows, m.cols, m.stride};
}

void ref_set_zero(RefMatrix y) {
  for (int64_t i = 0; i < y.rows; i++) memset(row(y, i), 0, (size_t)y.cols * sizeof(double));
}

/* y += s x over n elements. */
static void add_scaled(int64_t n, double s, const double *x, double *y) {
  for (int64_t j = 0; j < n; j++) y[j] += s * x[j];
}

static double dot(int64_t n, const double *x, const double *y) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t j = 0; j < n; j++) sum += x[j] * y[j];
  return sum;
}

void ref_add(RefMatrix x, RefMatrix y) {
  for (int64_t i = 0; i < x.rows; i++) add_scaled(x.cols, 1, row(x, i), row(y, i));
}

void ref_product(double s, RefMatrix a, RefMatrix b, RefMatrix c) {
  for (int64_t i = 0; i < a.rows; i++) {
    for (int64_t k = 0; k < a.cols; k++) add_scaled(b.cols, s * row(a, i)[k], row(b, k), row(c, i));
  }
}

void ref_product_bt(double s, RefMatrix a, RefMatrix b, RefMatrix c) {
  for (int64_t i = 0; i < a.rows; i++) {
    for (int64_t j = 0; j < b.rows; j++) row(c, i)[j] += s * dot(a.cols, row(a, i), row(b, j));
  }
}

void ref_product_at(double s, RefMatrix a, RefMatrix b, RefMatrix c) {
  for (int64_t k = 0; k < a.rows; k++) {
    for (int64_t i = 0; i < a.cols; i++) add_scaled(b.cols, s * row(a, k)[i], row(b, k), row(c, i));
  }
}

/* ---------------------------------------------------------------- linear layers */

int64_t ref_linear_outputs(const RefLinear *linear) {
  return linear->inputs_first ? linear->weight.cols : linear->weight.rows;
}

void ref_linear_forward(const RefLinear *linear, RefMatrix x, RefMatrix y) {
  if (linear->inputs_first) {
    ref_product(1, x, linear->weight, y);
  } else {
    ref_product_bt(1, x, linear->weight, y);
  }
  if (linear->bias == NULL) return;
  for (int64_t t = 0; t < y.rows; t++) add_scaled(y.cols, 1, linear->bias, row(y, t));
}

void ref_linear_backward(const RefLinear *linear, RefMatrix x, RefMatrix dy, RefMatrix dx) {
  if (linear->inputs_first) {
    ref_product_bt(1, dy, linear->weight, dx);
    ref_product_at(1, x, dy, linear->dweight);
  } else {
    ref_product(1, dy, linear->weight, dx);
    ref_product_at(1, dy, x, linear->dweight);
  }
  if (linear->dbias == NULL) return;
  for (int64_t t = 0; t < dy.rows; t++) add_scaled(dy.cols, 1, row(dy, t), linear->dbias);
}

/* ---------------------------------------------------------------- norms */

/* The m and the r = 1 / sqrt(mean((x - m)^2) + eps) of one row x (c). */
static void norm_statistics(const RefNorm *norm, int64_t c, const double *x, double *m, double *r) {
  double sum = 0;
  double squares = 0;
  for (int64_t j = 0; j < c; j++) sum += x[j];
  *m = norm->centred ? sum / (double)c : 0;
  for (int64_t j = 0; j < c; j++) squares += (x[j] - *m) * (x[j] - *m);
  *r = 1 / sqrt(squares / (double)c + norm->eps);
}

void ref_norm_forward(const RefNorm *norm, RefMatrix x, RefMatrix y) {
  for (int64_t t = 0; t < x.rows; t++) {
    double m;
    double r;
    norm_statistics(norm, x.cols, row(x, t), &m, &r);
    for (int64_t j = 0; j < x.cols; j++) {
      row(y, t)[j] = norm->weight[j] * (row(x, t)[j] - m) * r + (norm->bias != NULL ? norm->bias[j] : 0);
    }
  }
}

/* With u = (x - m) r and g = w * dy: dx = r (g - [mean(g)] - u mean(g * u)), the bracket for LayerNorm alone.
 */
void ref_norm_backward(const RefNorm *norm, RefMatrix x, RefMatrix dy, RefMatrix dx) {
  const int64_t c = x.cols;
  for (int64_t t = 0; t < x.rows; t++) {
    double m;
    double r;
    double mean_g = 0;
    double mean_gu = 0;
    norm_statistics(norm, c, row(x, t), &m, &r);
    for (int64_t j = 0; j < c; j++) {
      const double u = (row(x, t)[j] - m) * r;
      const double g = norm->weight[j] * row(dy, t)[j];
      mean_g += g / (double)c;
      mean_gu += g * u / (double)c;
      norm->dweight[j] += row(dy, t)[j] * u;
      if (norm->dbias != NULL) norm->dbias[j] += row(dy, t)[j];
    }
    for (int64_t j = 0; j < c; j++) {
      const double u = (row(x, t)[j] - m) * r;
      const double g = norm->weight[j] * row(dy, t)[j];
      row(dx, t)[j] += r * (g - (norm->centred ? mean_g : 0) - u * mean_gu);
    }
  }
}

/* ---------------------------------------------------------------- activations */

static const double SQRT_2_OVER_PI = 0.79788456080286535588;
static const double GELU_CUBIC = 0.044715;

static double gelu(double x) {
  return x / 2 * (1 + tanh(SQRT_2_OVER_PI * (x + GELU_CUBIC * x * x * x)));
}

static double gelu_derivative(double x) {
  const double t = tanh(SQRT_2_OVER_PI * (x + GELU_CUBIC * x * x * x));
  return (1 + t) / 2 + x / 2 * (1 - t * t) * SQRT_2_OVER_PI * (1 + 3 * GELU_CUBIC * x * x);
}

static double sigmoid(double x) {
  return 1 / (1 + exp(-x));
}

void ref_gelu_forward(RefMatrix x, RefMatrix y) {
  for (int64_t t = 0; t < x.rows; t++) {
    for (int64_t j = 0; j < x.cols; j++) row(y, t)[j] = gelu(row(x, t)[j]);
  }
}

void ref_gelu_backward(RefMatrix x, RefMatrix dy, RefMatrix dx) {
  for (int64_t t = 0; t < x.rows; t++) {
    for (int64_t j = 0; j < x.cols; j++) row(dx, t)[j] += row(dy, t)[j] * gelu_derivative(row(x, t)[j]);
  }
}

void ref_swiglu_forward(RefMatrix gate, RefMatrix up, RefMatrix y) {
  for (int64_t t = 0; t < gate.rows; t++) {
    for (int64_t j = 0; j < gate.cols; j++) {
      const double g = row(gate, t)[j];
      row(y, t)[j] = g * sigmoid(g) * row(up, t)[j];
    }
  }
}

/* silu'(g) = s (1 + g (1 - s)) with s = sigmoid(g). */
void ref_swiglu_backward(RefMatrix gate, RefMatrix up, RefMatrix dy, RefMatrix dgate, RefMatrix dup) {
  for (int64_t t = 0; t < gate.rows; t++) {
    for (int64_t j = 0; j < gate.cols; j++) {
      const double g = row(gate, t)[j];
      const double s = sigmoid(g);
      row(dup, t)[j] += row(dy, t)[j] * g * s;
      row(dgate, t)[j] += row(dy, t)[j] * row(up, t)[j] * s * (1 + g * (1 - s));
    }
  }
}

/* ---------------------------------------------------------------- attention */

void ref_rope(RefMatrix x, int64_t d, const Rope64 *rope, double theta, double direction) {
  const double magnitude = rope64_magnitude(rope);
  for (int64_t j = 0; j < d / 2; j++) {
    const double frequency = direction * (double)rope64_frequency(rope, theta, d, x.rows, j);
    for (int64_t t = 0; t < x.rows; t++) {
      const double cosine = magnitude * cos((double)t * frequency);
      const double sine = magnitude * sin((double)t * frequency);
      for (double *head = row(x, t); head < row(x, t) + x.cols; head += d) {
        const double a = head[j];
        const double b = head[j + d / 2];
        head[j] = a * cosine - b * sine;
        head[j + d / 2] = b * cosine + a * sine;
      }
    }
  }
}

static bool sees(const RefAttention *attention, int64_t query, int64_t key) {
  if (key > query) return false;
  if (attention->first_key != NULL && key < attention->first_key[query]) return false;
  return attention->window == 0 || query - key < attention->window;
}

/* Row i of the scores becomes their softmax over the keys that query i sees, and 0 elsewhere. */
static void masked_softmax(const RefAttention *attention, RefMatrix s) {
  for (int64_t i = 0; i < s.rows; i++) {
    double maximum = -INFINITY;
    double sum = 0;
    for (int64_t j = 0; j < s.cols; j++) {
      if (sees(attention, i, j)) maximum = fmax(maximum, row(s, i)[j]);
    }
    for (int64_t j = 0; j < s.cols; j++) {
      row(s, i)[j] = sees(attention, i, j) ? exp(row(s, i)[j] - maximum) : 0;
      sum += row(s, i)[j];
    }
    for (int64_t j = 0; j < s.cols && sum > 0; j++) row(s, i)[j] /= sum;
  }
}

/* The columns of head h of m. */
static RefMatrix head_of(const RefAttention *attention, RefMatrix m, int64_t h) {
  return ref_columns(m, h * attention->head_dim, attention->head_dim);
}

void ref_attention_forward(const RefAttention *attention, RefMatrix q, RefMatrix k, RefMatrix v, RefMatrix p,
                           RefMatrix o) {
  const double scale = 1 / sqrt((double)attention->head_dim);
  ref_set_zero(p);
  for (int64_t h = 0; h < attention->heads; h++) {
    const int64_t g = h / (attention->heads / attention->kv_heads);
    const RefMatrix p_h = ref_rows(p, h * q.rows, q.rows);
    ref_product_bt(scale, head_of(attention, q, h), head_of(attention, k, g), p_h);
    masked_softmax(attention, p_h);
    ref_product(1, p_h, head_of(attention, v, g), head_of(attention, o, h));
  }
}

/* Turns dP into dS = P * (dP - rowsum(P * dP)): the derivative of softmax. */
static void softmax_backward(RefMatrix p, RefMatrix dp) {
  for (int64_t i = 0; i < p.rows; i++) {
    const double inner = dot(p.cols, row(p, i), row(dp, i));
    for (int64_t j = 0; j < p.cols; j++) row(dp, i)[j] = row(p, i)[j] * (row(dp, i)[j] - inner);
  }
}

void ref_attention_backward(const RefAttention *attention, RefMatrix q, RefMatrix k, RefMatrix v, RefMatrix p,
                            RefMatrix d_o, RefMatrix scratch, RefMatrix dq, RefMatrix dk, RefMatrix dv) {
  const double scale = 1 / sqrt((double)attention->head_dim);
  for (int64_t h = 0; h < attention->heads; h++) {
    const int64_t g = h / (attention->heads / attention->kv_heads);
    const RefMatrix p_h = ref_rows(p, h * q.rows, q.rows);
    const RefMatrix do_h = head_of(attention, d_o, h);
    ref_product_at(1, p_h, do_h, head_of(attention, dv, g));
    ref_set_zero(scratch);
    ref_product_bt(1, do_h, head_of(attention, v, g), scratch);
    softmax_backward(p_h, scratch);
    ref_product(scale, scratch, head_of(attention, k, g), head_of(attention, dq, h));
    ref_product_at(scale, scratch, head_of(attention, q, h), head_of(attention, dk, g));
  }
}

/* ---------------------------------------------------------------- loss */

/* log sum_j exp(z_j) over one row. */
static double log_sum_exp(int64_t n, const double *z) {
  double maximum = -INFINITY;
  double sum = 0;
  for (int64_t j = 0; j < n; j++) maximum = fmax(maximum, z[j]);
  for (int64_t j = 0; j < n; j++) sum += exp(z[j] - maximum);
  return maximum + log(sum);
}

double ref_cross_entropy(RefMatrix z, const int32_t *targets, double scale, bool gradient, double *nll) {
  double total = 0;
  for (int64_t t = 0; t < z.rows; t++) {
    const bool valid = targets[t] >= 0;
    const double logsumexp = log_sum_exp(z.cols, row(z, t));
    const double loss = valid ? logsumexp - row(z, t)[targets[t]] : 0;
    total += loss;
    if (nll != NULL) nll[t] = loss;
    if (!gradient) continue;
    for (int64_t j = 0; j < z.cols; j++) {
      const double onehot = j == targets[t] ? 1 : 0;
      row(z, t)[j] = valid ? scale * (exp(row(z, t)[j] - logsumexp) - onehot) : 0;
    }
  }
  return total;
}
