/* Host memory: alignment, zeros, sizes that wrap, more than the machine has. */
#include "kernels/base/memory.h"

#include <stdlib.h>

#include "tests/support/expect.h"
#include "tests/support/unit.h"

static void test_blocks(void **state) {
  (void)state;
  const size_t counts[] = {0, 1, 63, 64, 65, 100000};
  for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
    Error error = {0};
    void *block = NULL;
    expect_ok(memory_alloc(counts[i], 3, "a block", &block, &error), &error);
    assert_non_null(block);
    assert_int_equal((uintptr_t)block % MEMORY_ALIGNMENT, 0);
    const unsigned char *bytes = block;
    for (size_t j = 0; j < 3 * counts[i]; j++) assert_int_equal(bytes[j], 0);
    free(block);
  }
}

static void check_refused(size_t count, size_t size) {
  Error error = {0};
  int there = 0;
  void *block = &there;
  expect_error(memory_alloc(count, size, "the block", &block, &error), &error, STATUS_SYSTEM, "the block");
  assert_null(block);
}

static void test_refused(void **state) {
  (void)state;
  check_refused(SIZE_MAX, 2);
  check_refused(SIZE_MAX, 1);
  check_refused(SIZE_MAX / 8 + 1, 8);
  check_refused((size_t)1 << 44, 1);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_blocks), cmocka_unit_test(test_refused)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
