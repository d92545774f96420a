/* The built-in functions of CUDA C that compute from their arguments alone. The approximate ones are computed
 * with full accuracy here: a GPU differs from it by its own error, and tests must leave room for that. */
#ifndef RINGGPT_EMULATED_ARITHMETIC_H
#define RINGGPT_EMULATED_ARITHMETIC_H

#include <math.h>
#include <string.h>

/* The bits of `from` as another type of the same size. */
template <typename To, typename From> static inline To emulated_bits(From from) {
  static_assert(sizeof(To) == sizeof(From), "types of one size");
  To to;
  memcpy(&to, &from, sizeof to);
  return to;
}

#define EMULATED_FUNCTION1(result, name, type, value)                                                        \
  static inline result name(type x) {                                                                        \
    return value;                                                                                            \
  }
#define EMULATED_FUNCTION2(result, name, type, value)                                                        \
  static inline result name(type x, type y) {                                                                \
    return value;                                                                                            \
  }

EMULATED_FUNCTION1(unsigned, __float_as_uint, float, emulated_bits<unsigned>(x))
EMULATED_FUNCTION1(float, __uint_as_float, unsigned, emulated_bits<float>(x))
EMULATED_FUNCTION1(int, __float_as_int, float, emulated_bits<int>(x))
EMULATED_FUNCTION1(float, __int_as_float, int, emulated_bits<float>(x))
EMULATED_FUNCTION1(long long, __double_as_longlong, double, emulated_bits<long long>(x))
EMULATED_FUNCTION1(double, __longlong_as_double, long long, emulated_bits<double>(x))

EMULATED_FUNCTION1(float, rsqrtf, float, 1.0f / sqrtf(x))
EMULATED_FUNCTION1(double, rsqrt, double, 1.0 / sqrt(x))
EMULATED_FUNCTION1(float, __frsqrt_rn, float, (float)(1.0 / sqrt((double)x)))
EMULATED_FUNCTION1(float, __frcp_rn, float, 1.0f / x)
EMULATED_FUNCTION1(float, __fsqrt_rn, float, sqrtf(x))
EMULATED_FUNCTION1(float, __saturatef, float, x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f)
EMULATED_FUNCTION2(float, __fdividef, float, x / y)
EMULATED_FUNCTION2(float, fdividef, float, x / y)
EMULATED_FUNCTION2(float, __fadd_rn, float, x + y)
EMULATED_FUNCTION2(float, __fsub_rn, float, x - y)
EMULATED_FUNCTION2(float, __fmul_rn, float, x *y)
EMULATED_FUNCTION2(float, __fdiv_rn, float, x / y)
EMULATED_FUNCTION2(double, __dadd_rn, double, x + y)
EMULATED_FUNCTION2(double, __dmul_rn, double, x *y)
EMULATED_FUNCTION1(float, __double2float_rn, double, (float)x)
EMULATED_FUNCTION1(float, __int2float_rn, int, (float)x)
EMULATED_FUNCTION1(float, __uint2float_rn, unsigned, (float)x)
EMULATED_FUNCTION1(int, __float2int_rn, float, (int)rintf(x))
EMULATED_FUNCTION1(int, __float2int_rz, float, (int)x)
EMULATED_FUNCTION1(int, __float2int_rd, float, (int)floorf(x))

/* Macros, because some C libraries declare functions of these names. */
#define __expf(x) expf(x)
#define __exp10f(x) exp10f(x)
#define __logf(x) logf(x)
#define __log2f(x) log2f(x)
#define __log10f(x) log10f(x)
#define __sinf(x) sinf(x)
#define __cosf(x) cosf(x)
#define __powf(x, y) powf(x, y)

static inline float __fmaf_rn(float x, float y, float z) {
  return fmaf(x, y, z);
}

EMULATED_FUNCTION1(int, __popc, unsigned, __builtin_popcount(x))
EMULATED_FUNCTION1(int, __popcll, unsigned long long, __builtin_popcountll(x))
EMULATED_FUNCTION1(int, __clz, int, x ? __builtin_clz((unsigned)x) : 32)
EMULATED_FUNCTION1(int, __clzll, long long, x ? __builtin_clzll((unsigned long long)x) : 64)
EMULATED_FUNCTION1(int, __ffs, int, __builtin_ffs(x))
EMULATED_FUNCTION1(int, __ffsll, long long, __builtin_ffsll(x))
EMULATED_FUNCTION2(unsigned, __umulhi, unsigned, (unsigned)(((unsigned long long)x * y) >> 32))
EMULATED_FUNCTION2(int, __mulhi, int, (int)(((long long)x * y) >> 32))
EMULATED_FUNCTION2(unsigned long long, __umul64hi, unsigned long long,
                   (unsigned long long)(((unsigned __int128)x * y) >> 64))

static inline unsigned __brev(unsigned x) {
  unsigned reversed = 0;
  for (int bit = 0; bit < 32; bit++) reversed |= (x >> bit & 1u) << (31 - bit);
  return reversed;
}

/* min and max of two numbers of one type; mixed types are ambiguous, as some are for nvcc. */
#define EMULATED_EXTREMES(type)                                                                              \
  EMULATED_FUNCTION2(type, min, type, x < y ? x : y)                                                         \
  EMULATED_FUNCTION2(type, max, type, x > y ? x : y)
EMULATED_EXTREMES(int)
EMULATED_EXTREMES(unsigned)
EMULATED_EXTREMES(long)
EMULATED_EXTREMES(unsigned long)
EMULATED_EXTREMES(long long)
EMULATED_EXTREMES(unsigned long long)
EMULATED_FUNCTION2(float, min, float, fminf(x, y))
EMULATED_FUNCTION2(float, max, float, fmaxf(x, y))
EMULATED_FUNCTION2(double, min, double, fmin(x, y))
EMULATED_FUNCTION2(double, max, double, fmax(x, y))

#undef EMULATED_EXTREMES
#undef EMULATED_FUNCTION1
#undef EMULATED_FUNCTION2

#endif
