/* Self test: bfloat16, integer functions and Philox, each against its definition. */
#include <curand_philox4x32_x.h>
#include <math.h>

#include "kernels/cuda/instructions.h"
#include "self_test.h"

static float value_of(unsigned short bits) {
  return __bfloat162float(__ushort_as_bfloat16(bits));
}

/* Of every two neighbours, both themselves, their middle and what is just beside it. */
static void rounds_to_nearest_even(void **) {
  for (unsigned bits = 0; bits < 0x7F7F; bits++) {
    const float low = value_of((unsigned short)bits);
    const float high = value_of((unsigned short)(bits + 1));
    const float middle = (float)(((double)low + (double)high) / 2);
    const unsigned even = bits % 2 ? bits + 1 : bits;
    assert_int_equal(__float2bfloat16_rn(low).bits, bits);
    assert_int_equal(__float2bfloat16_rn(middle).bits, even);
    assert_int_equal(__float2bfloat16_rn(nextafterf(middle, low)).bits, bits);
    assert_int_equal(__float2bfloat16_rn(nextafterf(middle, high)).bits, bits + 1);
    assert_int_equal(__float2bfloat16_rn(-middle).bits, even | 0x8000u);
  }
}

static void special_values_stay(void **) {
  assert_int_equal(__float2bfloat16_rn(INFINITY).bits, 0x7F80);
  assert_int_equal(__float2bfloat16_rn(-INFINITY).bits, 0xFF80);
  assert_int_equal(__float2bfloat16_rn(3.4028235e38f).bits, 0x7F80);
  const unsigned nans[] = {0x7F800001u, 0x7FFFFFFFu, 0xFF800001u, 0xFFFFFFFFu};
  for (unsigned bits : nans) assert_int_equal(__float2bfloat16_rn(__uint_as_float(bits)).bits, 0x7FFF);
  assert_true(isnan(value_of(0x7FFF)) && isnan(value_of(0xFFFF)));
}

static void pairs_have_the_first_below(void **) {
  assert_int_equal(pack_bf16(1.0f, -2.0f), 0xC0003F80u);
  const __nv_bfloat162 pair = __floats2bfloat162_rn(1.0f, -2.0f);
  assert_true(__low2float(pair) == 1.0f && __high2float(pair) == -2.0f);
  const float2 floats = __bfloat1622float2(pair);
  assert_true(floats.x == 1.0f && floats.y == -2.0f);
}

static void counts_bits(void **) {
  assert_int_equal(__popc(0xF0F00001u), 9);
  assert_int_equal(__clz(0), 32);
  assert_int_equal(__clz(1), 31);
  assert_int_equal(__ffs(0), 0);
  assert_int_equal(__ffs(8), 4);
  assert_true(__brev(0x00000003u) == 0xC0000000u);
  assert_true(__umulhi(0xFFFFFFFFu, 0xFFFFFFFFu) == 0xFFFFFFFEu);
  assert_true(__umul64hi(~0ull, ~0ull) == ~0ull - 1);
  assert_int_equal(__mulhi(-1, 1), -1);
}

/* The vectors that the authors of the generator publish (Random123, kat_vectors). */
static void philox_gives_the_known_answers(void **) {
  const uint4 zero = curand_Philox4x32_10(make_uint4(0, 0, 0, 0), make_uint2(0, 0));
  assert_true(zero.x == 0x6627e8d5u && zero.y == 0xe169c58du && zero.z == 0xbc57ac4cu &&
              zero.w == 0x9b00dbd8u);
  const uint4 ones = curand_Philox4x32_10(make_uint4(~0u, ~0u, ~0u, ~0u), make_uint2(~0u, ~0u));
  assert_true(ones.x == 0x408f276du && ones.y == 0x41c83b0eu && ones.z == 0xa20bc7c6u &&
              ones.w == 0x6d5451fdu);
  const uint4 digits = curand_Philox4x32_10(make_uint4(0x243f6a88u, 0x85a308d3u, 0x13198a2eu, 0x03707344u),
                                            make_uint2(0xa4093822u, 0x299f31d0u));
  assert_true(digits.x == 0xd16cfe09u && digits.y == 0x94fdccebu && digits.z == 0x5001e420u &&
              digits.w == 0x24126ea1u);
}

int test_arithmetic(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(rounds_to_nearest_even),         cmocka_unit_test(special_values_stay),
      cmocka_unit_test(pairs_have_the_first_below),     cmocka_unit_test(counts_bits),
      cmocka_unit_test(philox_gives_the_known_answers),
  };
  return cmocka_run_group_tests_name("arithmetic", tests, nullptr, nullptr);
}
