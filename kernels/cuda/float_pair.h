/* Long sums of floats in two floats: what rounding takes from the one goes to the other, which makes some 48
 * bits without the double arithmetic that many GPUs have little of. */
#ifndef RINGGPT_CUDA_FLOAT_PAIR_H
#define RINGGPT_CUDA_FLOAT_PAIR_H

#include <math.h>

#include "kernels/cuda/language.h"

/* The sum is value + rest. Start with {0, 0}. */
typedef struct FloatPair {
  float value;
  float rest;
} FloatPair;

/* sum += x: the sum of two floats and its error, without a comparison of their sizes (D. E. Knuth, The Art of
 * Computer Programming, volume 2, 4.2.2, theorem B). */
__device__ __forceinline__ void pair_add(FloatPair *sum, float x) {
  const float total = sum->value + x;
  const float added = total - sum->value;
  sum->rest += (sum->value - (total - added)) + (x - added);
  sum->value = total;
}

/* sum *= factor. */
__device__ __forceinline__ void pair_scale(FloatPair *sum, FloatPair factor) {
  const float product = sum->value * factor.value;
  const float lost = fmaf(sum->value, factor.value, -product);
  sum->rest = lost + (sum->value * factor.rest + sum->rest * factor.value);
  sum->value = product;
}

__device__ __forceinline__ double pair_value(FloatPair sum) {
  return (double)sum.value + (double)sum.rest;
}

/* The sum rounded once. Beyond the range of floats `rest` is NaN and says nothing. */
__device__ __forceinline__ float pair_total(FloatPair sum) {
  const float total = sum.value + sum.rest;
  return total == total ? total : sum.value;
}

#endif
