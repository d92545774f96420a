/* The wrapped instructions of kernels/cuda/instructions.h, each against the plain definition that stands
 * there: the same cases on a GPU and under the emulator, which thereby mean the same. A case says what is
 * wrong and returns false. Compiled by nvcc, or by g++ with the emulator. */
#ifndef RINGGPT_GPU_INSTRUCTION_CASES_H
#define RINGGPT_GPU_INSTRUCTION_CASES_H

#include <curand_philox4x32_x.h>
#include <math.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/instructions.h"

enum { CASE_LANES = 32, CASE_PADDED = 16 + 8, CASE_SIZE_A = 16 * 16, CASE_SIZE_B = 16 * 8 };

__attribute__((format(printf, 1, 2))) static bool case_fails(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  (void)vfprintf(stderr, format, arguments);
  va_end(arguments);
  (void)fputc('\n', stderr);
  return false;
}

/* ---------------------------------------------------------------- device memory */

static void case_need(cudaError_t code, const char *what) {
  if (code == cudaSuccess) return;
  (void)case_fails("%s: %s", what, cudaGetErrorString(code));
  exit(EXIT_FAILURE);
}

/* Device memory of `bytes`: a copy of `host`, or zeros without one. Release it by cudaFree. */
static void *case_memory(const void *host, size_t bytes) {
  void *memory = nullptr;
  case_need(cudaMalloc(&memory, bytes), "cudaMalloc");
  if (host != nullptr) {
    case_need(cudaMemcpy(memory, host, bytes, cudaMemcpyHostToDevice), "cudaMemcpy");
  } else {
    case_need(cudaMemset(memory, 0, bytes), "cudaMemset");
  }
  return memory;
}

/* Waits for the kernel and copies its results. */
static void case_results(void *host, const void *memory, size_t bytes) {
  case_need(cudaGetLastError(), "launch");
  case_need(cudaDeviceSynchronize(), "kernel");
  case_need(cudaMemcpy(host, memory, bytes, cudaMemcpyDeviceToHost), "cudaMemcpy");
}

/* ---------------------------------------------------------------- mma */

/* c += a b for one tile, by the layout of the fragments. */
static __global__ void case_mma_kernel(float *c, const float *a, const float *b) {
  const int g = (int)threadIdx.x / 4;
  const int t = 2 * ((int)threadIdx.x % 4);
  unsigned fa[4], fb[2];
  float d[4];
  for (int r = 0; r < 4; r++) {
    const float *from = a + (g + 8 * (r % 2)) * 16 + t + 8 * (r / 2);
    fa[r] = pack_bf16(from[0], from[1]);
  }
  for (int r = 0; r < 2; r++) fb[r] = pack_bf16(b[(t + 8 * r) * 8 + g], b[(t + 8 * r + 1) * 8 + g]);
  for (int e = 0; e < 4; e++) d[e] = c[(g + e / 2 * 8) * 8 + t + e % 2];
  mma_bf16(d, fa, fb);
  for (int e = 0; e < 4; e++) c[(g + e / 2 * 8) * 8 + t + e % 2] = d[e];
}

struct CaseTile {
  float a[CASE_SIZE_A], b[CASE_SIZE_B], c[CASE_SIZE_B];
};

static void case_multiply(const CaseTile *tile, float *out) {
  float *a = (float *)case_memory(tile->a, sizeof tile->a);
  float *b = (float *)case_memory(tile->b, sizeof tile->b);
  float *c = (float *)case_memory(tile->c, sizeof tile->c);
  LAUNCH(case_mma_kernel, 1, CASE_LANES, 0, nullptr, c, a, b);
  case_results(out, c, sizeof tile->c);
  case_need(cudaFree(a), "cudaFree");
  case_need(cudaFree(b), "cudaFree");
  case_need(cudaFree(c), "cudaFree");
}

/* The plain product in double, and the sum of the sizes of its terms. */
static double case_element(const CaseTile *tile, int i, int j, double *size) {
  double sum = tile->c[i * 8 + j];
  *size = fabs(sum);
  for (int k = 0; k < 16; k++) {
    const double term = (double)tile->a[i * 16 + k] * (double)tile->b[k * 8 + j];
    sum += term;
    *size += fabs(term);
  }
  return sum;
}

/* `bound` times the sum of the terms' sizes may be missed. */
static bool case_compare(const CaseTile *tile, const float *got, double bound) {
  for (int i = 0; i < 16; i++) {
    for (int j = 0; j < 8; j++) {
      double size = 0;
      const double wanted = case_element(tile, i, j, &size);
      const double error = fabs((double)got[i * 8 + j] - wanted);
      if (error <= bound * size) continue;
      return case_fails("element [%d][%d] is %.9g, not %.9g", i, j, (double)got[i * 8 + j], wanted);
    }
  }
  return true;
}

static float case_integer(void) {
  return (float)(rand() % 33 - 16);
}

/* A bf16 number of magnitude 2^-8 ... 2^8. */
static float case_number(void) {
  const float mantissa = 1.0f + (float)(rand() % 128) / 128.0f;
  return ldexpf(rand() % 2 ? mantissa : -mantissa, rand() % 17 - 8);
}

static void case_fill(float *values, int count, float (*draw)(void)) {
  for (int i = 0; i < count; i++) values[i] = draw();
}

/* Small integers: every order of addition gives the same float. */
static bool case_mma_of_integers(void) {
  CaseTile tile;
  float out[CASE_SIZE_B];
  case_fill(tile.a, CASE_SIZE_A, case_integer);
  case_fill(tile.b, CASE_SIZE_B, case_integer);
  case_fill(tile.c, CASE_SIZE_B, case_integer);
  case_multiply(&tile, out);
  return case_compare(&tile, out, 0);
}

/* Products are exact and sums are float with a rounding whose direction is not documented: 16 additions, each
 * wrong by 2^-23 of the largest term at most. */
static bool case_mma_accumulates_in_float(void) {
  for (int turn = 0; turn < 50; turn++) {
    CaseTile tile;
    float out[CASE_SIZE_B];
    case_fill(tile.a, CASE_SIZE_A, case_number);
    case_fill(tile.b, CASE_SIZE_B, case_number);
    case_fill(tile.c, CASE_SIZE_B, case_number);
    case_multiply(&tile, out);
    if (!case_compare(&tile, out, 16 * ldexp(1, -23))) return false;
  }
  return true;
}

/* An infinity and a NaN stay in their row, and numbers below the normal ones count. */
static bool case_mma_of_special_numbers(void) {
  CaseTile tile = {};
  float out[CASE_SIZE_B];
  for (int k = 0; k < 16; k++) tile.b[k * 8] = 1;
  tile.a[0] = INFINITY;
  tile.a[1 * 16 + 3] = NAN;
  tile.a[2 * 16 + 5] = ldexpf(1, -130);
  tile.c[3 * 8] = -INFINITY;
  case_multiply(&tile, out);
  if (!(out[0] == INFINITY)) return case_fails("1 x infinity is %g", (double)out[0]);
  if (!isnan(out[8])) return case_fails("1 x NaN is %g", (double)out[8]);
  if (out[16] != ldexpf(1, -130)) return case_fails("1 x 2^-130 is %g", (double)out[16]);
  if (out[24] != -INFINITY) return case_fails("-infinity + 0 is %g", (double)out[24]);
  return out[32] == 0 || case_fails("a row without them is %g", (double)out[32]);
}

/* ---------------------------------------------------------------- ldmatrix */

/* Registers of four 8 x 8 matrices whose elements are their own number; `stride` elements from row to row. */
template <bool TRANSPOSED> static __global__ void case_load_kernel(unsigned *out, int stride) {
  EXTERN_SHARED(memory);
  unsigned short *rows = (unsigned short *)memory;
  const int lane = (int)threadIdx.x;
  for (int i = 0; i < 8; i++) rows[lane * stride + i] = (unsigned short)(lane * 8 + i);
  __syncwarp();
  unsigned r[4];
  if (TRANSPOSED)
    load_matrices_transposed(r, rows + lane * stride);
  else
    load_matrices(r, rows + lane * stride);
  for (int m = 0; m < 4; m++) out[lane * 4 + m] = r[m];
}

template <bool TRANSPOSED> static bool case_load(int stride) {
  unsigned out[CASE_LANES * 4];
  unsigned *memory = (unsigned *)case_memory(nullptr, sizeof out);
  LAUNCH(case_load_kernel<TRANSPOSED>, 1, CASE_LANES, (size_t)(CASE_LANES * stride * 2), nullptr, memory,
         stride);
  case_results(out, memory, sizeof out);
  case_need(cudaFree(memory), "cudaFree");
  for (int lane = 0; lane < CASE_LANES; lane++) {
    for (int m = 0; m < 4; m++) {
      const int g = lane / 4;
      const int t = 2 * (lane % 4);
      const unsigned low = (unsigned)(m * 64 + (TRANSPOSED ? t * 8 + g : g * 8 + t));
      const unsigned high = (unsigned)(m * 64 + (TRANSPOSED ? (t + 1) * 8 + g : g * 8 + t + 1));
      if (out[lane * 4 + m] == (high << 16 | low)) continue;
      return case_fails("stride %d, lane %d, register %d: %08x", stride, lane, m, out[lane * 4 + m]);
    }
  }
  return true;
}

static bool case_load_by_rows(void) {
  return case_load<false>(8) && case_load<false>(CASE_PADDED) && case_load<false>(72);
}

static bool case_load_by_columns(void) {
  return case_load<true>(8) && case_load<true>(CASE_PADDED) && case_load<true>(72);
}

/* ---------------------------------------------------------------- cp.async */

/* Through shared memory as kernels do it: a by rows, b by rows of k and so transposed. The lanes that are not
 * valid give an address that must not be read, and get zeros. */
static __global__ void case_product_kernel(float *c, const __nv_bfloat16 *a, const __nv_bfloat16 *b) {
  EXTERN_SHARED(memory);
  __nv_bfloat16 *tile_a = (__nv_bfloat16 *)memory;
  __nv_bfloat16 *tile_b = tile_a + 16 * CASE_PADDED;
  const int lane = (int)threadIdx.x;
  const bool valid = lane % 2 == 0;
  copy_async_16(tile_a + lane / 2 * CASE_PADDED + lane % 2 * 8, a + lane * 8, true);
  copy_async_16(tile_b + lane / 2 * CASE_PADDED + lane % 2 * 8, valid ? b + lane / 2 * 8 : nullptr, valid);
  copy_async_commit();
  copy_async_wait<0>();
  __syncwarp();
  unsigned fa[4], fb[4];
  load_matrices(fa, tile_a + lane % 16 * CASE_PADDED + lane / 16 * 8);
  load_matrices_transposed(fb, tile_b + lane % 16 * CASE_PADDED + lane / 16 * 8);
  const unsigned first[2] = {fb[0], fb[1]};
  const unsigned zeros[2] = {fb[2], fb[3]};
  float d[4] = {};
  mma_bf16(d, fa, first);
  mma_bf16(d, fa, zeros);
  for (int e = 0; e < 4; e++) c[(lane / 4 + e / 2 * 8) * 8 + lane % 4 * 2 + e % 2] = d[e];
}

static bool case_product_through_shared_memory(void) {
  CaseTile tile = {};
  float out[CASE_SIZE_B];
  __nv_bfloat16 short_a[CASE_SIZE_A], short_b[CASE_SIZE_B];
  case_fill(tile.a, CASE_SIZE_A, case_integer);
  case_fill(tile.b, CASE_SIZE_B, case_integer);
  for (int i = 0; i < CASE_SIZE_A; i++) short_a[i] = __float2bfloat16_rn(tile.a[i]);
  for (int i = 0; i < CASE_SIZE_B; i++) short_b[i] = __float2bfloat16_rn(tile.b[i]);
  __nv_bfloat16 *a = (__nv_bfloat16 *)case_memory(short_a, sizeof short_a);
  __nv_bfloat16 *b = (__nv_bfloat16 *)case_memory(short_b, sizeof short_b);
  float *c = (float *)case_memory(nullptr, sizeof out);
  LAUNCH(case_product_kernel, 1, CASE_LANES, 2 * 16 * CASE_PADDED * sizeof(__nv_bfloat16), nullptr, c, a, b);
  case_results(out, c, sizeof out);
  case_need(cudaFree(a), "cudaFree");
  case_need(cudaFree(b), "cudaFree");
  case_need(cudaFree(c), "cudaFree");
  return case_compare(&tile, out, 0);
}

/* One group a copy. Behind a wait that leaves 2, 1 and 0 groups the first, second and third copy must be
 * there; what the others hold is not read. */
static __global__ void case_groups_kernel(float *out, const float *from) {
  EXTERN_SHARED(memory);
  float *tile = (float *)memory + (size_t)threadIdx.x * 12;
  const float *own = from + (size_t)threadIdx.x * 12;
  for (int i = 0; i < 3; i++) {
    copy_async_16(tile + 4 * i, own + 4 * i, true);
    copy_async_commit();
  }
  float sum[3];
  copy_async_wait<2>();
  sum[0] = tile[0] + tile[3];
  copy_async_wait<1>();
  sum[1] = tile[4] + tile[7];
  copy_async_wait<0>();
  sum[2] = tile[8] + tile[11];
  for (int i = 0; i < 3; i++) out[threadIdx.x * 3 + i] = sum[i];
}

static bool case_groups_land_in_order(void) {
  enum { THREADS = 128 };
  float values[THREADS * 12], out[THREADS * 3];
  for (int i = 0; i < THREADS * 12; i++) values[i] = (float)i;
  float *from = (float *)case_memory(values, sizeof values);
  float *to = (float *)case_memory(nullptr, sizeof out);
  LAUNCH(case_groups_kernel, 1, THREADS, sizeof values, nullptr, to, from);
  case_results(out, to, sizeof out);
  case_need(cudaFree(from), "cudaFree");
  case_need(cudaFree(to), "cudaFree");
  for (int i = 0; i < THREADS * 3; i++) {
    const float wanted = (float)(2 * 4 * i + 3);
    if (out[i] != wanted) return case_fails("sum %d is %g, not %g", i, (double)out[i], (double)wanted);
  }
  return true;
}

/* ---------------------------------------------------------------- rounding */

static __global__ void case_pack_kernel(unsigned *out, const float *low, const float *high, int count) {
  const int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < count) out[i] = pack_bf16(low[i], high[i]);
}

static float case_bf16(unsigned bits) {
  const unsigned wide = bits << 16;
  float value;
  memcpy(&value, &wide, sizeof value);
  return value;
}

/* Of every two neighbours: themselves, their middle and what is just beside it. Four floats and what each
 * rounds to. */
static void case_neighbours(unsigned bits, float *x, unsigned *wanted) {
  const float low = case_bf16(bits);
  const float high = case_bf16(bits + 1);
  const float middle = (float)(((double)low + (double)high) / 2);
  const float values[4] = {low, middle, nextafterf(middle, low), nextafterf(middle, high)};
  const unsigned rounded[4] = {bits, bits % 2 ? bits + 1 : bits, bits, bits + 1};
  memcpy(x, values, sizeof values);
  memcpy(wanted, rounded, sizeof rounded);
}

/* The lower half gets the numbers, the upper half their negatives. */
static bool case_pack_rounds_to_nearest_even(void) {
  enum { NUMBERS = 0x7F7F, COUNT = 4 * NUMBERS };
  static float low[COUNT], high[COUNT];
  static unsigned wanted[COUNT], out[COUNT];
  for (unsigned bits = 0; bits < NUMBERS; bits++) case_neighbours(bits, low + 4 * bits, wanted + 4 * bits);
  for (int i = 0; i < COUNT; i++) high[i] = -low[i];
  float *device_low = (float *)case_memory(low, sizeof low);
  float *device_high = (float *)case_memory(high, sizeof high);
  unsigned *device_out = (unsigned *)case_memory(nullptr, sizeof out);
  LAUNCH(case_pack_kernel, (COUNT + 127) / 128, 128, 0, nullptr, device_out, device_low, device_high, COUNT);
  case_results(out, device_out, sizeof out);
  case_need(cudaFree(device_low), "cudaFree");
  case_need(cudaFree(device_high), "cudaFree");
  case_need(cudaFree(device_out), "cudaFree");
  for (int i = 0; i < COUNT; i++) {
    if (out[i] == ((wanted[i] | 0x8000u) << 16 | wanted[i])) continue;
    return case_fails("%a and its negative give %08x", (double)low[i], out[i]);
  }
  return true;
}

/* ---------------------------------------------------------------- random numbers */

static __global__ void case_philox_kernel(uint4 *out) {
  out[0] = curand_Philox4x32_10(make_uint4(0, 0, 0, 0), make_uint2(0, 0));
  out[1] = curand_Philox4x32_10(make_uint4(~0u, ~0u, ~0u, ~0u), make_uint2(~0u, ~0u));
  out[2] = curand_Philox4x32_10(make_uint4(0x243f6a88u, 0x85a308d3u, 0x13198a2eu, 0x03707344u),
                                make_uint2(0xa4093822u, 0x299f31d0u));
}

/* The vectors that the authors of the generator publish (Random123, kat_vectors). */
static bool case_philox_gives_the_known_answers(void) {
  static const unsigned wanted[12] = {0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u,
                                      0x408f276du, 0x41c83b0eu, 0xa20bc7c6u, 0x6d5451fdu,
                                      0xd16cfe09u, 0x94fdccebu, 0x5001e420u, 0x24126ea1u};
  unsigned out[12];
  uint4 *memory = (uint4 *)case_memory(nullptr, sizeof out);
  LAUNCH(case_philox_kernel, 1, 1, 0, nullptr, memory);
  case_results(out, memory, sizeof out);
  case_need(cudaFree(memory), "cudaFree");
  for (int i = 0; i < 12; i++) {
    if (out[i] != wanted[i]) return case_fails("word %d is %08x, not %08x", i, out[i], wanted[i]);
  }
  return true;
}

#endif
