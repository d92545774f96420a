/* Vectorised activations and rounding to elements: the bodies for any width of kernels/cpu/vector.h and any
 * elements. */
#ifndef RINGGPT_CPU_VECTOR_ACTIVATION_H
#define RINGGPT_CPU_VECTOR_ACTIVATION_H

#include "kernels/cpu/poll.h"
#include "kernels/cpu/vector_element.h"
#include "kernels/device.h"

/* 2 sqrt(2 / pi) and the cubic factor of GELU's tanh form, which is x sigmoid(2 u) with
 * u = sqrt(2 / pi) (x + 0.044715 x^3). */
#define GELU_TWICE_SCALE 1.59576912160573071176F
#define GELU_CUBIC 0.044715F

/* 2 u. */
static inline Vector gelu_inner(Vector x) {
  const Vector factor = vector_multiply_add(vector_set(GELU_CUBIC) * x, x, vector_set(1.0F));
  return vector_set(GELU_TWICE_SCALE) * x * factor;
}

/* `count` elements, `vectors` vectors of them, from x to y. */
GROUP_INLINE void gelu_group(int vectors, int64_t count, const Element *x, Element *y) {
  Vector value[VECTOR_GROUP];
  Vector s[VECTOR_GROUP];
  group_load_elements(vectors, x, count, value);
  for (int k = 0; k < vectors; k++) s[k] = gelu_inner(value[k]);
  group_sigmoid(vectors, s);
  for (int k = 0; k < vectors; k++) s[k] *= value[k];
  group_store_elements(vectors, y, s, count);
}

static void vector_gelu_forward(Device *device, int64_t count, const elem *x, elem *y) {
  const Element *in = x;
  Element *out = y;
#pragma omp parallel for num_threads(device->threads) if (device->threads > 1)
  for (int64_t first = 0; first < count; first += POLL_ELEMENTS) {
    const int64_t end = poll_piece(device, first, count);
    int64_t i = first;
    for (; i + GROUP_FLOATS <= end; i += GROUP_FLOATS) {
      gelu_group(VECTOR_GROUP, GROUP_FLOATS, in + i, out + i);
    }
    for (; i < end; i += VECTOR_FLOATS) gelu_group(1, end - i, in + i, out + i);
  }
}

/* dx = dy (s + x s (1 - s) (2 u)'). */
GROUP_INLINE void gelu_slope_group(int vectors, int64_t count, const Element *x, const Element *dy,
                                   Element *dx) {
  Vector value[VECTOR_GROUP];
  Vector s[VECTOR_GROUP];
  Vector slope[VECTOR_GROUP];
  group_load_elements(vectors, x, count, value);
  for (int k = 0; k < vectors; k++) s[k] = gelu_inner(value[k]);
  group_sigmoid_slope(vectors, s, slope);
  for (int k = 0; k < vectors; k++) {
    const Vector cubic = vector_set(3.0F * GELU_TWICE_SCALE * GELU_CUBIC) * value[k];
    const Vector inner_slope = vector_multiply_add(cubic, value[k], vector_set(GELU_TWICE_SCALE));
    s[k] = vector_multiply_add(value[k] * slope[k], inner_slope, s[k]);
  }
  group_load_elements(vectors, dy, count, slope);
  for (int k = 0; k < vectors; k++) s[k] *= slope[k];
  group_store_elements(vectors, dx, s, count);
}

static void vector_gelu_backward(Device *device, int64_t count, const elem *x, const elem *dy, elem *dx) {
  const Element *in = x;
  const Element *gradient = dy;
  Element *out = dx;
#pragma omp parallel for num_threads(device->threads) if (device->threads > 1)
  for (int64_t first = 0; first < count; first += POLL_ELEMENTS) {
    const int64_t end = poll_piece(device, first, count);
    int64_t i = first;
    for (; i + GROUP_FLOATS <= end; i += GROUP_FLOATS) {
      gelu_slope_group(VECTOR_GROUP, GROUP_FLOATS, in + i, gradient + i, out + i);
    }
    for (; i < end; i += VECTOR_FLOATS) gelu_slope_group(1, end - i, in + i, gradient + i, out + i);
  }
}

/* y = gate sigmoid(gate) up. Gate and up are two streams that break off at every row, which the CPU does not
 * foresee: both directions ask for the next row while they work on one. */
GROUP_INLINE void swiglu_group(int vectors, int64_t count, const Element *gate, const Element *up,
                               Element *y) {
  Vector g[VECTOR_GROUP];
  Vector s[VECTOR_GROUP];
  group_load_elements(vectors, gate, count, g);
  for (int k = 0; k < vectors; k++) s[k] = g[k];
  group_sigmoid(vectors, s);
  for (int k = 0; k < vectors; k++) s[k] *= g[k];
  group_load_elements(vectors, up, count, g);
  for (int k = 0; k < vectors; k++) s[k] *= g[k];
  group_store_elements(vectors, y, s, count);
}

static void vector_swiglu_forward(Device *device, int64_t n, int64_t f, const elem *gate_up, elem *y) {
  const Element *rows = gate_up; /* (n, 2f) */
  Element *out = y;              /* (n, f) */
#pragma omp parallel for num_threads(device->threads) if (device->threads > 1)
  for (int64_t i = 0; i < n; i++) {
    poll_within(device, i, 2 * f);
    const Element *gate = rows + i * 2 * f;
    Element *row = out + i * f;
    int64_t j = 0;
    for (; j + GROUP_FLOATS <= f; j += GROUP_FLOATS) {
      group_prefetch(gate + 2 * f + j);
      group_prefetch(gate + 3 * f + j);
      swiglu_group(VECTOR_GROUP, GROUP_FLOATS, gate + j, gate + f + j, row + j);
    }
    for (; j < f; j += VECTOR_FLOATS) swiglu_group(1, f - j, gate + j, gate + f + j, row + j);
  }
}

/* The gradients of gate and up, which lie `f` behind: dgate = dy up (s + gate s'), dup = dy gate s. */
GROUP_INLINE void swiglu_slope_group(int vectors, int64_t count, int64_t f, const Element *gate,
                                     const Element *dy, Element *dgate) {
  Vector g[VECTOR_GROUP];
  Vector s[VECTOR_GROUP];
  Vector slope[VECTOR_GROUP];
  Vector u[VECTOR_GROUP];
  Vector gradient[VECTOR_GROUP];
  group_load_elements(vectors, gate, count, g);
  group_load_elements(vectors, gate + f, count, u);
  group_load_elements(vectors, dy, count, gradient);
  for (int k = 0; k < vectors; k++) s[k] = g[k];
  group_sigmoid_slope(vectors, s, slope);
  for (int k = 0; k < vectors; k++) u[k] = gradient[k] * u[k] * vector_multiply_add(g[k], slope[k], s[k]);
  for (int k = 0; k < vectors; k++) s[k] = gradient[k] * g[k] * s[k];
  group_store_elements(vectors, dgate, u, count);
  group_store_elements(vectors, dgate + f, s, count);
}

static void vector_swiglu_backward(Device *device, int64_t n, int64_t f, const elem *gate_up, const elem *dy,
                                   elem *dgate_up) {
  const Element *rows = gate_up; /* (n, 2f) */
  const Element *gradients = dy; /* (n, f) */
  Element *out = dgate_up;       /* (n, 2f) */
#pragma omp parallel for num_threads(device->threads) if (device->threads > 1)
  for (int64_t i = 0; i < n; i++) {
    poll_within(device, i, 2 * f);
    const Element *gate = rows + i * 2 * f;
    const Element *gradient = gradients + i * f;
    Element *dgate = out + i * 2 * f;
    int64_t j = 0;
    for (; j + GROUP_FLOATS <= f; j += GROUP_FLOATS) {
      group_prefetch(gate + 2 * f + j);
      group_prefetch(gate + 3 * f + j);
      swiglu_slope_group(VECTOR_GROUP, GROUP_FLOATS, f, gate + j, gradient + j, dgate + j);
    }
    for (; j < f; j += VECTOR_FLOATS) swiglu_slope_group(1, f - j, f, gate + j, gradient + j, dgate + j);
  }
}

static void vector_from_floats(Device *device, int64_t count, const float *x, elem *y) {
  Element *out = y;
#pragma omp parallel for num_threads(device->threads) if (device->threads > 1)
  for (int64_t first = 0; first < count; first += POLL_ELEMENTS) {
    const int64_t end = poll_piece(device, first, count);
    for (int64_t i = first; i < end; i += VECTOR_FLOATS) {
      vector_store_elements(out + i, vector_load(x + i, count - i), count - i);
    }
  }
}

#endif
