/* The whole model on the CUDA device against the float64 reference, in fp32 and in bf16, on one rank and on
 * rings of ranks that share the device: loss, the loss of every token, every gradient tensor. */
#include "tests/support/device_model.h"
#include "tests/support/expect.h"
#include "tests/support/gpt_case.h"
#include "tests/support/unit.h"

static const int grids[][2] = {{1, 1}, {2, 1}, {2, 2}, {4, 1}};

static void test_gpt2(void **state) {
  (void)state;
  test_device_need_cuda();
  device_model_check_gpt2(TEST_CUDA_F32, grids, 4);
}

static void test_gpt2_bf16(void **state) {
  (void)state;
  test_device_need_cuda();
  device_model_check_gpt2(TEST_CUDA_BF16, grids, 3);
}

static void test_llama(void **state) {
  (void)state;
  test_device_need_cuda();
  device_model_check_llama(TEST_CUDA_F32, grids, 3);
}

static void test_llama_bf16(void **state) {
  (void)state;
  test_device_need_cuda();
  device_model_check_llama(TEST_CUDA_BF16, grids, 3);
}

/* Dropout's masks are those of the reference, which draws them by itself. */
static void test_dropout(void **state) {
  (void)state;
  test_device_need_cuda();
  const GptCase test = {.config = gpt2_config(1, 2, 8),
                        .sequences = 2,
                        .sequence_length = 33,
                        .loss_chunk = 64,
                        .threads = 1,
                        .dropout = 0.2,
                        .seed = 5,
                        .first_draw = 3,
                        .device = TEST_CUDA_F32};
  gpt_case_check("GPT-2 with dropout", &test, grids, 2);
}

/* Two runs on the same grid give the same bits. */
static void test_same_bits(void **state) {
  (void)state;
  test_device_need_cuda();
  const GptCase test = {.config = llama_config(1, 2, 1, 16, true),
                        .sequences = 1,
                        .sequence_length = 60,
                        .loss_chunk = 64,
                        .threads = 1,
                        .device = TEST_CUDA_BF16};
  Error error = {0};
  GptResult results[2];
  for (int i = 0; i < 2; i++) expect_ok(gpt_case_run(&test, 2, 1, &results[i], &error), &error);
  assert_memory_equal(results[0].gradient, results[1].gradient,
                      (size_t)results[0].table.total * sizeof(double));
  for (int i = 0; i < 2; i++) gpt_result_free(&results[i]);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_gpt2),       cmocka_unit_test(test_gpt2_bf16), cmocka_unit_test(test_llama),
      cmocka_unit_test(test_llama_bf16), cmocka_unit_test(test_dropout),   cmocka_unit_test(test_same_bits),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
