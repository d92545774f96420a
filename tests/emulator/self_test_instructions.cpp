/* Self test: the cases that a GPU runs too (tests/gpu/instruction_cases.h), under many random orders, and
 * what the emulator adds: bank conflicts are counted, and what an asynchronous copy has not brought yet is
 * NaN. */
#include <math.h>

#include "self_test.h"
#include "tests/gpu/instruction_cases.h"

static void means_what_a_gpu_means(void **) {
  bool (*const cases[])(void) = {
      case_mma_of_integers,
      case_mma_accumulates_in_float,
      case_mma_of_special_numbers,
      case_load_by_rows,
      case_load_by_columns,
      case_product_through_shared_memory,
      case_groups_land_in_order,
      case_pack_rounds_to_nearest_even,
      case_philox_gives_the_known_answers,
  };
  for (int seed = 0; seed < SEEDS; seed++) {
    emulator::set_seed((uint64_t)seed);
    for (bool (*holds)(void) : cases) assert_true(holds());
  }
}

/* Rows of 64 elements all begin in the same banks; 8 more spread them. */
static void bank_conflicts_are_counted(void **) {
  emulator::instruction_counts(true);
  assert_true(case_load<false>(64));
  assert_int_equal(emulator::instruction_counts(true).conflicts, 4 * 7);
  assert_true(case_load<false>(64 + 8));
  const emulator::InstructionCounts counts = emulator::instruction_counts(true);
  assert_int_equal(counts.conflicts, 0);
  assert_int_equal(counts.load_matrices, 1);
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
      cmocka_unit_test(means_what_a_gpu_means),
      cmocka_unit_test(bank_conflicts_are_counted),
      cmocka_unit_test(copies_land_by_groups),
  };
  return cmocka_run_group_tests_name("instructions", tests, nullptr, nullptr);
}
