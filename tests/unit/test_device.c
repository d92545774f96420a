/* The device: which operations it chooses, its memory, and that it keeps the first failure. */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kernels/base/memory.h"
#include "kernels/cpu/cpu_device.h"
#include "kernels/cpu/reference.h"
#include "tests/support/unit.h"

/* A device with RINGGPT_ISA set to `isa`, unset for NULL. */
static Status create_of(ElementType elements, const char *isa, int threads, Device **device, Error *error) {
  *error = (Error){0};
  if (isa != NULL) assert_int_equal(setenv("RINGGPT_ISA", isa, 1), 0);
  const Status status = cpu_device_create(threads, elements, device, error);
  assert_int_equal(unsetenv("RINGGPT_ISA"), 0);
  return status;
}

static Status create(const char *isa, int threads, Device **device, Error *error) {
  return create_of(ELEMENT_F32, isa, threads, device, error);
}

static void check_reference(ElementType elements, void (*fill)(Ops *ops), const char *summary) {
  Error error;
  Device *device = NULL;
  assert_int_equal(create_of(elements, "reference", 2, &device, &error), STATUS_OK);
  Ops reference;
  fill(&reference);
  assert_string_equal(device->ops.name, "reference");
  const size_t names = offsetof(Ops, attention); /* equal names may lie at different places */
  assert_memory_equal((const char *)&device->ops + names, (const char *)&reference + names,
                      sizeof reference - names);
  assert_string_equal(device->summary, summary);
  assert_int_equal(device->threads, 2);
  device_destroy(device);
}

static void test_reference_is_plain_c(void **state) {
  (void)state;
  check_reference(ELEMENT_F32, reference_fill, "cpu, reference, reference products, 2 threads");
  check_reference(ELEMENT_BF16, reference_bf16_fill, "cpu bf16, reference, reference products, 2 threads");
}

/* Every name either works or is refused because the CPU lacks it; without a name the device works. */
static void test_every_instruction_set(void **state) {
  (void)state;
  static const char *const names[] = {NULL, "", "reference", "avx2", "avx512", "avx512_bf16"};
  const size_t count = sizeof names / sizeof names[0];
  for (size_t k = 0; k < 2 * count; k++) {
    Error error;
    Device *device = NULL;
    const size_t i = k % count;
    const ElementType elements = k < count ? ELEMENT_F32 : ELEMENT_BF16;
    const Status status = create_of(elements, names[i], 1, &device, &error);
    if (status != STATUS_OK) {
      assert_int_equal(status, STATUS_CONFIG);
      assert_non_null(strstr(error.text, "this CPU does not have it"));
      assert_true(i > 2);
      assert_null(device);
      continue;
    }
    if (i > 1) assert_string_equal(device->ops.name, names[i]);
    assert_non_null(strstr(device->summary, device->ops.name));
    assert_non_null(strstr(device->summary, "1 thread"));
    assert_int_equal(device->ops.elem_size, elements == ELEMENT_F32 ? 4 : 2);
    assert_int_equal(device_check(device, &error), STATUS_OK);
    device_destroy(device);
  }
}

/* Runs in a process of its own, as oneDNN fixes its instruction set at its first use: the products of the
 * first device follow RINGGPT_ISA, those of a second one stay as they are, and both say so. Returns 0 where
 * that holds. */
static int force_products(const char *first, const char *second) {
  Error error;
  Device *device = NULL;
  char used[16];
  (void)snprintf(used, sizeof used, " %s, 1", first);
  if (create(first, 1, &device, &error) != STATUS_OK) return error.status == STATUS_CONFIG ? 0 : 1;
  if (strstr(device->summary, "oneDNN") == NULL) return 0; /* a build without it */
  if (strstr(strstr(device->summary, "oneDNN"), used) == NULL) return 2;
  device_destroy(device);
  if (create(second, 1, &device, &error) != STATUS_OK) return error.status == STATUS_CONFIG ? 0 : 3;
  if (strstr(strstr(device->summary, "oneDNN"), used) == NULL) return 4;
  const float one = 1;
  float product = 0;
  device->ops.linear_forward(device, 1, 1, 1, 1, &one, &one, NULL, &product);
  if (product != 1) return 5;
  device_destroy(device);
  return 0;
}

static void test_products_follow_the_first_device(void **state) {
  (void)state;
  static const char *const orders[][2] = {{"avx2", "avx512"}, {"avx512", "avx2"}};
  for (size_t i = 0; i < sizeof orders / sizeof orders[0]; i++) {
    const pid_t child = fork();
    if (child == 0) _exit(force_products(orders[i][0], orders[i][1]));
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
  }
}

/* The table has no hole, whatever was chosen: the entries behind elem_size are pointers to functions. */
static void check_entries(ElementType elements) {
  Error error;
  Device *device = NULL;
  assert_int_equal(create_of(elements, NULL, 1, &device, &error), STATUS_OK);
  const unsigned char *at = (const unsigned char *)&device->ops;
  for (size_t i = offsetof(Ops, attention); i < sizeof(Ops); i += sizeof(void *)) {
    const unsigned char none[sizeof(void *)] = {0};
    assert_memory_not_equal(at + i, none, sizeof none);
  }
  device_destroy(device);
}

static void test_no_entry_is_missing(void **state) {
  (void)state;
  check_entries(ELEMENT_F32);
  check_entries(ELEMENT_BF16);
}

/* Products in bf16 are by instructions for it where RINGGPT_ISA, the CPU and oneDNN have them, and widened to
 * floats otherwise; the device tells, and its summary. */
static void check_bf16_products(const char *isa, bool wanted) {
  Error error;
  Device *device = NULL;
  if (create_of(ELEMENT_BF16, isa, 1, &device, &error) != STATUS_OK) {
    assert_int_equal(error.status, STATUS_CONFIG);
    return;
  }
  const char *dnnl = strstr(device->summary, "oneDNN");
  assert_int_equal(cpu_device_has_bf16(device), dnnl != NULL && wanted);
  if (dnnl != NULL) assert_int_equal(strstr(dnnl, "avx512_bf16") != NULL, wanted);
  device_destroy(device);
}

static void test_bf16_products(void **state) {
  (void)state;
  check_bf16_products("avx512_bf16", true);
  check_bf16_products("avx512", false);
  check_bf16_products("avx2", false);
  check_bf16_products("reference", false);
}

static void test_unknown_name_is_refused(void **state) {
  (void)state;
  Error error;
  Device *device = NULL;
  assert_int_equal(create("sse9", 1, &device, &error), STATUS_CONFIG);
  assert_null(device);
  assert_string_equal(error.text,
                      "RINGGPT_ISA=sse9: unknown; it may be reference, avx2, avx512 or avx512_bf16");
}

static void test_no_threads_are_refused(void **state) {
  (void)state;
  Error error;
  Device *device = NULL;
  assert_int_equal(create(NULL, 0, &device, &error), STATUS_CONFIG);
  assert_null(device);
}

static void test_memory(void **state) {
  (void)state;
  Error error;
  Device *device = NULL;
  void *memory = NULL;
  assert_int_equal(create(NULL, 1, &device, &error), STATUS_OK);
  assert_int_equal(device_alloc(device, 100, "test", &memory, &error), STATUS_OK);
  assert_int_equal((uintptr_t)memory % MEMORY_ALIGNMENT, 0);
  const char text[8] = "ringgpt";
  char back[8] = "";
  const char zeros[100] = {0};
  assert_memory_equal(memory, zeros, sizeof zeros);
  device_write(device, memory, text, sizeof text);
  device_read(device, back, memory, sizeof back);
  assert_memory_equal(back, text, sizeof text);
  device_zero(device, memory, sizeof text);
  assert_memory_equal(memory, zeros, sizeof zeros);
  device_free(device, memory);
  assert_int_equal(device_alloc(device, SIZE_MAX - 10, "test", &memory, &error), STATUS_SYSTEM);
  assert_null(memory);
  device_destroy(device);
  device_destroy(NULL);
}

static void test_first_failure_is_kept(void **state) {
  (void)state;
  Error error;
  Device *device = NULL;
  assert_int_equal(create(NULL, 1, &device, &error), STATUS_OK);
  device_fail(device, STATUS_INTERNAL, "operation %d went wrong", 1);
  device_fail(device, STATUS_INTERNAL, "operation %d went wrong", 2);
  for (int again = 0; again < 2; again++) {
    error = (Error){0};
    assert_int_equal(device_check(device, &error), STATUS_INTERNAL);
    assert_string_equal(error.text, "operation 1 went wrong");
  }
  device_destroy(device);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(
          test_products_follow_the_first_device), /* first: its processes must find oneDNN unused */
      cmocka_unit_test(test_reference_is_plain_c),
      cmocka_unit_test(test_every_instruction_set),
      cmocka_unit_test(test_no_entry_is_missing),
      cmocka_unit_test(test_bf16_products),
      cmocka_unit_test(test_unknown_name_is_refused),
      cmocka_unit_test(test_no_threads_are_refused),
      cmocka_unit_test(test_memory),
      cmocka_unit_test(test_first_failure_is_kept),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
