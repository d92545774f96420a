/* Subnormal numbers: zero inside a device, in its owner and in its compute threads and for every
 * implementation; as they were before and after it, and in threads of other work. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/cpu_device.h"
#include "tests/support/elements.h"
#include "tests/support/expect.h"
#include "tests/support/unit.h"

enum { THREADS = 3 };

/* Whether this thread computes with subnormal numbers, as operands and as results. */
static bool keeps_operands(void) {
  volatile float small = 0x1p-140F;
  volatile float factor = 0x1p20F;
  volatile float product = small * factor;
  return product > 0.0F;
}

static bool keeps_results(void) {
  volatile float small = 0x1p-120F;
  volatile float factor = 0x1p-20F;
  volatile float product = small * factor;
  uint32_t bits = 0;
  const float value = product;
  memcpy(&bits, &value, sizeof bits);
  return bits != 0;
}

static void check_threads(bool keeping) {
  bool operands[THREADS];
  bool results[THREADS];
#pragma omp parallel for schedule(static, 1) num_threads(THREADS)
  for (int i = 0; i < THREADS; i++) {
    operands[i] = keeps_operands();
    results[i] = keeps_results();
  }
  for (int i = 0; i < THREADS; i++) {
    assert_int_equal(operands[i], keeping);
    assert_int_equal(results[i], keeping);
  }
}

static void test_owner_and_workers(void **state) {
  (void)state;
  Error error = {0};
  for (int again = 0; again < 2; again++) {
    Device *outer = NULL;
    Device *inner = NULL;
    check_threads(true);
    expect_ok(cpu_device_create(THREADS, ELEMENT_F32, &outer, &error), &error);
    check_threads(false);
    /* A second device finds the mode as it wants it, and leaves it so. */
    expect_ok(cpu_device_create(THREADS, ELEMENT_F32, &inner, &error), &error);
    device_destroy(inner);
    check_threads(false);
    device_destroy(outer);
    check_threads(true);
  }
}

/* ---------------------------------------------------------------- threads of other work */

typedef struct Other {
  pthread_barrier_t barrier;
  bool kept;
} Other;

static void *other_work(void *argument) {
  Other *other = argument;
  (void)pthread_barrier_wait(&other->barrier); /* the device is there */
  (void)pthread_barrier_wait(&other->barrier);
  other->kept = keeps_operands() && keeps_results();
  return NULL;
}

static void test_other_threads_keep_theirs(void **state) {
  (void)state;
  Other other = {.kept = false};
  Error error = {0};
  Device *device = NULL;
  pthread_t thread;
  assert_int_equal(pthread_barrier_init(&other.barrier, NULL, 2), 0);
  assert_int_equal(pthread_create(&thread, NULL, other_work, &other), 0);
  (void)pthread_barrier_wait(&other.barrier);
  expect_ok(cpu_device_create(1, ELEMENT_F32, &device, &error), &error);
  (void)pthread_barrier_wait(&other.barrier);
  assert_int_equal(pthread_join(thread, NULL), 0);
  assert_true(other.kept);
  device_destroy(device);
  (void)pthread_barrier_destroy(&other.barrier);
}

/* What the owner writes to the log and reads from files is the same. */
static void test_text_is_the_same(void **state) {
  (void)state;
  char text[64];
  char *end = NULL;
  Error error = {0};
  Device *device = NULL;
  expect_ok(cpu_device_create(1, ELEMENT_F32, &device, &error), &error);
  (void)snprintf(text, sizeof text, "%.17g", 4.9406564584124654e-324);
  const double back = strtod("4.9406564584124654e-324", &end);
  device_destroy(device);
  assert_string_equal(text, "4.9406564584124654e-324");
  assert_true(back > 0.0);
}

/* ---------------------------------------------------------------- operations */

enum { COUNT = 48 };

/* Of floats and of bf16, which have the same exponents. */
#define SUBNORMAL 0x1p-130F

/* Positive zeros, of elements or of floats. */
static void check_zeros(const Device *device, const char *what, const void *x, size_t element_bytes) {
  const unsigned char zeros[COUNT * sizeof(float)] = {0};
  if (memcmp(x, zeros, COUNT * element_bytes) != 0) fail_msg("%s of %s: not all 0", what, device->summary);
}

/* x (count) in elements: `value`, or with `diagonal` a matrix with it there and zeros elsewhere. */
static void fill(ElementType elements, int count, bool diagonal, float value, void *x) {
  float values[COUNT * COUNT];
  for (int i = 0; i < count; i++) values[i] = !diagonal || i % (COUNT + 1) == 0 ? value : 0.0F;
  elements_pack(elements, count, values, x);
}

/* Operands that are subnormal, as floats and as bf16, and results. */
static void check_elements(Device *device, ElementType elements) {
  const Ops *ops = &device->ops;
  const size_t bytes = ops->elem_size;
  float x[COUNT];
  float w[COUNT * COUNT];
  float y[COUNT];
  float out[COUNT];
  float rstd = 0;
  fill(elements, COUNT, false, SUBNORMAL, x);
  fill(elements, COUNT * COUNT, false, 0x1p20F, w);
  ops->linear_forward(device, 1, COUNT, COUNT, COUNT, x, w, NULL, y);
  check_zeros(device, "linear_forward, operands", y, bytes);
  ops->linear_backward_input(device, 1, COUNT, COUNT, COUNT, x, w, y);
  check_zeros(device, "linear_backward_input, operands", y, bytes);
  fill(elements, COUNT, false, 0x1p-100F, x);
  fill(elements, COUNT * COUNT, true, 0x1p-40F, w);
  ops->linear_forward(device, 1, COUNT, COUNT, COUNT, x, w, NULL, y);
  check_zeros(device, "linear_forward, results", y, bytes);
  fill(elements, COUNT, false, SUBNORMAL, x);
  fill(elements, COUNT, false, 1.0F, w);
  fill(elements, COUNT, false, 0.0F, y);
  ops->rmsnorm_forward(device, 1, COUNT, 1, x, y, w, out, &rstd);
  check_zeros(device, "residual of rmsnorm_forward", y, bytes);
  ops->gelu_forward(device, COUNT, x, y);
  check_zeros(device, "gelu_forward", y, bytes);
}

/* What is of floats in every table. */
static void check_floats(Device *device) {
  float x[COUNT];
  float y[COUNT] = {0};
  float m[COUNT] = {0};
  float v[COUNT] = {0};
  double sum = 0;
  const AdamwStep step = {
      .learning_rate = 1, .beta1 = 0.9F, .beta2 = 0.95F, .eps = 1, .gradient_scale = 1, .step = 1};
  fill(ELEMENT_F32, COUNT, false, SUBNORMAL, x);
  device->ops.add_f32(device, COUNT, x, y);
  check_zeros(device, "add_f32", y, sizeof y[0]);
  device->ops.adamw(device, &step, COUNT, x, y, m, v);
  check_zeros(device, "adamw, moment", m, sizeof m[0]);
  device->ops.sum_of_squares(device, COUNT, x, &sum);
  assert_true(sum == 0.0);
}

static void test_all_implementations_alike(void **state) {
  (void)state;
  static const char *const names[] = {"reference", "avx2", "avx512", NULL};
  for (size_t i = 0; i < 2 * sizeof names / sizeof names[0]; i++) {
    const char *name = names[i / 2];
    const ElementType elements = i % 2 == 0 ? ELEMENT_F32 : ELEMENT_BF16;
    Device *device = NULL;
    Error error = {0};
    assert_int_equal(name != NULL ? setenv("RINGGPT_ISA", name, 1) : unsetenv("RINGGPT_ISA"), 0);
    if (cpu_device_create(THREADS, elements, &device, &error) != STATUS_OK) continue;
    check_elements(device, elements);
    check_floats(device);
    device_destroy(device);
  }
  assert_int_equal(unsetenv("RINGGPT_ISA"), 0);
}

int main(void) {
#if defined(__SSE2__) || defined(__aarch64__)
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_owner_and_workers),
      cmocka_unit_test(test_other_threads_keep_theirs),
      cmocka_unit_test(test_text_is_the_same),
      cmocka_unit_test(test_all_implementations_alike),
  };
#else
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_text_is_the_same)};
#endif
  return cmocka_run_group_tests(tests, NULL, NULL);
}
