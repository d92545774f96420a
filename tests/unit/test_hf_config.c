/* config.json: what is written for each family, what comes back, and what is refused from other programs'
 * files. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoints/hf_config.h"
#include "tests/support/expect.h"
#include "tests/support/temp_dir.h"
#include "tests/support/unit.h"

static const char *path;

static int set_up(void **state) {
  (void)temp_dir_set_up(state);
  path = temp_dir_path(*state, "config.json");
  return 0;
}

static HfConfig gpt2(void) {
  return (HfConfig){.vocab_size = 50257,
                    .hidden_size = 768,
                    .num_hidden_layers = 12,
                    .num_attention_heads = 12,
                    .num_key_value_heads = 12,
                    .intermediate_size = 3000,
                    .max_position_embeddings = 1024,
                    .rope_theta = 10000,
                    .rope_scaling = {.truncate = true},
                    .norm_eps = 1e-5,
                    .initializer_range = 0.02,
                    .position = HF_POSITION_LEARNED,
                    .norm = HF_NORM_LAYERNORM,
                    .activation = HF_ACTIVATION_GELU,
                    .bias = true,
                    .tie_word_embeddings = true,
                    .eos_token_id = 50256};
}

static HfConfig llama(void) {
  return (HfConfig){.vocab_size = 259,
                    .hidden_size = 128,
                    .num_hidden_layers = 4,
                    .num_attention_heads = 8,
                    .num_key_value_heads = 2,
                    .intermediate_size = 352,
                    .max_position_embeddings = 1048576,
                    .rope_theta = 1e6 / 3,
                    .rope_scaling = {.truncate = true},
                    .norm_eps = 1e-6,
                    .initializer_range = 0.1,
                    .position = HF_POSITION_ROPE,
                    .norm = HF_NORM_RMSNORM,
                    .activation = HF_ACTIVATION_SWIGLU,
                    .eos_token_id = -1};
}

/* Writes the configuration to `path` and returns its JSON. */
static json_t *write_config(const HfConfig *config) {
  char *text = NULL;
  Error error = {0};
  json_error_t reason;
  assert_int_equal(hf_config_text(config, &text, &error), STATUS_OK);
  temp_file_write_text(path, text);
  json_t *root = json_loads(text, JSON_REJECT_DUPLICATES, &reason);
  assert_non_null(root);
  free(text);
  return root;
}

static void check_scaling(const HfRopeScaling *got, const HfRopeScaling *expected) {
  assert_int_equal(got->rope_type, expected->rope_type);
  assert_true(got->factor == expected->factor);
  assert_int_equal(got->original_max_position_embeddings, expected->original_max_position_embeddings);
  assert_true(got->beta_fast == expected->beta_fast && got->beta_slow == expected->beta_slow);
  assert_true(got->attention_factor == expected->attention_factor);
  assert_int_equal(got->truncate, expected->truncate);
  assert_true(got->low_freq_factor == expected->low_freq_factor);
  assert_true(got->high_freq_factor == expected->high_freq_factor);
}

static void check_equal(const HfConfig *got, const HfConfig *expected) {
  assert_int_equal(got->vocab_size, expected->vocab_size);
  assert_int_equal(got->hidden_size, expected->hidden_size);
  assert_int_equal(got->num_hidden_layers, expected->num_hidden_layers);
  assert_int_equal(got->num_attention_heads, expected->num_attention_heads);
  assert_int_equal(got->num_key_value_heads, expected->num_key_value_heads);
  assert_int_equal(got->intermediate_size, expected->intermediate_size);
  assert_int_equal(got->max_position_embeddings, expected->max_position_embeddings);
  assert_true(got->rope_theta == expected->rope_theta);
  check_scaling(&got->rope_scaling, &expected->rope_scaling);
  assert_true(got->norm_eps == expected->norm_eps);
  assert_true(got->initializer_range == expected->initializer_range);
  assert_int_equal(got->position, expected->position);
  assert_int_equal(got->norm, expected->norm);
  assert_int_equal(got->activation, expected->activation);
  assert_int_equal(got->bias, expected->bias);
  assert_int_equal(got->tie_word_embeddings, expected->tie_word_embeddings);
  assert_int_equal(got->sliding_window, expected->sliding_window);
  assert_int_equal(got->eos_token_id, expected->eos_token_id);
}

static void check_text(const json_t *root, const char *key, const char *expected) {
  const char *text = json_string_value(json_object_get(root, key));
  if (text == NULL || strcmp(text, expected) != 0) fail_msg("%s is %s, not %s", key, text, expected);
}

/* Writes, checks family and architecture, reads back. */
static void check_round_trip(const HfConfig *config, const char *type, const char *architecture) {
  HfConfig got;
  Error error = {0};
  json_t *root = write_config(config);
  check_text(root, "model_type", type);
  check_text(root, "torch_dtype", "float32");
  check_text(root, "dtype", "float32");
  const json_t *architectures = json_object_get(root, "architectures");
  if (architecture == NULL) {
    assert_null(architectures);
  } else {
    assert_int_equal(json_array_size(architectures), 1);
    assert_string_equal(json_string_value(json_array_get(architectures, 0)), architecture);
  }
  json_decref(root);
  expect_ok(hf_config_read(path, &got, &error), &error);
  check_equal(&got, config);
}

static void test_families(void **state) {
  (void)state;
  HfConfig config = gpt2();
  check_round_trip(&config, "gpt2", "GPT2LMHeadModel");
  config.tie_word_embeddings = false;
  config.eos_token_id = -1;
  check_round_trip(&config, "gpt2", "GPT2LMHeadModel");
  config.sliding_window = 64;
  check_round_trip(&config, "ringgpt", NULL);
  config = gpt2();
  config.bias = false;
  check_round_trip(&config, "ringgpt", NULL);
  config = gpt2();
  config.num_key_value_heads = 4;
  check_round_trip(&config, "ringgpt", NULL);
  config = llama();
  check_round_trip(&config, "llama", "LlamaForCausalLM");
  config.bias = true;
  config.tie_word_embeddings = true;
  check_round_trip(&config, "llama", "LlamaForCausalLM");
  config.sliding_window = 4096;
  check_round_trip(&config, "ringgpt", NULL);
  config.bias = false;
  check_round_trip(&config, "mistral", "MistralForCausalLM");
  config.norm = HF_NORM_LAYERNORM;
  check_round_trip(&config, "ringgpt", NULL);
}

/* Both places where versions 4 and 5 of transformers look. */
static void test_rope_is_written_twice(void **state) {
  (void)state;
  const HfConfig config = llama();
  json_t *root = write_config(&config);
  const json_t *parameters = json_object_get(root, "rope_parameters");
  check_text(parameters, "rope_type", "default");
  assert_true(json_real_value(json_object_get(parameters, "rope_theta")) == config.rope_theta);
  assert_true(json_real_value(json_object_get(root, "rope_theta")) == config.rope_theta);
  assert_true(json_is_null(json_object_get(root, "rope_scaling")));
  assert_int_equal(json_integer_value(json_object_get(root, "head_dim")), 16);
  json_decref(root);
}

/* One of each type; yarn also with all that may be left out. */
static const HfRopeScaling SCALINGS[] = {
    {.rope_type = HF_ROPE_LINEAR, .factor = 4, .truncate = true},
    {.rope_type = HF_ROPE_DYNAMIC, .factor = 2.5, .truncate = true},
    {.rope_type = HF_ROPE_YARN,
     .factor = 8,
     .original_max_position_embeddings = 4096,
     .beta_fast = 32,
     .beta_slow = 1,
     .truncate = true},
    {.rope_type = HF_ROPE_YARN,
     .factor = 8,
     .original_max_position_embeddings = 4096,
     .beta_fast = 0.3,
     .beta_slow = 0.1,
     .attention_factor = 1.1},
    {.rope_type = HF_ROPE_LLAMA3,
     .factor = 8,
     .original_max_position_embeddings = 8192,
     .truncate = true,
     .low_freq_factor = 1,
     .high_freq_factor = 4},
};
enum { SCALING_COUNT = sizeof SCALINGS / sizeof SCALINGS[0] };

/* Writes, and reads back with both places, and with each alone: as version 4 of transformers writes it, and
 * as 5 does. */
static void test_scaled_rope(void **state) {
  (void)state;
  static const char *const names[] = {"linear", "dynamic", "yarn", "yarn", "llama3"};
  static const int keys[] = {2, 2, 5, 7, 5};
  for (int i = 0; i < SCALING_COUNT; i++) {
    HfConfig config = llama();
    config.rope_scaling = SCALINGS[i];
    check_round_trip(&config, "llama", "LlamaForCausalLM");
    json_t *root = write_config(&config);
    const json_t *scaling = json_object_get(root, "rope_scaling");
    const json_t *parameters = json_object_get(root, "rope_parameters");
    check_text(scaling, "rope_type", names[i]);
    assert_int_equal(json_object_size(scaling), keys[i]);
    assert_int_equal(json_object_size(parameters), keys[i] + 1);
    /* Version 4 warns of whole numbers in the place of others. */
    assert_true(json_is_real(json_object_get(scaling, "factor")));
    for (int kept = 0; kept < 2; kept++) {
      HfConfig got;
      Error error = {0};
      json_t *one = json_copy(root);
      (void)json_object_del(one, kept == 0 ? "rope_scaling" : "rope_parameters");
      if (kept == 0) (void)json_object_del(one, "rope_theta");
      assert_int_equal(json_dump_file(one, path, 0), 0);
      json_decref(one);
      expect_ok(hf_config_read(path, &got, &error), &error);
      check_equal(&got, &config);
    }
    json_decref(root);
  }
}

static void test_numbers_are_short(void **state) {
  (void)state;
  HfConfig config = llama();
  config.rope_theta = 10000;
  json_decref(write_config(&config));
  char *text = temp_file_read_text(path);
  assert_non_null(strstr(text, "\"rms_norm_eps\": 1e-6,"));
  assert_non_null(strstr(text, "\"rope_theta\": 10000.0,"));
  assert_non_null(strstr(text, "\"initializer_range\": 0.1,"));
  free(text);
}

/* ---------------------------------------------------------------- files of others */

static void read_text(const char *text, HfConfig *config) {
  Error error = {0};
  temp_file_write_text(path, text);
  expect_ok(hf_config_read(path, config, &error), &error);
}

/* As openai-community/gpt2 has it: no n_inner, no tie_word_embeddings, task settings to pass over. */
static void test_gpt2_of_others(void **state) {
  (void)state;
  HfConfig got;
  HfConfig expected = gpt2();
  expected.intermediate_size = 4 * 768;
  read_text("{\"activation_function\": \"gelu_new\", \"architectures\": [\"GPT2LMHeadModel\"],"
            "\"attn_pdrop\": 0.1, \"bos_token_id\": 50256, \"embd_pdrop\": 0.1, \"eos_token_id\": 50256,"
            "\"initializer_range\": 0.02, \"layer_norm_epsilon\": 1e-05, \"model_type\": \"gpt2\","
            "\"n_ctx\": 1024, \"n_embd\": 768, \"n_head\": 12, \"n_layer\": 12, \"n_positions\": 1024,"
            "\"resid_pdrop\": 0.1, \"summary_activation\": null, \"n_inner\": null,"
            "\"task_specific_params\": {\"text-generation\": {\"do_sample\": true, \"max_length\": 50}},"
            "\"vocab_size\": 50257}",
            &got);
  check_equal(&got, &expected);
}

#define LLAMA                                                                                                \
  "\"model_type\": \"llama\", \"hidden_size\": 64, \"intermediate_size\": 128, \"num_attention_heads\": 4,"  \
  "\"num_hidden_layers\": 2, \"vocab_size\": 100"
#define MISTRAL                                                                                              \
  "\"model_type\": \"mistral\", \"hidden_size\": 64, \"intermediate_size\": 128,"                            \
  "\"num_attention_heads\": 4, \"num_key_value_heads\": 2, \"num_hidden_layers\": 2, \"vocab_size\": 100"

static void test_defaults(void **state) {
  (void)state;
  HfConfig got;
  read_text("{" LLAMA "}", &got);
  assert_int_equal(got.num_key_value_heads, 4);
  assert_int_equal(got.max_position_embeddings, 2048);
  assert_true(got.rope_theta == 10000 && got.norm_eps == 1e-6);
  assert_false(got.tie_word_embeddings);
  assert_false(got.bias);
  assert_int_equal(got.sliding_window, 0);
  assert_int_equal(got.eos_token_id, -1);
  read_text("{" MISTRAL "}", &got);
  assert_int_equal(got.sliding_window, 4096);
  read_text("{" MISTRAL ", \"sliding_window\": null}", &got);
  assert_int_equal(got.sliding_window, 0);
  read_text("{" MISTRAL ", \"sliding_window\": 7}", &got);
  assert_int_equal(got.sliding_window, 7);
}

static void test_places_of_rope(void **state) {
  (void)state;
  HfConfig got;
  read_text("{" LLAMA ", \"rope_theta\": 500000}", &got);
  assert_true(got.rope_theta == 500000);
  read_text("{" LLAMA ", \"rope_theta\": 500000.0, \"rope_scaling\": null}", &got);
  assert_true(got.rope_theta == 500000);
  read_text("{" LLAMA ", \"rope_parameters\": {\"rope_type\": \"default\", \"rope_theta\": 250000.0}}", &got);
  assert_true(got.rope_theta == 250000);
  read_text("{" LLAMA ", \"rope_theta\": 5000.0, \"rope_scaling\": {\"type\": \"default\"}}", &got);
  assert_true(got.rope_theta == 5000);
}

/* What files of others leave out of a scaling, say in older words, or say for nobody. */
static void test_scaled_rope_of_others(void **state) {
  (void)state;
  HfConfig got;
  /* Qwen2.5's, which says how long the model was and not how long it has become. */
  read_text("{" LLAMA ", \"max_position_embeddings\": 32768, \"rope_theta\": 1000000.0, \"rope_scaling\": "
            "{\"factor\": 4.0, \"original_max_position_embeddings\": 32768, \"type\": \"yarn\"}}",
            &got);
  const HfRopeScaling qwen = {.rope_type = HF_ROPE_YARN,
                              .factor = 4,
                              .original_max_position_embeddings = 32768,
                              .beta_fast = 32,
                              .beta_slow = 1,
                              .truncate = true};
  check_scaling(&got.rope_scaling, &qwen);
  assert_true(got.rope_theta == 1e6);
  /* The positions are the model's where nothing is said; 0 and null are nothing. */
  read_text(
      "{" LLAMA ", \"max_position_embeddings\": 32768, \"rope_parameters\": {\"rope_type\": \"yarn\", "
      "\"factor\": 4, \"beta_fast\": 0, \"beta_slow\": null, \"attention_factor\": null, \"mscale\": 1}}",
      &got);
  check_scaling(&got.rope_scaling, &qwen);
  /* Those beside the scaling go before those in it. */
  read_text("{" LLAMA ", \"original_max_position_embeddings\": 32768, \"rope_scaling\": {\"rope_type\": "
            "\"yarn\", \"factor\": 4, \"original_max_position_embeddings\": 5}}",
            &got);
  check_scaling(&got.rope_scaling, &qwen);
  /* Dynamic scaling goes by the model's positions, whatever stands here. */
  read_text("{" LLAMA ", \"rope_scaling\": {\"type\": \"dynamic\", \"factor\": 2, "
            "\"original_max_position_embeddings\": 5}}",
            &got);
  check_scaling(&got.rope_scaling,
                &(HfRopeScaling){.rope_type = HF_ROPE_DYNAMIC, .factor = 2, .truncate = true});
}

static void test_places_of_the_file(void **state) {
  TempDir *temp = *state;
  HfConfig got;
  Error error = {0};
  const HfConfig config = llama();
  json_decref(write_config(&config));
  const char *weights = temp_dir_path(temp, "model.safetensors");
  assert_int_equal(hf_config_read(temp->path, &got, &error), STATUS_OK);
  check_equal(&got, &config);
  assert_int_equal(hf_config_read(weights, &got, &error), STATUS_OK);
  check_equal(&got, &config);
  const char *elsewhere = temp_dir_path(temp, "missing/model.safetensors");
  assert_int_equal(hf_config_read(elsewhere, &got, &error), STATUS_NO_INPUT);
  assert_non_null(strstr(error.text, "missing/config.json"));
}

/* ---------------------------------------------------------------- refusals */

typedef struct Refused {
  const char *text;
  Status status;
  const char *reason;
} Refused;

#define GPT2                                                                                                 \
  "\"model_type\": \"gpt2\", \"n_embd\": 64, \"n_head\": 4, \"n_layer\": 2, \"n_positions\": 128,"           \
  "\"vocab_size\": 100"

static const Refused REFUSED[] = {
    {"", STATUS_DATA, "is not valid JSON"},
    {"{\"model_type\": \"llama\",\n}", STATUS_DATA, "config.json:2: is not valid JSON"},
    {"{\"model_type\": \"llama\", \"model_type\": \"gpt2\"}", STATUS_DATA, "duplicate"},
    {"[1]", STATUS_CONFIG, "model_type"},
    {"{}", STATUS_CONFIG, "model_type"},
    {"{\"model_type\": \"bert\"}", STATUS_CONFIG, "gpt2, llama and mistral"},
    {"{\"model_type\": 1}", STATUS_DATA, "model_type should be a text"},
    {"{\"model_type\": \"llama\"}", STATUS_DATA, "has no vocab_size"},
    {"{\"model_type\": \"gpt2\", \"vocab_size\": 5}", STATUS_DATA, "has no n_positions"},
    {"{" LLAMA ", \"num_key_value_heads\": 0}", STATUS_DATA, "num_key_value_heads should be"},
    {"{" LLAMA ", \"num_key_value_heads\": -1}", STATUS_DATA, "num_key_value_heads should be"},
    {"{" LLAMA ", \"num_key_value_heads\": 2.0}", STATUS_DATA, "num_key_value_heads should be"},
    {"{" LLAMA ", \"num_key_value_heads\": \"2\"}", STATUS_DATA, "num_key_value_heads should be"},
    {"{" LLAMA ", \"num_key_value_heads\": 3}", STATUS_CONFIG, "num_key_value_heads"},
    {"{" LLAMA ", \"max_position_embeddings\": 2147483648}", STATUS_DATA, "max_position_embeddings"},
    {"{" LLAMA ", \"head_dim\": 32}", STATUS_CONFIG, "head_dim"},
    {"{" LLAMA ", \"hidden_act\": \"gelu\"}", STATUS_CONFIG, "hidden_act"},
    {"{" LLAMA ", \"hidden_act\": 1}", STATUS_DATA, "hidden_act should be a text"},
    {"{" LLAMA ", \"attention_bias\": true}", STATUS_CONFIG, "mlp_bias"},
    {"{" LLAMA ", \"attention_bias\": 1}", STATUS_DATA, "attention_bias should be true or false"},
    {"{" LLAMA ", \"rms_norm_eps\": -1e-5}", STATUS_DATA, "rms_norm_eps should be a number"},
    {"{" LLAMA ", \"rope_scaling\": {\"type\": \"longrope\", \"factor\": 2.0}}", STATUS_CONFIG,
     "rope_scaling is of type longrope"},
    {"{" LLAMA ", \"rope_parameters\": {\"rope_type\": \"su\"}}", STATUS_CONFIG,
     "rope_parameters is of type su"},
    {"{" LLAMA ", \"rope_scaling\": {\"rope_type\": 3}}", STATUS_DATA, "rope_type should be a text"},
    {"{" LLAMA ", \"rope_scaling\": {\"type\": \"linear\"}}", STATUS_DATA, "has no factor"},
    {"{" LLAMA ", \"rope_scaling\": {\"type\": \"linear\", \"factor\": \"2\"}}", STATUS_DATA,
     "factor should be a number"},
    {"{" LLAMA ", \"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 2}}", STATUS_DATA,
     "has no low_freq_factor"},
    {"{" LLAMA ", \"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 2, \"low_freq_factor\": 1}}",
     STATUS_DATA, "has no high_freq_factor"},
    {"{" LLAMA ", \"rope_scaling\": {\"rope_type\": \"yarn\", \"factor\": 2, "
     "\"original_max_position_embeddings\": 0}}",
     STATUS_DATA, "original_max_position_embeddings should be"},
    {"{" LLAMA ", \"rope_scaling\": {\"rope_type\": \"yarn\", \"factor\": 2, \"attention_factor\": 0}}",
     STATUS_DATA, "attention_factor should be above 0"},
    {"{" LLAMA ", \"rope_scaling\": {\"rope_type\": \"yarn\", \"factor\": 2, \"truncate\": 1}}", STATUS_DATA,
     "truncate should be true or false"},
    {"{" LLAMA ", \"rope_scaling\": {\"rope_type\": \"yarn\", \"factor\": 2, \"mscale\": 1, "
     "\"mscale_all_dim\": 0.7}}",
     STATUS_CONFIG, "mscale: this program computes an attention_factor alone"},
    {"{" LLAMA
     ", \"rope_scaling\": {\"type\": \"linear\", \"factor\": 2}, \"rope_parameters\": {\"rope_type\": "
     "\"linear\", \"factor\": 3}}",
     STATUS_CONFIG, "rope_scaling and rope_parameters contradict each other"},
    {"{" LLAMA ", \"rope_scaling\": {\"type\": \"default\"}, \"rope_parameters\": {\"rope_type\": "
     "\"dynamic\", \"factor\": 3}}",
     STATUS_CONFIG, "contradict"},
    {"{" LLAMA ", \"rope_theta\": 10000, \"rope_parameters\": {\"rope_theta\": 500000}}", STATUS_CONFIG,
     "rope_theta is 10000, and 500000 in rope_parameters"},
    {"{" LLAMA ", \"rope_parameters\": 5}", STATUS_DATA, "rope_parameters should be an object"},
    {"{" LLAMA ", \"partial_rotary_factor\": 0.5}", STATUS_CONFIG, "partial_rotary_factor"},
    {"{" GPT2 ", \"activation_function\": \"gelu\"}", STATUS_CONFIG, "activation_function"},
    {"{" GPT2 ", \"scale_attn_weights\": false}", STATUS_CONFIG, "scale_attn_weights"},
    {"{" GPT2 ", \"scale_attn_by_inverse_layer_idx\": true}", STATUS_CONFIG, "scale_attn_by_inverse"},
    {"{" GPT2 ", \"add_cross_attention\": true}", STATUS_CONFIG, "add_cross_attention"},
    {"{\"model_type\": \"gpt2\", \"n_embd\": 65, \"n_head\": 4, \"n_layer\": 2, \"n_positions\": 128,"
     "\"vocab_size\": 100}",
     STATUS_CONFIG, "divides the hidden size"},
    {"{\"model_type\": \"ringgpt\", \"hidden_size\": 64, \"intermediate_size\": 128,"
     "\"num_attention_heads\": 4, \"num_hidden_layers\": 2, \"vocab_size\": 100, \"position\": \"alibi\"}",
     STATUS_DATA, "position should be rope or learned"},
};

static void test_refusals(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof REFUSED / sizeof REFUSED[0]; i++) {
    HfConfig got;
    Error error = {0};
    temp_file_write_text(path, REFUSED[i].text);
    const Status status = hf_config_read(path, &got, &error);
    if (status != REFUSED[i].status || strstr(error.text, REFUSED[i].reason) == NULL ||
        strstr(error.text, path) == NULL) {
      fail_msg("%s\ngave status %d: %s", REFUSED[i].text, status, error.text);
    }
  }
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, temp_dir_tear_down)

int main(void) {
  const struct CMUnitTest tests[] = {
      TEST(test_families),       TEST(test_rope_is_written_twice), TEST(test_numbers_are_short),
      TEST(test_gpt2_of_others), TEST(test_scaled_rope),           TEST(test_scaled_rope_of_others),
      TEST(test_defaults),       TEST(test_places_of_rope),        TEST(test_places_of_the_file),
      TEST(test_refusals),
  };
  return cmocka_run_group_tests_name("hf_config", tests, NULL, NULL);
}
