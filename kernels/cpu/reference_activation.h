/* Reference operations: activations and rounding to elements, element by element: the bodies for any
 * elements.
 */
#ifndef RINGGPT_CPU_REFERENCE_ACTIVATION_H
#define RINGGPT_CPU_REFERENCE_ACTIVATION_H

#include <math.h>

#include "kernels/cpu/element.h"
#include "kernels/cpu/poll.h"
#include "kernels/device.h"

/* sqrt(2 / pi) and the cubic factor of GELU's tanh form. */
#define GELU_SCALE 0.79788456080286535588F
#define GELU_CUBIC 0.044715F

static float sigmoid(float x) {
  return 1.0F / (1.0F + expf(-x));
}

/* s (1 - s) of s = sigmoid(x), without taking s from 1 where it is all but 1. */
static float sigmoid_slope(float x) {
  const float e = expf(-fabsf(x));
  return e / ((1.0F + e) * (1.0F + e));
}

/* 0.5 x (1 + tanh(u)) is x sigmoid(2 u): without the cancellation near tanh = -1. */
static void reference_gelu_forward(Device *device, int64_t count, const elem *x, elem *y) {
  const Element *in = x;
  Element *out = y;
#pragma omp parallel for num_threads(device->threads) if (device->threads > 1)
  for (int64_t first = 0; first < count; first += POLL_ELEMENTS) {
    const int64_t end = poll_piece(device, first, count);
    for (int64_t i = first; i < end; i++) {
      const float value = to_float(in[i]);
      const float u = GELU_SCALE * value * (1.0F + GELU_CUBIC * value * value);
      out[i] = from_float(value * sigmoid(2.0F * u));
    }
  }
}

static void reference_gelu_backward(Device *device, int64_t count, const elem *x, const elem *dy, elem *dx) {
  const Element *in = x;
  const Element *gradient = dy;
  Element *out = dx;
#pragma omp parallel for num_threads(device->threads) if (device->threads > 1)
  for (int64_t first = 0; first < count; first += POLL_ELEMENTS) {
    const int64_t end = poll_piece(device, first, count);
    for (int64_t i = first; i < end; i++) {
      const float value = to_float(in[i]);
      const float square = value * value;
      const float twice_u = 2.0F * GELU_SCALE * value * (1.0F + GELU_CUBIC * square);
      const float du = 2.0F * GELU_SCALE * (1.0F + 3.0F * GELU_CUBIC * square);
      const float slope = sigmoid(twice_u) + value * sigmoid_slope(twice_u) * du;
      out[i] = from_float(to_float(gradient[i]) * slope);
    }
  }
}

static void reference_swiglu_forward(Device *device, int64_t n, int64_t f, const elem *gate_up, elem *y) {
  const Element *rows = gate_up; /* (n, 2f) */
  Element *out = y;              /* (n, f) */
#pragma omp parallel for num_threads(device->threads) if (device->threads > 1)
  for (int64_t i = 0; i < n; i++) {
    poll_within(device, i, 2 * f);
    const Element *gate = rows + i * 2 * f;
    const Element *up = gate + f;
    for (int64_t j = 0; j < f; j++) {
      const float g = to_float(gate[j]);
      out[i * f + j] = from_float(g * sigmoid(g) * to_float(up[j]));
    }
  }
}

static void reference_swiglu_backward(Device *device, int64_t n, int64_t f, const elem *gate_up,
                                      const elem *dy, elem *dgate_up) {
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
    for (int64_t j = 0; j < f; j++) {
      const float g = to_float(gate[j]);
      const float s = sigmoid(g);
      const float gradient = to_float(gradients[i * f + j]);
      const float dsilu = s + g * sigmoid_slope(g);
      dgate[j] = from_float(gradient * to_float(up[j]) * dsilu);
      dup[j] = from_float(gradient * g * s);
    }
  }
}

static void reference_from_floats(Device *device, int64_t count, const float *x, elem *y) {
  Element *out = y;
#pragma omp parallel for num_threads(device->threads) if (device->threads > 1)
  for (int64_t first = 0; first < count; first += POLL_ELEMENTS) {
    const int64_t end = poll_piece(device, first, count);
    for (int64_t i = first; i < end; i++) out[i] = from_float(x[i]);
  }
}

#endif
