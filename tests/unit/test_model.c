/* The whole model against the float64 reference: loss, the loss of every token, every gradient tensor; on one
 * rank and on grids; with documents, windows, grouped heads, padding and ranks without a valid token. */
#include <string.h>

#include "tests/support/compare.h"
#include "tests/support/expect.h"
#include "tests/support/gpt_case.h"
#include "tests/support/unit.h"

static void test_gpt2(void **state) {
  (void)state;
  const GptCase test = {
      .config = gpt2_config(2, 2, 16), .sequences = 2, .sequence_length = 96, .loss_chunk = 64, .threads = 1};
  const int grids[][2] = {{1, 1}, {2, 1}, {4, 1}, {3, 2}};
  gpt_case_check("GPT-2", &test, grids, 4);
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
  gpt_case_check("GPT-2 with documents", &test, grids, 3);
}

/* Chunks that lie anywhere on the ring. */
static void test_scattered_chunks(void **state) {
  (void)state;
  GptCase test = {.config = llama_config(2, 4, 2, 16, false),
                  .sequences = 2,
                  .sequence_length = 131,
                  .rank_chunks = 8,
                  .loss_chunk = 50,
                  .document_mask = true,
                  .ignore_every = 7,
                  .threads = 1};
  const int grids[][2] = {{2, 1}, {4, 2}, {8, 1}};
  gpt_case_check("scattered chunks", &test, grids, 3);
  test.config = gpt2_config(2, 2, 16);
  test.recompute = true;
  test.document_mask = false;
  gpt_case_check("scattered chunks without documents", &test, grids, 2);
}

static void test_llama(void **state) {
  (void)state;
  const GptCase test = {.config = llama_config(2, 4, 2, 16, false),
                        .sequences = 2,
                        .sequence_length = 128,
                        .loss_chunk = 1000,
                        .threads = 2};
  const int grids[][2] = {{1, 1}, {1, 2}, {2, 1}, {4, 2}, {8, 1}};
  gpt_case_check("Llama", &test, grids, 5);
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
  gpt_case_check("Llama with documents and window", &test, grids, 3);
}

/* Scaled positions: frequencies by the length of the whole sequence, wherever its rows are, and yarn's factor
 * on the scores in both directions. */
static void test_rope_scaling(void **state) {
  (void)state;
  static const struct {
    const char *name;
    RopeScaling scaling;
  } cases[] = {
      {"linear", {.rope_type = ROPE_LINEAR, .factor = 4}},
      {"dynamic", {.rope_type = ROPE_DYNAMIC, .factor = 3}},
      {"yarn",
       {.rope_type = ROPE_YARN,
        .factor = 4,
        .original_max_position_embeddings = 32,
        .beta_fast = 4,
        .beta_slow = 0.25,
        .attention_factor = 1.5,
        .truncate = true}},
      {"yarn by its own factor",
       {.rope_type = ROPE_YARN,
        .factor = 16,
        .original_max_position_embeddings = 32,
        .beta_fast = 4,
        .beta_slow = 0.25}},
      {"llama3",
       {.rope_type = ROPE_LLAMA3,
        .factor = 8,
        .original_max_position_embeddings = 32,
        .low_freq_factor = 0.25,
        .high_freq_factor = 4}},
  };
  const int grids[][2] = {{1, 1}, {2, 1}, {4, 1}};
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    GptCase test = {.config = llama_config(2, 2, 1, 16, true),
                    .sequences = 1,
                    .sequence_length = 125,
                    .loss_chunk = 64,
                    .document_mask = i % 2 == 0,
                    .recompute = i == 3,
                    .threads = 1};
    test.config.max_position_embeddings = 32;
    test.config.rope_scaling = cases[i].scaling;
    gpt_case_check(cases[i].name, &test, grids, 3);
  }
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
  gpt_case_check("five tokens", &test, grids, 3);
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

/* The MLP in chunks, of which the last is shorter: both kinds, kept layers and recomputed ones, and the bits
 * of dropout do not depend on the chunks. */
static void test_mlp_chunks(void **state) {
  (void)state;
  GptCase test = {.config = gpt2_config(2, 2, 16),
                  .sequences = 2,
                  .sequence_length = 75,
                  .loss_chunk = 64,
                  .mlp_chunk = 32,
                  .threads = 2,
                  .dropout = 0.2,
                  .seed = 9};
  const int grids[][2] = {{1, 1}, {2, 1}};
  gpt_case_check("GPT-2, MLP in chunks", &test, grids, 2);
  test.config = llama_config(2, 4, 2, 8, true);
  test.mlp_chunk = 41;
  test.recompute = true;
  gpt_case_check("Llama, MLP in chunks", &test, grids, 2);
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
      cmocka_unit_test(test_scattered_chunks),
      cmocka_unit_test(test_llama),
      cmocka_unit_test(test_llama_documents_window),
      cmocka_unit_test(test_rope_scaling),
      cmocka_unit_test(test_ranks_without_tokens),
      cmocka_unit_test(test_recompute),
      cmocka_unit_test(test_mlp_chunks),
      cmocka_unit_test(test_error_does_not_grow),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
