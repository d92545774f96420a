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

static void vector_gelu_forward(Device *device, int64_t count, const elem *x, elem *y) {
  const Element *in = x;
  Element *out = y;
#pragma omp parallel for num_threads(device->threads) if (device->threads > 1)
  for (int64_t first = 0; first < count; first += POLL_ELEMENTS) {
    const int64_t end = poll_piece(device, first, count);
    for (int64_t i = first; i < end; i += VECTOR_FLOATS) {
      const Vector value = vector_load_elements(in + i, count - i);
      vector_store_elements(out + i, value * vector_sigmoid(gelu_inner(value)), count - i);
    }
  }
}

/* dx = dy (s + x s (1 - s) (2 u)'). */
static void vector_gelu_backward(Device *device, int64_t count, const elem *x, const elem *dy, elem *dx) {
  const Element *in = x;
  const Element *gradient = dy;
  Element *out = dx;
#pragma omp parallel for num_threads(device->threads) if (device->threads > 1)
  for (int64_t first = 0; first < count; first += POLL_ELEMENTS) {
    const int64_t end = poll_piece(device, first, count);
    for (int64_t i = first; i < end; i += VECTOR_FLOATS) {
      const Vector value = vector_load_elements(in + i, count - i);
      Vector slope;
      const Vector s = vector_sigmoid_slope(gelu_inner(value), &slope);
      const Vector cubic = vector_set(3.0F * GELU_TWICE_SCALE * GELU_CUBIC) * value;
      const Vector inner_slope = vector_multiply_add(cubic, value, vector_set(GELU_TWICE_SCALE));
      const Vector derivative = vector_multiply_add(value * slope, inner_slope, s);
      vector_store_elements(out + i, vector_load_elements(gradient + i, count - i) * derivative, count - i);
    }
  }
}

static void vector_swiglu_forward(Device *device, int64_t n, int64_t f, const elem *gate_up, elem *y) {
  const Element *rows = gate_up; /* (n, 2f) */
  Element *out = y;              /* (n, f) */
#pragma omp parallel for num_threads(device->threads) if (device->threads > 1)
  for (int64_t i = 0; i < n; i++) {
    poll_within(device, i, 2 * f);
    const Element *gate = rows + i * 2 * f;
    const Element *up = gate + f;
    for (int64_t j = 0; j < f; j += VECTOR_FLOATS) {
      const Vector g = vector_load_elements(gate + j, f - j);
      const Vector silu = g * vector_sigmoid(g);
      vector_store_elements(out + i * f + j, silu * vector_load_elements(up + j, f - j), f - j);
    }
  }
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
    const Element *up = gate + f;
    Element *dgate = out + i * 2 * f;
    Element *dup = dgate + f;
    for (int64_t j = 0; j < f; j += VECTOR_FLOATS) {
      const Vector g = vector_load_elements(gate + j, f - j);
      Vector slope;
      const Vector s = vector_sigmoid_slope(g, &slope);
      const Vector gradient = vector_load_elements(gradients + i * f + j, f - j);
      const Vector dsilu = vector_multiply_add(g, slope, s);
      vector_store_elements(dgate + j, gradient * vector_load_elements(up + j, f - j) * dsilu, f - j);
      vector_store_elements(dup + j, gradient * g * s, f - j);
    }
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
