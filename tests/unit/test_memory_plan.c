/* The plan of a run's memory: what a layer keeps, what grows with what, a million tokens, and the advice. */
#include "train/memory_plan.h"

#include <stdio.h>
#include <string.h>

#include "kernels/base/arena.h"
#include "kernels/cpu/attention_reference.h"
#include "tests/support/expect.h"
#include "tests/support/test_device.h"
#include "tests/support/unit.h"
#include "train/memory_advice.h"

/* configs/tiny.yaml with overrides, ended by NULL. */
static Config configure(const char *const overrides[]) {
  enum { MOST = 16, TEXT = 64 };
  char texts[MOST][TEXT];
  char *all[MOST];
  int64_t count = 0;
  Config config;
  Error error = {0};
  for (; overrides[count] != NULL; count++) {
    (void)strncpy(texts[count], overrides[count], TEXT - 1);
    texts[count][TEXT - 1] = '\0';
    all[count] = texts[count];
  }
  expect_ok(config_load("configs/tiny.yaml", all, count, &config, &error), &error);
  return config;
}

static MemoryPlan plan_of(const Config *config, bool training) {
  const MemoryRun run = {.purpose = training ? MEMORY_TRAINING : MEMORY_EVALUATION,
                         .ranks_here = (int)config_ranks(config),
                         .threads = 1,
                         .one_process = true};
  MemoryPlan plan;
  Error error = {0};
  expect_ok(memory_plan(config, &run, &plan, &error), &error);
  return plan;
}

static MemoryPlan plan(bool training, const char *const overrides[]) {
  const Config config = configure(overrides);
  return plan_of(&config, training);
}

#define MODEL                                                                                                \
  "model.hidden_size=128", "model.num_hidden_layers=2", "model.num_attention_heads=4",                       \
      "model.num_key_value_heads=4", "model.intermediate_size=384"

/* With recompute a layer keeps its input, the attention output and the log-sum-exp, no more. */
static void test_kept(void **state) {
  (void)state;
  const size_t tokens = 4096;
  const MemoryPlan floats =
      plan(true, (const char *const[]){MODEL, "parallelism.ring=1", "train.sequence_length=4096",
                                       "train.micro_batch_size=1", "train.recompute=true", NULL});
  assert_int_equal(floats.cases, 1);
  assert_int_equal(floats.cases_of[0].kept, 2 * tokens * (128 * 4 + 128 * 4 + 4 * sizeof(float)));
  const MemoryPlan halves =
      plan(true, (const char *const[]){MODEL, "parallelism.ring=4", "train.sequence_length=4096",
                                       "train.micro_batch_size=1", "train.recompute=true",
                                       "train.precision=bf16", NULL});
  assert_int_equal(halves.cases_of[0].kept, 2 * tokens / 4 * (128 * 2 + 128 * 2 + 4 * sizeof(float)));
  const MemoryPlan all =
      plan(true, (const char *const[]){MODEL, "parallelism.ring=1", "train.sequence_length=4096",
                                       "train.micro_batch_size=1", NULL});
  assert_true(all.cases_of[0].kept > 4 * floats.cases_of[0].kept);
}

/* An evaluation keeps no layer: its memory does not grow with the layers, but for their weights. */
static void test_evaluation_keeps_no_layer(void **state) {
  (void)state;
  const MemoryPlan few = plan(false, (const char *const[]){MODEL, "eval.contexts=[65536]", NULL});
  const MemoryPlan many =
      plan(false, (const char *const[]){MODEL, "model.num_hidden_layers=48", "eval.contexts=[65536]", NULL});
  assert_int_equal(few.arena, many.arena);
  assert_int_equal(few.cases_of[0].kept, 0);
  assert_int_equal(many.cases_of[0].kept, 0);
  assert_true(many.weights > few.weights);
}

/* A million tokens over a ring of four: all of the program below 6 GiB, in both precisions. */
static void test_million(void **state) {
  (void)state;
  const size_t most = (size_t)6 << 30;
  const MemoryPlan floats =
      plan(false, (const char *const[]){MODEL, "parallelism.ring=4", "train.mlp_chunk=4096",
                                        "eval.contexts=[1048576]", NULL});
  const MemoryPlan halves =
      plan(false, (const char *const[]){MODEL, "parallelism.ring=4", "train.mlp_chunk=4096",
                                        "train.precision=bf16", "eval.contexts=[1048576]", NULL});
  assert_true(floats.host < most);
  assert_true(halves.host < most);
  assert_true(halves.host < floats.host);
}

/* One option, and how many times its value doubles. */
typedef struct Growth {
  const char *option;
  int64_t first;
} Growth;

static void test_monotone(void **state) {
  (void)state;
  static const Growth growths[] = {
      {"train.sequence_length", 512}, {"train.micro_batch_size", 1},   {"model.num_hidden_layers", 1},
      {"model.hidden_size", 32},      {"model.intermediate_size", 64}, {"model.vocab_size", 300},
      {"train.loss_chunk", 1},        {"train.mlp_chunk", 1},          {"data.read_ahead", 1}};
  static const char *const kinds[] = {"train.recompute=false", "train.recompute=true",
                                      "train.precision=bf16"};
  for (size_t g = 0; g < sizeof growths / sizeof growths[0]; g++) {
    for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++) {
      size_t before = 0;
      for (int i = 0; i < 6; i++) {
        char text[64];
        (void)snprintf(text, sizeof text, "%s=%lld", growths[g].option, (long long)(growths[g].first << i));
        const MemoryPlan at =
            plan(true, (const char *const[]){"train.sequence_length=512", "train.global_batch_size=64",
                                             "parallelism.ring=2", kinds[k], text, NULL});
        if (at.host < before) fail_msg("%s, %s: %zu bytes after %zu", text, kinds[k], at.host, before);
        before = at.host;
      }
    }
  }
}

/* Twice the ring, half the activations of a rank. */
static void test_ring(void **state) {
  (void)state;
  const MemoryPlan two =
      plan(true, (const char *const[]){MODEL, "parallelism.ring=4", "train.sequence_length=65536",
                                       "train.mlp_chunk=512", "train.loss_chunk=64", NULL});
  const MemoryPlan four =
      plan(true, (const char *const[]){MODEL, "parallelism.ring=8", "train.sequence_length=65536",
                                       "train.mlp_chunk=512", "train.loss_chunk=64", NULL});
  assert_true(four.arena < two.arena * 51 / 100);
  assert_true(four.arena > two.arena * 49 / 100);
}

/* Sizes beyond 64 bits are too large, not small. */
static void test_too_large(void **state) {
  (void)state;
  const MemoryPlan huge =
      plan(false, (const char *const[]){"model.hidden_size=65536", "model.intermediate_size=1048576",
                                        "model.num_attention_heads=512", "model.num_key_value_heads=512",
                                        "eval.contexts=[1099511627776]", NULL});
  assert_true(huge.host >= (size_t)1 << 50);
}

/* What the advice says it would take is what the plan of that configuration takes. */
static void test_advice(void **state) {
  (void)state;
  Config config =
      configure((const char *const[]){MODEL, "parallelism.ring=1", "train.sequence_length=65536",
                                      "train.micro_batch_size=1", "train.loss_chunk=65536", NULL});
  const MemoryRun run = {.purpose = MEMORY_TRAINING, .ranks_here = 1, .threads = 1, .one_process = true};
  const MemoryPlan before = plan_of(&config, true);
  const MemoryMachine machine = {.host = before.host / 6, .gpu = SIZE_MAX};
  MemoryChange changes[MEMORY_CHANGES];
  int count = 0;
  Error error = {0};
  assert_false(memory_fits(&before, &machine));
  expect_ok(memory_advice(&config, &run, &machine, changes, &count, &error), &error);
  assert_int_equal(count, 6); /* the logits take their turn: a smaller chunk of them saves nothing */
  assert_string_equal(changes[0].text, "train.precision=bf16");
  assert_string_equal(changes[1].text, "train.recompute=true");
  assert_string_equal(changes[2].text, "train.mlp_chunk=4096");
  assert_string_equal(changes[3].text, "all of these");
  for (int i = 0; i < count; i++) assert_true(changes[i].bytes < before.host);
  for (int i = 0; i < count; i++) assert_int_equal(changes[i].fits, changes[i].bytes <= machine.host);
  assert_true(changes[4].fits && changes[5].fits);
  assert_non_null(strstr(changes[4].text, "parallelism.ring=8 over 8 machines"));
  config.parallelism.ring = 8;
  const MemoryPlan after = plan_of(&config, true);
  assert_int_equal(changes[4].bytes, after.host - 7 * after.rank_host);
  config.parallelism.ring = 1;
  config.train.recompute = true;
  assert_int_equal(changes[1].bytes, plan_of(&config, true).host);
}

/* A line that refuses names the figures and the ways out. */
static void test_refusal(void **state) {
  (void)state;
  const Config config = configure((const char *const[]){
      MODEL, "parallelism.ring=2", "train.sequence_length=1073741824", "train.micro_batch_size=1", NULL});
  const MemoryPlan wanted = plan_of(&config, true);
  const MemoryMachine machine = {.host = (size_t)20 << 30, .gpu = SIZE_MAX};
  Error error = {0};
  expect_error(memory_refuse(&config, &wanted, &machine, &error), &error, STATUS_SYSTEM,
               "training at 1073741824 tokens", " TiB for 2 ranks, 20.0 GiB are free", "train.recompute=true",
               "parallelism.ring=", "(fits)", "'ringgpt plan'");
}

/* GPUs are planned without one: their attention is laid out as the reference's. */
static void test_cuda_sizes(void **state) {
  (void)state;
  test_device_need_cuda();
  const AttentionOps *const references[] = {&attention_reference, &attention_reference_bf16};
  const TestDevice kinds[] = {TEST_CUDA_F32, TEST_CUDA_BF16};
  for (int k = 0; k < 2; k++) {
    Device *device = NULL;
    Error error = {0};
    expect_ok(test_device_create(kinds[k], 1, &device, &error), &error);
    const AttentionOps *ops = &device->ops.attention;
    for (int64_t length = 1; length < 5000; length = 3 * length + 1) {
      const AttentionDims dims = {.heads = 6, .kv_heads = 2, .head_dim = 40};
      assert_int_equal(ops->kv_bytes(&dims, length), references[k]->kv_bytes(&dims, length));
      assert_int_equal(ops->dkv_bytes(&dims, length), references[k]->dkv_bytes(&dims, length));
      assert_int_equal(ops->forward_bytes(&dims, length), references[k]->forward_bytes(&dims, length));
      assert_int_equal(ops->backward_bytes(&dims, length), references[k]->backward_bytes(&dims, length));
    }
    device_destroy(device);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_kept),      cmocka_unit_test(test_evaluation_keeps_no_layer),
      cmocka_unit_test(test_million),   cmocka_unit_test(test_monotone),
      cmocka_unit_test(test_ring),      cmocka_unit_test(test_too_large),
      cmocka_unit_test(test_advice),    cmocka_unit_test(test_refusal),
      cmocka_unit_test(test_cuda_sizes)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
