/* What control groups leave a process, from made-up files of both versions. */
#include "kernels/base/cgroup.h"

#include <string.h>

#include "kernels/base/memory.h"
#include "tests/support/temp_dir.h"
#include "tests/support/unit.h"

static void write_file(void **state, const char *path, const char *text) {
  temp_file_write_text(temp_dir_path(*state, path), text);
}

static size_t left(void **state, const char *membership, const char *root) {
  char groups[4096];
  write_file(state, "membership", membership);
  (void)strncpy(groups, temp_dir_path(*state, root), sizeof groups - 1);
  groups[sizeof groups - 1] = '\0';
  return cgroup_memory_left(temp_dir_path(*state, "membership"), groups);
}

/* The limit of a group around the own one holds, and files in the cache do not count. */
static void test_second_version(void **state) {
  write_file(state, "v2/job/memory.max", "1000000\n");
  write_file(state, "v2/job/memory.current", "700000\n");
  write_file(state, "v2/job/memory.stat", "anon 1\ninactive_file 200000\nactive_file 5\n");
  write_file(state, "v2/job/step/memory.max", "max\n");
  write_file(state, "v2/job/step/memory.current", "600000\n");
  assert_int_equal(left(state, "0::/job/step\n", "v2"), 500000);
  assert_int_equal(left(state, "0::/job\n", "v2"), 500000);
  assert_true(left(state, "0::/other\n", "v2") == SIZE_MAX);
  assert_true(left(state, "0::/\n", "v2") == SIZE_MAX);
  write_file(state, "v2/job/step/memory.max", "650000\n");
  assert_int_equal(left(state, "0::/job/step\n", "v2"), 50000);
  write_file(state, "v2/job/step/memory.current", "650001\n");
  assert_int_equal(left(state, "0::/job/step\n", "v2"), 0);
}

/* In a container the root has the limit, and the path of the own group may not be there. */
static void test_container(void **state) {
  write_file(state, "c2/memory.max", "4096\n");
  write_file(state, "c2/memory.current", "96\n");
  assert_int_equal(left(state, "0::/\n", "c2"), 4000);
  write_file(state, "c1/memory/memory.limit_in_bytes", "8192\n");
  write_file(state, "c1/memory/memory.usage_in_bytes", "192\n");
  assert_int_equal(left(state, "5:cpu,memory:/docker/0123\n0::/system\n", "c1"), 8000);
}

static void test_first_version(void **state) {
  write_file(state, "v1/memory/memory.limit_in_bytes", "9223372036854771712\n");
  write_file(state, "v1/memory/memory.usage_in_bytes", "123\n");
  write_file(state, "v1/memory/a/memory.limit_in_bytes", "5000\n");
  write_file(state, "v1/memory/a/memory.usage_in_bytes", "2000\n");
  write_file(state, "v1/memory/a/memory.stat", "inactive_file 7\ntotal_inactive_file 500\n");
  assert_int_equal(left(state, "7:memory:/a\n1:cpu:/b\n", "v1"), 3500);
  assert_true(left(state, "7:memory:/\n", "v1") > (size_t)1 << 60);
  assert_true(left(state, "7:memoryless,xmemory:/a\n", "v1") == SIZE_MAX);
}

static void test_nothing_to_read(void **state) {
  assert_true(cgroup_memory_left("/nowhere/cgroup", "/nowhere") == SIZE_MAX);
  assert_true(left(state, "", "v2") == SIZE_MAX);
  assert_true(left(state, "not a line\n12:also none\n", "v2") == SIZE_MAX);
  assert_true(memory_available() > 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_second_version), cmocka_unit_test(test_container),
                                     cmocka_unit_test(test_first_version),
                                     cmocka_unit_test(test_nothing_to_read)};
  return cmocka_run_group_tests(tests, temp_dir_set_up, temp_dir_tear_down);
}
