/* Places in an arena: buffers that are in use at the same time never overlap, others share bytes, sizes do
 * not wrap. */
#include "kernels/base/arena.h"

#include <stdbool.h>

#include "tests/support/compare.h"
#include "tests/support/unit.h"

static bool overlap(const ArenaBuffer *a, const ArenaBuffer *b) {
  return a->offset < b->offset + b->bytes && b->offset < a->offset + a->bytes;
}

static void check_places(const ArenaBuffer *buffers, int count, size_t bytes) {
  for (int i = 0; i < count; i++) {
    assert_int_equal(buffers[i].offset % ARENA_ALIGNMENT, 0);
    assert_true(buffers[i].offset + buffers[i].bytes <= bytes);
    for (int j = 0; j < i; j++) {
      if ((buffers[i].times & buffers[j].times) != 0) assert_false(overlap(&buffers[i], &buffers[j]));
    }
  }
}

static void test_random(void **state) {
  (void)state;
  Random random = {11};
  int tight = 0;
  for (int round = 0; round < 500; round++) {
    ArenaBuffer buffers[ARENA_BUFFERS];
    const int count = 1 + (int)random_below(&random, ARENA_BUFFERS);
    for (int i = 0; i < count; i++) {
      const int64_t first = random_below(&random, 16);
      const uint32_t length = 1U + (uint32_t)random_below(&random, 4);
      buffers[i] = (ArenaBuffer){.bytes = (size_t)random_below(&random, 5000),
                                 .times = ((1U << length) - 1U) << first};
    }
    const size_t bytes = arena_place(buffers, count);
    const size_t least = arena_least(buffers, count);
    check_places(buffers, count, bytes);
    assert_true(least <= bytes);
    /* Sharing is what it is for. */
    assert_true(bytes <= 2 * least);
    tight += bytes == least;
  }
  assert_true(tight > 100);
}

static void test_sharing(void **state) {
  (void)state;
  ArenaBuffer buffers[] = {{.bytes = 1000, .times = 1},
                           {.bytes = 3000, .times = 2},
                           {.bytes = 500, .times = 3},
                           {.bytes = 0, .times = 3}};
  assert_int_equal(arena_place(buffers, 4), 3072 + 512);
  assert_int_equal(buffers[0].offset, 0);
  assert_int_equal(buffers[1].offset, 0);
  assert_int_equal(buffers[2].offset, 3072);
  assert_int_equal(arena_least(buffers, 4), 3072 + 512);
  assert_int_equal(arena_place(buffers, 0), 0);
}

static void test_too_large(void **state) {
  (void)state;
  ArenaBuffer buffers[] = {{.bytes = SIZE_MAX / 2 + 1, .times = 1}, {.bytes = SIZE_MAX / 2 + 1, .times = 1}};
  assert_true(arena_place(buffers, 2) == ARENA_TOO_LARGE);
  assert_true(arena_least(buffers, 2) == ARENA_TOO_LARGE);
  buffers[0].bytes = ARENA_TOO_LARGE;
  assert_true(arena_place(buffers, 1) == ARENA_TOO_LARGE);
  assert_true(arena_times(SIZE_MAX / 2 + 1, 2) == ARENA_TOO_LARGE);
  assert_true(arena_times(ARENA_TOO_LARGE, 2) == ARENA_TOO_LARGE);
  assert_true(arena_plus(ARENA_TOO_LARGE, 1) == ARENA_TOO_LARGE);
  assert_int_equal(arena_plus(arena_times(3, 5), 2), 17);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_random), cmocka_unit_test(test_sharing),
                                     cmocka_unit_test(test_too_large)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
