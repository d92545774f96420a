/* bfloat16 for the emulator: the types of <cuda_bf16.h> and the conversions that kernels use. There is no
 * arithmetic and no implicit conversion: kernels compute in float. */
#ifndef RINGGPT_EMULATED_CUDA_BF16_H
#define RINGGPT_EMULATED_CUDA_BF16_H

#include <cuda_runtime.h>

struct alignas(2) __nv_bfloat16 {
  unsigned short bits;
};

struct alignas(4) __nv_bfloat162 {
  __nv_bfloat16 x, y; /* x in the lower half */
};

/* Rounds to nearest even; any NaN becomes 0x7FFF, as the GPU's conversion has it. */
static inline __nv_bfloat16 __float2bfloat16_rn(float value) {
  if (value != value) return {0x7FFF};
  const unsigned bits = __float_as_uint(value);
  return {(unsigned short)((bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16)};
}
static inline __nv_bfloat16 __float2bfloat16(float value) {
  return __float2bfloat16_rn(value);
}
static inline float __bfloat162float(__nv_bfloat16 value) {
  return __uint_as_float((unsigned)value.bits << 16);
}

static inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 value) {
  return value.bits;
}
static inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short bits) {
  return {bits};
}

static inline __nv_bfloat162 __halves2bfloat162(__nv_bfloat16 low, __nv_bfloat16 high) {
  return {low, high};
}
static inline __nv_bfloat162 make_bfloat162(__nv_bfloat16 low, __nv_bfloat16 high) {
  return {low, high};
}
static inline __nv_bfloat162 __bfloat162bfloat162(__nv_bfloat16 both) {
  return {both, both};
}
static inline __nv_bfloat162 __floats2bfloat162_rn(float low, float high) {
  return {__float2bfloat16_rn(low), __float2bfloat16_rn(high)};
}
static inline __nv_bfloat162 __float22bfloat162_rn(float2 pair) {
  return __floats2bfloat162_rn(pair.x, pair.y);
}
static inline __nv_bfloat162 __float2bfloat162_rn(float both) {
  return __floats2bfloat162_rn(both, both);
}

static inline __nv_bfloat16 __low2bfloat16(__nv_bfloat162 pair) {
  return pair.x;
}
static inline __nv_bfloat16 __high2bfloat16(__nv_bfloat162 pair) {
  return pair.y;
}
static inline float __low2float(__nv_bfloat162 pair) {
  return __bfloat162float(pair.x);
}
static inline float __high2float(__nv_bfloat162 pair) {
  return __bfloat162float(pair.y);
}
static inline float2 __bfloat1622float2(__nv_bfloat162 pair) {
  return {__low2float(pair), __high2float(pair)};
}

#endif
