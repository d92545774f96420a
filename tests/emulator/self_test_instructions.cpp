/* Self test: the tensor core's product, the loading of its operands, and asynchronous copies. */
#include <math.h>
#include <stdlib.h>

#include "kernels/cuda/instructions.h"
#include "self_test.h"

enum { PADDED = 16 + 8, LANES = 32 };

/* d[i] of lane l at [l][i], for a, b and d given by the definition of the fragments. */
static __global__ void mma_kernel(float *c, const float *a, const float *b) {
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

/* Small integers, so that every order of addition gives the same float. */
static void fill(float *values, int count) {
  for (int i = 0; i < count; i++) values[i] = (float)(rand() % 33 - 16);
}

static void plain_product(float *c, const float *a, const float *b) {
  for (int i = 0; i < 16; i++)
    for (int j = 0; j < 8; j++)
      for (int k = 0; k < 16; k++) c[i * 8 + j] += a[i * 16 + k] * b[k * 8 + j];
}

static void mma_is_the_plain_product(void **) {
  float a[16 * 16], b[16 * 8], c[16 * 8], out[16 * 8];
  fill(a, 16 * 16);
  fill(b, 16 * 8);
  fill(c, 16 * 8);
  float *device_c = to_device(c, 16 * 8);
  float *device_a = to_device(a, 16 * 16);
  float *device_b = to_device(b, 16 * 8);
  LAUNCH(mma_kernel, 1, LANES, 0, nullptr, device_c, device_a, device_b);
  to_host(out, device_c, 16 * 8);
  plain_product(c, a, b);
  assert_memory_equal(out, c, sizeof c);
  CUDA(cudaFree(device_a));
  CUDA(cudaFree(device_b));
  CUDA(cudaFree(device_c));
}

/* Registers of four 8 x 8 matrices whose elements are their own number; `stride` elements from row to row. */
template <bool TRANSPOSED> static __global__ void load_kernel(unsigned *out, int stride) {
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

template <bool TRANSPOSED> static void check_load(int stride) {
  unsigned out[LANES * 4];
  unsigned *device = new_on_device<unsigned>(LANES * 4);
  LAUNCH(load_kernel<TRANSPOSED>, 1, LANES, (size_t)(LANES * stride * 2), nullptr, device, stride);
  to_host(out, device, LANES * 4);
  for (int lane = 0; lane < LANES; lane++)
    for (int m = 0; m < 4; m++) {
      const int g = lane / 4;
      const int t = 2 * (lane % 4);
      const int low = TRANSPOSED ? t * 8 + g : g * 8 + t;
      const int high = TRANSPOSED ? (t + 1) * 8 + g : g * 8 + t + 1;
      assert_int_equal(out[lane * 4 + m] & 0xFFFF, m * 64 + low);
      assert_int_equal(out[lane * 4 + m] >> 16, m * 64 + high);
    }
  CUDA(cudaFree(device));
}

static void matrices_load_by_rows_and_by_columns(void **) {
  check_load<false>(8);
  check_load<true>(8);
  check_load<false>(PADDED);
  check_load<true>(PADDED);
}

/* Rows of 64 elements all begin in the same banks; 8 more spread them. */
static void bank_conflicts_are_counted(void **) {
  emulator::instruction_counts(true);
  check_load<false>(64);
  assert_int_equal(emulator::instruction_counts(true).conflicts, 4 * 7);
  check_load<false>(64 + 8);
  const emulator::InstructionCounts counts = emulator::instruction_counts(true);
  assert_int_equal(counts.conflicts, 0);
  assert_int_equal(counts.load_matrices, 1);
}

/* Through shared memory as kernels do it: a by rows, b by rows of k and so transposed. */
static __global__ void product_kernel(float *c, const __nv_bfloat16 *a, const __nv_bfloat16 *b) {
  EXTERN_SHARED(memory);
  __nv_bfloat16 *tile_a = (__nv_bfloat16 *)memory;
  __nv_bfloat16 *tile_b = tile_a + 16 * PADDED;
  const int lane = (int)threadIdx.x;
  copy_async_16(tile_a + lane / 2 * PADDED + lane % 2 * 8, a + lane * 8, true);
  copy_async_16(tile_b + lane / 2 * PADDED + lane % 2 * 8, b + lane / 2 * 8, lane % 2 == 0);
  copy_async_commit();
  copy_async_wait<0>();
  __syncwarp();
  unsigned fa[4], fb[4];
  load_matrices(fa, tile_a + lane % 16 * PADDED + lane / 16 * 8);
  load_matrices_transposed(fb, tile_b + lane % 16 * PADDED + lane / 16 * 8);
  const unsigned first[2] = {fb[0], fb[1]};
  const unsigned zeros[2] = {fb[2], fb[3]};
  float d[4] = {};
  mma_bf16(d, fa, first);
  mma_bf16(d, fa, zeros);
  for (int e = 0; e < 4; e++) c[(lane / 4 + e / 2 * 8) * 8 + lane % 4 * 2 + e % 2] = d[e];
}

static void products_through_shared_memory_are_right(void **) {
  for (int seed = 0; seed < SEEDS; seed++) {
    emulator::set_seed((uint64_t)seed);
    float a[16 * 16], b[16 * 8], c[16 * 8] = {}, out[16 * 8];
    __nv_bfloat16 short_a[16 * 16], short_b[16 * 8];
    fill(a, 16 * 16);
    fill(b, 16 * 8);
    for (int i = 0; i < 16 * 16; i++) short_a[i] = __float2bfloat16_rn(a[i]);
    for (int i = 0; i < 16 * 8; i++) short_b[i] = __float2bfloat16_rn(b[i]);
    __nv_bfloat16 *device_a = to_device(short_a, 16 * 16);
    __nv_bfloat16 *device_b = to_device(short_b, 16 * 8);
    float *device_c = new_on_device<float>(16 * 8);
    LAUNCH(product_kernel, 1, LANES, 2 * 16 * PADDED * sizeof(__nv_bfloat16), nullptr, device_c, device_a,
           device_b);
    to_host(out, device_c, 16 * 8);
    plain_product(c, a, b);
    assert_memory_equal(out, c, sizeof c);
    CUDA(cudaFree(device_a));
    CUDA(cudaFree(device_b));
    CUDA(cudaFree(device_c));
  }
}

/* Three groups of one copy each; what has landed after waits that leave 2, 1 and 0 of them. Reads what has
 * not landed yet, so the race check must not see it. */
__attribute__((no_sanitize("thread"))) static __global__ void groups_kernel(float *out, const float *from) {
  EXTERN_SHARED(memory);
  float *tile = (float *)memory;
  for (int i = 0; i < 3; i++) {
    copy_async_16(tile + 4 * i, from + 4 * i, true);
    copy_async_commit();
  }
  copy_async_wait<2>();
  for (int i = 0; i < 3; i++) out[i] = tile[4 * i];
  copy_async_wait<1>();
  for (int i = 0; i < 3; i++) out[3 + i] = tile[4 * i + 1];
  copy_async_wait<0>();
  for (int i = 0; i < 3; i++) out[6 + i] = tile[4 * i + 2];
}

static void copies_land_by_groups(void **) {
  float values[12], out[9];
  for (int i = 0; i < 12; i++) values[i] = (float)i;
  float *from = to_device(values, 12);
  float *to = new_on_device<float>(9);
  LAUNCH(groups_kernel, 1, 1, 48, nullptr, to, from);
  to_host(out, to, 9);
  for (int wait = 0; wait < 3; wait++)
    for (int group = 0; group < 3; group++) {
      if (group <= wait)
        assert_true(out[3 * wait + group] == (float)(4 * group + wait));
      else
        assert_true(isnan(out[3 * wait + group]));
    }
  CUDA(cudaFree(from));
  CUDA(cudaFree(to));
}

int test_instructions(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(mma_is_the_plain_product),
      cmocka_unit_test(matrices_load_by_rows_and_by_columns),
      cmocka_unit_test(bank_conflicts_are_counted),
      cmocka_unit_test(products_through_shared_memory_are_right),
      cmocka_unit_test(copies_land_by_groups),
  };
  return cmocka_run_group_tests_name("instructions", tests, nullptr, nullptr);
}
