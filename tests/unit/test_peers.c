/* The small models of tests/peers, which Hugging Face transformers made: read from their config.json and
 * model.safetensors, they give its logits and its loss. And what hf_model_read refuses. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/rope.h"
#include "tests/support/compare.h"
#include "tests/support/expect.h"
#include "tests/support/hf_logits.h"
#include "tests/support/temp_dir.h"
#include "tests/support/unit.h"
#include "train/hf_model.h"

/* What tests/peers/make_models.py wrote. */
typedef struct Expected {
  size_t count;
  int32_t tokens[64];
  double loss;
  json_t *root;
} Expected;

static Expected read_expected(const char *directory) {
  char path[256];
  json_error_t reason;
  (void)snprintf(path, sizeof path, "%s/expected.json", directory);
  Expected expected = {.root = json_load_file(path, 0, &reason)};
  if (expected.root == NULL) fail_msg("%s: %s; the tests run in the root of the project", path, reason.text);
  const json_t *tokens = json_object_get(expected.root, "tokens");
  expected.count = json_array_size(tokens);
  assert_true(expected.count > 1 && expected.count <= 64);
  for (size_t i = 0; i < expected.count; i++) {
    expected.tokens[i] = (int32_t)json_integer_value(json_array_get(tokens, i));
  }
  expected.loss = json_number_value(json_object_get(expected.root, "loss"));
  return expected;
}

/* The largest difference over the largest magnitude. */
static double logits_error(const Expected *expected, const HfLogits *got) {
  const json_t *rows = json_object_get(expected->root, "logits");
  double difference = 0.0;
  double largest = 0.0;
  assert_int_equal(json_array_size(rows), expected->count);
  for (size_t t = 0; t < expected->count; t++) {
    const json_t *row = json_array_get(rows, t);
    assert_int_equal(json_array_size(row), got->vocab);
    for (size_t v = 0; v < (size_t)got->vocab; v++) {
      const double value = json_number_value(json_array_get(row, v));
      const double error = fabs((double)got->logits[t * (size_t)got->vocab + v] - value);
      if (!(error <= difference)) difference = error;
      largest = fmax(largest, fabs(value));
    }
  }
  return difference / largest;
}

static void check_model(const char *directory) {
  Error error = {0};
  HfLogits got;
  const Expected expected = read_expected(directory);
  expect_ok(hf_logits_run(directory, (int64_t)expected.count, expected.tokens, &got, &error), &error);
  check_within("logits", logits_error(&expected, &got), 1e-5);
  check_within("loss", fabs(got.loss - expected.loss), 1e-6);
  free(got.logits);
  json_decref(expected.root);
}

static void test_gpt2(void **state) {
  (void)state;
  check_model("tests/peers/gpt2");
}

static void test_llama(void **state) {
  (void)state;
  check_model("tests/peers/llama");
}

/* ---------------------------------------------------------------- config.json to model */

static void test_read_gpt2(void **state) {
  (void)state;
  Error error = {0};
  ModelConfig model;
  expect_ok(hf_model_read("tests/peers/gpt2/config.json", &model, &error), &error);
  assert_int_equal(model.vocab_size, 61);
  assert_int_equal(model.hidden_size, 24);
  assert_int_equal(model.num_hidden_layers, 2);
  assert_int_equal(model.num_attention_heads, 3);
  assert_int_equal(model.num_key_value_heads, 3);
  assert_int_equal(model.intermediate_size, 80);
  assert_int_equal(model.max_position_embeddings, 40);
  assert_true(model.norm_eps == 1e-4);
  assert_int_equal(model.position, POSITION_LEARNED);
  assert_int_equal(model.norm, NORM_LAYERNORM);
  assert_int_equal(model.activation, ACTIVATION_GELU);
  assert_true(model.bias && model.tie_word_embeddings);
  assert_int_equal(model.sliding_window, 0);
}

/* What is written reads back as it was, window and all. */
static void test_round_trip(void **state) {
  TempDir *directory = *state;
  Error error = {0};
  ModelConfig model;
  ModelConfig again;
  char *text = NULL;
  const char *path = temp_dir_path(directory, "config.json");
  expect_ok(hf_model_read("tests/peers/llama", &model, &error), &error);
  assert_int_equal(model.num_key_value_heads, 2);
  assert_true(model.rope_theta == 500.0 && model.norm_eps == 3e-5);
  assert_false(model.bias || model.tie_word_embeddings);
  model.sliding_window = 12;
  expect_ok(hf_model_text(&model, 5, &text, &error), &error);
  temp_file_write_text(path, text);
  free(text);
  expect_ok(hf_model_read(path, &again, &error), &error);
  assert_int_equal(again.sliding_window, 12);
  again.sliding_window = 0;
  expect_ok(hf_model_text(&again, -1, &text, &error), &error);
  temp_file_write_text(path, text);
  free(text);
  char warning[256];
  model.sliding_window = 0;
  expect_ok(hf_model_check(&model, path, warning, sizeof warning, &error), &error);
  assert_string_equal(warning, "");
}

/* Compares a model with the file that another one wrote; returns what is told of their difference. */
static const char *told(const char *path, const ModelConfig *written, const ModelConfig *model) {
  static char warning[1024];
  Error error = {0};
  char *text = NULL;
  expect_ok(hf_model_text(written, -1, &text, &error), &error);
  temp_file_write_text(path, text);
  free(text);
  expect_ok(hf_model_check(model, path, warning, sizeof warning, &error), &error);
  assert_true(strlen(warning) < 900);
  return warning[0] == '\0' ? warning : warning + strlen(path);
}

/* What may be changed for longer contexts is told, each number of it. */
static void test_changed_reach(void **state) {
  TempDir *directory = *state;
  Error error = {0};
  ModelConfig old;
  const char *path = temp_dir_path(directory, "config.json");
  expect_ok(hf_model_read("tests/peers/llama", &old, &error), &error);
  ModelConfig new = old;
  assert_string_equal(told(path, &old, &new), "");
  new.rope_theta = 7000;
  new.sliding_window = 9;
  assert_string_equal(told(path, &old, &new),
                      ": trained with rope_theta 500 and sliding_window 0, computed with "
                      "rope_theta 7000 and sliding_window 9");
  new = old;
  new.rope_scaling = (RopeScaling){.rope_type = ROPE_YARN,
                                   .factor = 4,
                                   .original_max_position_embeddings = 64,
                                   .beta_fast = 32,
                                   .beta_slow = 1,
                                   .truncate = true};
  assert_string_equal(
      told(path, &old, &new),
      ": trained with rope_theta 500 and sliding_window 0, computed with rope_theta 500, yarn "
      "scaling by 4 from 64 (beta_fast 32, beta_slow 1, attention_factor 1.13862944) and "
      "sliding_window 0");
  /* The attention factor may be said or follow. */
  old = new;
  old.rope_scaling.attention_factor = rope_attention_factor(&new.rope_scaling);
  assert_string_equal(told(path, &old, &new), "");
  old.rope_scaling.attention_factor = 1;
  assert_non_null(strstr(told(path, &old, &new), "attention_factor 1) and"));
  old = new;
  old.rope_scaling.truncate = false;
  assert_non_null(strstr(told(path, &old, &new), ", not truncated) and"));
  old.rope_scaling = (RopeScaling){.rope_type = ROPE_LLAMA3,
                                   .factor = 8,
                                   .original_max_position_embeddings = 64,
                                   .truncate = true,
                                   .low_freq_factor = 1,
                                   .high_freq_factor = 4};
  assert_non_null(strstr(told(path, &old, &new),
                         "llama3 scaling by 8 from 64 (low_freq_factor 1, high_freq_factor 4) and"));
  old.rope_scaling = (RopeScaling){.rope_type = ROPE_LINEAR, .factor = 2, .truncate = true};
  assert_non_null(strstr(told(path, &old, &new), "rope_theta 500, linear scaling by 2 and"));
  /* Dynamic scaling reads the model's positions, which are nothing but a remark for the others. */
  new = old;
  new.max_position_embeddings = 1000;
  assert_string_equal(told(path, &old, &new), "");
  old.rope_scaling.rope_type = new.rope_scaling.rope_type = ROPE_DYNAMIC;
  assert_string_equal(told(path, &old, &new),
                      ": trained with rope_theta 500, dynamic scaling by 2 beyond 64 and sliding_window 0, "
                      "computed with rope_theta 500, dynamic scaling by 2 beyond 1000 and sliding_window 0");
}

#define LLAMA                                                                                                \
  "{\"model_type\": \"llama\", \"vocab_size\": 9, \"intermediate_size\": 8, \"num_hidden_layers\": 1, "
#define GPT2                                                                                                 \
  "{\"model_type\": \"gpt2\", \"vocab_size\": 9, \"n_positions\": 8, \"n_embd\": 16, \"n_layer\": 1, "       \
  "\"n_head\": 2"
#define MIXED                                                                                                \
  "{\"model_type\": \"ringgpt\", \"vocab_size\": 9, \"intermediate_size\": 8, \"num_hidden_layers\": 1, "    \
  "\"hidden_size\": 16, \"num_attention_heads\": 2, \"position\": \"rope\", "

/* Models that the reader of config.json knows and the layers do not. */
static void test_refused(void **state) {
  TempDir *directory = *state;
  const struct {
    const char *text;
    const char *message;
  } cases[] = {
      {LLAMA "\"hidden_size\": 24, \"num_attention_heads\": 2}", "size of a head must be a multiple of 8"},
      {LLAMA "\"hidden_size\": 16, \"num_attention_heads\": 2, \"attention_bias\": true, \"mlp_bias\": true}",
       "which needs bias: false"},
      {LLAMA "\"hidden_size\": 16, \"num_attention_heads\": 2, \"rope_scaling\": {\"type\": \"linear\", "
             "\"factor\": 0.5}}",
       "rope_scaling.factor is 0.5"},
      {LLAMA "\"hidden_size\": 16, \"num_attention_heads\": 2, \"rope_scaling\": {\"type\": \"yarn\", "
             "\"factor\": 2, \"beta_fast\": 1, \"beta_slow\": 2}}",
       "rope_scaling.beta_slow (2) must be above 0 and below rope_scaling.beta_fast (1)"},
      {GPT2 ", \"tie_word_embeddings\": false}", "tie_word_embeddings"},
      {MIXED "\"norm\": \"layernorm\", \"activation\": \"swiglu\"}", "which needs norm: rmsnorm"},
      {MIXED "\"norm\": \"rmsnorm\", \"activation\": \"gelu\"}", "which needs activation: swiglu"},
  };
  const char *path = temp_dir_path(directory, "config.json");
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    Error error = {0};
    ModelConfig model;
    temp_file_write_text(path, cases[i].text);
    expect_error(hf_model_read(path, &model, &error), &error, STATUS_CONFIG, path, cases[i].message);
  }
  Error error = {0};
  ModelConfig model;
  temp_file_write_text(path, GPT2 "}");
  expect_ok(hf_model_read(path, &model, &error), &error);
  expect_error(hf_model_read(temp_dir_path(directory, "missing"), &model, &error), &error, STATUS_NO_INPUT,
               "missing");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_gpt2),
      cmocka_unit_test(test_llama),
      cmocka_unit_test(test_read_gpt2),
      cmocka_unit_test_setup_teardown(test_round_trip, temp_dir_set_up, temp_dir_tear_down),
      cmocka_unit_test_setup_teardown(test_changed_reach, temp_dir_set_up, temp_dir_tear_down),
      cmocka_unit_test_setup_teardown(test_refused, temp_dir_set_up, temp_dir_tear_down),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
