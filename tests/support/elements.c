/* Elements in tests: see the header. */
#include "tests/support/elements.h"

#include <math.h>
#include <string.h>

ElementType elements_of(const Ops *ops) {
  return ops->elem_size == sizeof(float) ? ELEMENT_F32 : ELEMENT_BF16;
}

size_t elements_bytes(ElementType type, int64_t count) {
  return (size_t)count * (type == ELEMENT_F32 ? sizeof(float) : sizeof(uint16_t));
}

/* The upper half of the float, rounded to nearest even; a NaN stays one. */
static uint16_t to_bf16(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  if (isnan(x)) return (uint16_t)(bits >> 16 | 0x40);
  return (uint16_t)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

static float from_bf16(uint16_t x) {
  const uint32_t bits = (uint32_t)x << 16;
  float wide;
  memcpy(&wide, &bits, sizeof wide);
  return wide;
}

float element_round(ElementType type, float x) {
  return type == ELEMENT_F32 ? x : from_bf16(to_bf16(x));
}

void elements_pack(ElementType type, int64_t count, const float *x, void *out) {
  if (type == ELEMENT_F32) {
    memcpy(out, x, elements_bytes(type, count));
    return;
  }
  uint16_t *narrow = out;
  for (int64_t i = 0; i < count; i++) narrow[i] = to_bf16(x[i]);
}

void elements_unpack(ElementType type, int64_t count, const void *x, float *out) {
  if (type == ELEMENT_F32) {
    memcpy(out, x, elements_bytes(type, count));
    return;
  }
  const uint16_t *narrow = x;
  for (int64_t i = 0; i < count; i++) out[i] = from_bf16(narrow[i]);
}

double element_nearest(ElementType type, float got, double expected) {
  if (type == ELEMENT_F32 || !isfinite(got)) return (double)got;
  /* bf16 numbers of the binade 2^(e - 1) are 2^(e - 8) apart, those just below it half as much. */
  int e = 0;
  const double mantissa = frexp(fabs((double)got), &e);
  const double above = ldexp(1, got != 0.0F ? e - 9 : -134);
  const double below = mantissa > 0.5 || !(mantissa > 0) ? above : above / 2;
  const double least = (double)got - (got < 0.0F ? above : below);
  const double most = (double)got + (got < 0.0F ? below : above);
  return fmin(fmax(expected, least), most);
}
