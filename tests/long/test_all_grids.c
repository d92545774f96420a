/* The full product of grids, for both families, with and without documents, on lengths that divide and do
 * not: every run against that of one rank. */
#include "tests/support/grids.h"
#include "tests/support/temp_dir.h"
#include "tests/support/unit.h"

static void run_product(void **state, const char *name, const char *const overrides[]) {
  const GridCase grids[] = {{2, 1}, {3, 1}, {4, 1}, {8, 1}, {1, 2}, {2, 2}, {3, 2}, {4, 2}, {8, 2}};
  grids_compare(training_directory(state), name, overrides, grids, sizeof grids / sizeof grids[0]);
}

static void test_llama_documents(void **state) {
  const char *const overrides[] = {NULL};
  run_product(state, "llama-documents", overrides);
}

static void test_llama_odd_length(void **state) {
  const char *const overrides[] = {"data.document_mask=false", "train.sequence_length=101", NULL};
  run_product(state, "llama-odd", overrides);
}

static void test_llama_window_recompute(void **state) {
  const char *const overrides[] = {"model.sliding_window=17", "train.recompute=true",
                                   "train.sequence_length=90", NULL};
  run_product(state, "llama-window", overrides);
}

static void test_gpt2(void **state) {
  run_product(state, "gpt2", grids_gpt2_overrides());
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_llama_documents),
      cmocka_unit_test(test_llama_odd_length),
      cmocka_unit_test(test_llama_window_recompute),
      cmocka_unit_test(test_gpt2),
  };
  return cmocka_run_group_tests(tests, training_set_up, temp_dir_tear_down);
}
