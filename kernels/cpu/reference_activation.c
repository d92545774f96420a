/* Reference operations: activations and the residual addition, element by element. */
#include <math.h>

#include "kernels/cpu/poll.h"
#include "kernels/cpu/reference.h"
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
void reference_gelu_forward(Device *device, int64_t count, const elem *x, elem *y) {
  const float *in = x;
  float *out = y;
#pragma omp parallel for num_threads(device->threads) if (device->threads > 1)
  for (int64_t first = 0; first < count; first += POLL_ELEMENTS) {
    const int64_t end = poll_piece(device, first, count);
    for (int64_t i = first; i < end; i++) {
      const float u = GELU_SCALE * in[i] * (1.0F + GELU_CUBIC * in[i] * in[i]);
      out[i] = in[i] * sigmoid(2.0F * u);
    }
  }
}

void reference_gelu_backward(Device *device, int64_t count, const elem *x, const elem *dy, elem *dx) {
  const float *in = x;
  const float *gradient = dy;
  float *out = dx;
#pragma omp parallel for num_threads(device->threads) if (device->threads > 1)
  for (int64_t first = 0; first < count; first += POLL_ELEMENTS) {
    const int64_t end = poll_piece(device, first, count);
    for (int64_t i = first; i < end; i++) {
      const float square = in[i] * in[i];
      const float twice_u = 2.0F * GELU_SCALE * in[i] * (1.0F + GELU_CUBIC * square);
      const float du = 2.0F * GELU_SCALE * (1.0F + 3.0F * GELU_CUBIC * square);
      out[i] = gradient[i] * (sigmoid(twice_u) + in[i] * sigmoid_slope(twice_u) * du);
    }
  }
}

void reference_swiglu_forward(Device *device, int64_t n, int64_t f, const elem *gate_up, elem *y) {
  const float *rows = gate_up; /* (n, 2f) */
  float *out = y;              /* (n, f) */
#pragma omp parallel for num_threads(device->threads) if (device->threads > 1)
  for (int64_t i = 0; i < n; i++) {
    poll_within(device, i, 2 * f);
    const float *gate = rows + i * 2 * f;
    const float *up = gate + f;
    for (int64_t j = 0; j < f; j++) out[i * f + j] = gate[j] * sigmoid(gate[j]) * up[j];
  }
}

void reference_swiglu_backward(Device *device, int64_t n, int64_t f, const elem *gate_up, const elem *dy,
                               elem *dgate_up) {
  const float *rows = gate_up; /* (n, 2f) */
  const float *gradients = dy; /* (n, f) */
  float *out = dgate_up;       /* (n, 2f) */
#pragma omp parallel for num_threads(device->threads) if (device->threads > 1)
  for (int64_t i = 0; i < n; i++) {
    poll_within(device, i, 2 * f);
    const float *gate = rows + i * 2 * f;
    const float *up = gate + f;
    float *dgate = out + i * 2 * f;
    float *dup = dgate + f;
    for (int64_t j = 0; j < f; j++) {
      const float s = sigmoid(gate[j]);
      const float gradient = gradients[i * f + j];
      const float dsilu = s + gate[j] * sigmoid_slope(gate[j]);
      dup[j] = gradient * gate[j] * s;
      dgate[j] = gradient * up[j] * dsilu;
    }
  }
}

void reference_add_f32(Device *device, int64_t count, const float *x, float *y) {
#pragma omp parallel for num_threads(device->threads) if (device->threads > 1)
  for (int64_t first = 0; first < count; first += POLL_ELEMENTS) {
    const int64_t end = poll_piece(device, first, count);
    for (int64_t i = first; i < end; i++) y[i] += x[i];
  }
}

void reference_from_floats(Device *device, int64_t count, const float *x, elem *y) {
  device_write(device, y, x, (size_t)count * sizeof(float));
}

void reference_add(Device *device, int64_t count, const elem *x, elem *y) {
  reference_add_f32(device, count, x, y);
}
