/* The whole model against the float64 reference: loss, the loss of every token, every gradient tensor; on one
 * rank and on grids; with documents, windows, grouped heads, padding and ranks without a valid token. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "tests/support/compare.h"
#include "tests/support/expect.h"
#include "tests/support/gpt_case.h"
#include "tests/support/unit.h"

/* Query and key gradients pass through two softmax-scaled products and lose a little more. */
static double bound_of(const char *name) {
  const bool query_or_key = strstr(name, "q_proj") != NULL || strstr(name, "k_proj") != NULL ||
                            strstr(name, "c_attn.weight") != NULL;
  return query_or_key ? 1e-5 : 3e-6;
}

static void compare(const char *what, const GptCase *test, const GptResult *got, const GptResult *expected) {
  char name[256];
  (void)snprintf(name, sizeof name, "%s: loss", what);
  check_within(name, fabs(got->loss - expected->loss) / expected->loss, 1e-7);
  (void)snprintf(name, sizeof name, "%s: nll of the tokens", what);
  check_within(name, relative_error64(test->sequences * test->sequence_length, got->nll, expected->nll),
               1e-6);
  for (int64_t t = 0; t < expected->table.size; t++) {
    const TensorEntry *entry = &expected->table.entries[t];
    (void)snprintf(name, sizeof name, "%s: gradient of %s", what, entry->name);
    check_within(
        name,
        relative_error64(entry->count, got->gradient + entry->offset, expected->gradient + entry->offset),
        bound_of(entry->name));
  }
}

/* Runs a case on a list of grids, each against the reference. */
static void check_case(const char *what, const GptCase *test, const int (*grids)[2], int count) {
  Error error = {0};
  GptResult expected;
  expect_ok(gpt_case_reference(test, &expected, &error), &error);
  for (int i = 0; i < count; i++) {
    GptResult got;
    char name[128];
    (void)snprintf(name, sizeof name, "%s, ring %d x data %d", what, grids[i][0], grids[i][1]);
    expect_ok(gpt_case_run(test, grids[i][0], grids[i][1], &got, &error), &error);
    compare(name, test, &got, &expected);
    gpt_result_free(&got);
  }
  gpt_result_free(&expected);
}

static void test_gpt2(void **state) {
  (void)state;
  const GptCase test = {
      .config = gpt2_config(2, 2, 16), .sequences = 2, .sequence_length = 96, .loss_chunk = 64, .threads = 1};
  const int grids[][2] = {{1, 1}, {2, 1}, {4, 1}, {3, 2}};
  check_case("GPT-2", &test, grids, 4);
}

static void test_gpt2_documents(void **state) {
  (void)state;
  const GptCase test = {.config = gpt2_config(2, 3, 8),
                        .sequences = 2,
                        .sequence_length = 101,
                        .loss_chunk = 32,
                        .document_mask = true,
                        .ignore_every = 5,
                        .threads = 2};
  const int grids[][2] = {{1, 1}, {3, 1}, {2, 2}};
  check_case("GPT-2 with documents", &test, grids, 3);
}

static void test_llama(void **state) {
  (void)state;
  const GptCase test = {.config = llama_config(2, 4, 2, 16, false),
                        .sequences = 2,
                        .sequence_length = 128,
                        .loss_chunk = 1000,
                        .threads = 2};
  const int grids[][2] = {{1, 1}, {1, 2}, {2, 1}, {4, 2}, {8, 1}};
  check_case("Llama", &test, grids, 5);
}

static void test_llama_documents_window(void **state) {
  (void)state;
  GptCase test = {.config = llama_config(2, 4, 1, 8, true),
                  .sequences = 2,
                  .sequence_length = 157,
                  .loss_chunk = 50,
                  .document_mask = true,
                  .recompute = true,
                  .threads = 1};
  test.config.sliding_window = 23;
  const int grids[][2] = {{1, 1}, {4, 1}, {8, 2}};
  check_case("Llama with documents and window", &test, grids, 3);
}

/* Five tokens over eight ranks: most ranks have nothing but padding. */
static void test_ranks_without_tokens(void **state) {
  (void)state;
  const GptCase test = {.config = llama_config(1, 2, 2, 8, true),
                        .sequences = 1,
                        .sequence_length = 5,
                        .loss_chunk = 2,
                        .threads = 1};
  const int grids[][2] = {{1, 1}, {3, 1}, {8, 1}};
  check_case("five tokens", &test, grids, 3);
}

/* Computing layers again must give the bits that keeping them gives. */
static void test_recompute(void **state) {
  (void)state;
  GptCase test = {.config = llama_config(3, 2, 2, 16, true),
                  .sequences = 1,
                  .sequence_length = 90,
                  .loss_chunk = 64,
                  .document_mask = true,
                  .threads = 1};
  Error error = {0};
  GptResult kept;
  GptResult recomputed;
  expect_ok(gpt_case_run(&test, 2, 1, &kept, &error), &error);
  test.recompute = true;
  expect_ok(gpt_case_run(&test, 2, 1, &recomputed, &error), &error);
  assert_memory_equal(kept.gradient, recomputed.gradient, (size_t)kept.table.total * sizeof(double));
  gpt_result_free(&kept);
  gpt_result_free(&recomputed);
}

/* Partial results stay in float across hops and are rounded once: the error must not grow with the ring. */
static void test_error_does_not_grow(void **state) {
  (void)state;
  const GptCase test = {.config = llama_config(2, 2, 1, 16, true),
                        .sequences = 1,
                        .sequence_length = 256,
                        .loss_chunk = 64,
                        .threads = 1};
  Error error = {0};
  GptResult expected;
  GptResult got;
  double worst[2] = {0};
  const int rings[2] = {1, 16};
  expect_ok(gpt_case_reference(&test, &expected, &error), &error);
  for (int i = 0; i < 2; i++) {
    expect_ok(gpt_case_run(&test, rings[i], 1, &got, &error), &error);
    worst[i] = relative_error64(expected.table.total, got.gradient, expected.gradient);
    gpt_result_free(&got);
  }
  check_within("error of ring 16 against 1.5 times that of ring 1", worst[1], 1.5 * worst[0] + 1e-7);
  gpt_result_free(&expected);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_gpt2),
      cmocka_unit_test(test_gpt2_documents),
      cmocka_unit_test(test_llama),
      cmocka_unit_test(test_llama_documents_window),
      cmocka_unit_test(test_ranks_without_tokens),
      cmocka_unit_test(test_recompute),
      cmocka_unit_test(test_error_does_not_grow),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
