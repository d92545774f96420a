/* Configurations: what is loaded, what follows from what, each mistake with its message and line, the dump,
 * the files in configs/. */
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/expect.h"
#include "tests/support/temp_dir.h"
#include "tests/support/unit.h"
#include "train/config.h"

/* The least that a configuration must say, on one line. */
#define LEAST "data: {train: shards}\n"

static TempDir directory;
static const char *path; /* of the configuration at hand */

static int make_directory(void **state) {
  (void)state;
  directory = temp_dir_create();
  path = temp_dir_path(&directory, "small run.v2.yaml");
  return 0;
}

static int remove_directory(void **state) {
  (void)state;
  temp_dir_remove(&directory);
  return 0;
}

static Config load(const char *text, char *const overrides[], int64_t count) {
  Config config;
  Error error = {0};
  temp_file_write_text(path, text);
  if (config_load(path, overrides, count, &config, &error) != STATUS_OK) fail_msg("%s: %s", text, error.text);
  return config;
}

/* Loads a text that must be refused with this message behind the path. */
static void assert_refused(const char *text, const char *message) {
  Config config;
  Error error = {0};
  temp_file_write_text(path, text);
  const Status status = config_load(path, NULL, 0, &config, &error);
  if (status == STATUS_OK) fail_msg("%s: is accepted; expected: %s", text, message);
  if (strncmp(error.text, path, strlen(path)) != 0) fail_msg("the file is not named: %s", error.text);
  assert_string_equal(error.text + strlen(path), message);
  assert_int_equal(status, STATUS_CONFIG);
}

/* dump -> load -> dump gives the same text and the same configuration, whatever the file's name. */
static void assert_round_trip(const Config *config) {
  char *text, *again;
  Error error = {0};
  assert_int_equal(config_dump(config, &text, &error), STATUS_OK);
  const Config loaded = load(text, NULL, 0);
  assert_memory_equal(&loaded, config, sizeof loaded);
  assert_int_equal(config_dump(&loaded, &again, &error), STATUS_OK);
  assert_string_equal(again, text);
  free(text);
  free(again);
}

static void test_defaults(void **state) {
  (void)state;
  const Config config = load(LEAST, NULL, 0);
  assert_string_equal(config.run.name, "small run.v2");
  assert_string_equal(config.run.dir, "runs/small run.v2");
  assert_int_equal(config.device, DEVICE_KIND_AUTO);
  assert_string_equal(config.data.train, "shards");
  assert_string_equal(config.data.val, "");
  assert_int_equal(config.data.end_of_document, -1);
  assert_true(config.data.shuffle);
  assert_false(config.data.document_mask);
  assert_int_equal(config.model.vocab_size, 257);
  assert_int_equal(config.model.num_key_value_heads, config.model.num_attention_heads);
  assert_int_equal(config.model.max_position_embeddings, config.train.sequence_length);
  assert_true(config.model.rope_theta == 10000);
  assert_true(config.model.initializer_range == 0.02);
  assert_int_equal(config.model.position, POSITION_ROPE);
  assert_int_equal(config.model.norm, NORM_RMSNORM);
  assert_int_equal(config.model.activation, ACTIVATION_SWIGLU);
  assert_int_equal(config.parallelism.transport, TRANSPORT_AUTO);
  assert_int_equal(config.train.precision, PRECISION_FP32);
  assert_int_equal(config.train.loss_chunk, 1024);
  assert_int_equal(config.train.sequence_schedule.count, 0);
  assert_int_equal(config.scheduler.name, SCHEDULER_COSINE);
  assert_int_equal(config.train.steps, 1000);
  assert_int_equal(config.scheduler.warmup_steps, 20);
  assert_int_equal(config.scheduler.decay_steps, 0);
  assert_int_equal(config.checkpoint.keep, 2);
  assert_string_equal(config.checkpoint.resume, "auto");
  assert_int_equal(config.eval.contexts.count, 1);
  assert_int_equal(config.eval.contexts.values[0], config.train.sequence_length);
  assert_int_equal(config_ranks(&config), 1);
}

static void test_every_section(void **state) {
  (void)state;
  const Config config =
      load("run: {name: a, dir: b/c, seed: 3}\n"
           "device: cpu\n"
           "model:\n"
           "  vocab_size: 1000\n"
           "  hidden_size: 64\n"
           "  num_attention_heads: 4\n"
           "  num_key_value_heads: 2\n"
           "  sliding_window: 100\n"
           "  tie_word_embeddings: true\n"
           "data:\n"
           "  train: \"d/train_*.bin.gz\"\n"
           "  val: d/val\n"
           "  end_of_document: 999\n"
           "parallelism: {ring: 3, data: 2, transport: local, threads: 5}\n"
           "train:\n"
           "  sequence_length: 96\n"
           "  micro_batch_size: 2\n"
           "  global_batch_size: 8\n"
           "  steps: 50\n"
           "  sequence_schedule:\n"
           "    0: 32\n"
           "    10: 96\n"
           "optimizer: {learning_rate: 1e-2, beta1: 0.8, clip_grad: 0}\n"
           "scheduler: {name: wsd, warmup_steps: 5, min_lr_ratio: 0}\n"
           "checkpoint: {every: 7, keep: 4, resume: never}\n"
           "eval: {every: 9, contexts: [32, 500], tokens: 1000, mode: strided, stride: 31}\n"
           "logging: {every: 10}\n",
           NULL, 0);
  assert_string_equal(config.run.name, "a");
  assert_string_equal(config.run.dir, "b/c");
  assert_int_equal(config.run.seed, 3);
  assert_int_equal(config.device, DEVICE_KIND_CPU);
  assert_int_equal(config.model.num_key_value_heads, 2);
  assert_int_equal(config.model.sliding_window, 100);
  assert_true(config.model.tie_word_embeddings);
  assert_int_equal(config.data.end_of_document, 999);
  assert_int_equal(config_ranks(&config), 6);
  assert_int_equal(config.parallelism.transport, TRANSPORT_LOCAL);
  assert_int_equal(config.train.sequence_schedule.count, 2);
  assert_int_equal(config.train.sequence_schedule.first_steps[1], 10);
  assert_int_equal(config.train.sequence_schedule.lengths[0], 32);
  assert_true(config.optimizer.learning_rate == 0.01);
  assert_true(config.optimizer.clip_grad == 0);
  assert_int_equal(config.scheduler.decay_steps, 5);
  assert_string_equal(config.checkpoint.resume, "never");
  assert_int_equal(config.eval.contexts.values[1], 500);
  assert_int_equal(config.eval.mode, EVAL_STRIDED);
  assert_int_equal(config.eval.stride, 31);
  assert_int_equal(config.logging.every, 10);
}

static void test_generated(void **state) {
  (void)state;
  const Config defaults = load(LEAST, NULL, 0);
  assert_int_equal(defaults.data.generate, GENERATE_NONE);
  assert_int_equal(defaults.data.mqar_pairs, 64);
  assert_true(defaults.data.mqar_queries == 0.5);
  const Config config = load("data: {generate: mqar, mqar_pairs: 127, mqar_queries: 1}\n", NULL, 0);
  assert_int_equal(config.data.generate, GENERATE_MQAR);
  assert_int_equal(config.data.mqar_pairs, 127);
  assert_string_equal(config.data.train, "");
  assert_round_trip(&config);
}

static void test_intermediate_size(void **state) {
  (void)state;
  static const struct {
    const char *text;
    int64_t expected;
  } cases[] = {
      {LEAST "model: {hidden_size: 128}", 384},                       /* 341.3 */
      {LEAST "model: {hidden_size: 24, num_attention_heads: 1}", 64}, /* exactly 64 */
      {LEAST "model: {hidden_size: 768, num_attention_heads: 12}", 2048},
      {LEAST "model: {hidden_size: 776, num_attention_heads: 97}", 2112}, /* 2069.3 */
      {LEAST "model: {hidden_size: 128, intermediate_size: 100}", 100},
      {LEAST "model: {hidden_size: 128, position: learned, norm: layernorm, activation: gelu, bias: true, "
             "tie_word_embeddings: true}",
       512},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
    assert_int_equal(load(cases[i].text, NULL, 0).model.intermediate_size, cases[i].expected);
}

static void test_overrides(void **state) {
  (void)state;
  char steps[] = "train.steps=5", again[] = "train.steps=6", list[] = "eval.contexts=[16, 32]";
  char schedule[] = "train.sequence_schedule={0: 512, 3: 1024}", device[] = "device=cpu",
       name[] = "run.name=x y";
  char *const overrides[] = {steps, again, list, schedule, device, name};
  const Config config = load(LEAST "train: {steps: 4}\n", overrides, 6);
  assert_int_equal(config.train.steps, 6);
  assert_int_equal(config.eval.contexts.count, 2);
  assert_int_equal(config.train.sequence_schedule.lengths[0], 512);
  assert_int_equal(config.device, DEVICE_KIND_CPU);
  assert_string_equal(config.run.dir, "runs/x y");
  /* What follows from others follows from the overridden value. */
  char length[] = "train.sequence_length=4096", wsd[] = "scheduler.name=wsd", longer[] = "train.steps=10000";
  char *const more[] = {length, wsd, longer};
  const Config other = load(LEAST, more, 3);
  assert_int_equal(other.model.max_position_embeddings, 4096);
  assert_int_equal(other.eval.contexts.values[0], 4096);
  assert_int_equal(other.scheduler.decay_steps, 1000);
  assert_int_equal(other.scheduler.warmup_steps, 200);
}

static void test_overrides_are_checked(void **state) {
  (void)state;
  char heads[] = "model.num_attention_heads=3", unknown[] = "trian.steps=1", plain[] = "configs/other.yaml";
  char *const overrides[] = {heads};
  char *const unknowns[] = {unknown};
  char *const plains[] = {plain};
  Config config;
  Error error = {0};
  temp_file_write_text(path, LEAST);
  assert_int_equal(config_load(path, overrides, 1, &config, &error), STATUS_CONFIG);
  assert_non_null(strstr(error.text, "model.num_attention_heads (3)"));
  error = (Error){0};
  assert_int_equal(config_load(path, unknowns, 1, &config, &error), STATUS_CONFIG);
  assert_string_equal(error.text,
                      "override 'trian.steps=1': unknown key 'trian.steps'; did you mean 'train.steps'?");
  error = (Error){0};
  assert_int_equal(config_load(path, plains, 1, &config, &error), STATUS_USAGE);
}

static void test_mistakes_in_the_file(void **state) {
  (void)state;
  static const struct {
    const char *text;
    const char *message;
  } cases[] = {
      {"", ":1: holds nothing; a configuration has sections such as 'data:'"},
      {"# nothing\n", ":1: holds nothing; a configuration has sections such as 'data:'"},
      {"\n- a\n", ":2: is not a mapping; a configuration has sections such as 'data:'"},
      {"text\n", ":1: is not a mapping; a configuration has sections such as 'data:'"},
      {LEAST "optimizer:\n  beta1: 0.9\n  learning_rat: 1\n",
       ":4: unknown key 'optimizer.learning_rat'; did you mean 'optimizer.learning_rate'?"},
      {LEAST "optimiser:\n  beta1: 0.9\n", ":2: unknown section 'optimiser'; did you mean 'optimizer'?"},
      {LEAST "xyzzy:\n  beta1: 0.9\n", ":2: unknown section 'xyzzy'; 'ringgpt train --help' lists all"},
      {LEAST "\nsteps: 5\n", ":3: unknown key 'steps'; did you mean 'train.steps'?"},
      {LEAST "train: 5\n", ":2: 'train' is a section; indent its keys below it, or leave it out"},
      {LEAST "train:\n", ":2: 'train' is a section; indent its keys below it, or leave it out"},
      {LEAST "device: [cpu]\n", ":2: 'device' is a list or a mapping; it must be auto, cpu or cuda"},
      {LEAST "model:\n  rope_scaling: yarn\n",
       ":3: 'model.rope_scaling' is a mapping; indent its keys below it, or leave it out"},
      {LEAST "model:\n  rope_scaling:\n    rope_type: yarn\n    beta_fat: 1\n",
       ":5: unknown key 'model.rope_scaling.beta_fat'; did you mean 'model.rope_scaling.beta_fast'?"},
      {LEAST "model:\n  rope_scaling.factor: 2\n",
       ":3: 'model.rope_scaling.factor' is one of a mapping; write the part before its dot as a key and the "
       "other indented below it"},
      {LEAST "model:\n  rope_scaling:\n    factor: fast\n",
       ":4: 'model.rope_scaling.factor' is fast; it must be a number, at least 0"},
      {LEAST "train:\n  steps:\n", ":3: 'train.steps' is empty; it must be a whole number, at least 1"},
      {LEAST "train:\n  steps: ten\n", ":3: 'train.steps' is ten; it must be a whole number, at least 1"},
      {LEAST "train:\n  steps: 0\n", ":3: 'train.steps' is 0; it must be at least 1"},
      {LEAST "train:\n  sequence_schedule:\n    0: 1024\n    100: x\n",
       ":5: 'train.sequence_schedule' is x; it must be a mapping of up to 64 first steps to lengths"},
      {LEAST "eval:\n  contexts:\n  - 5\n  - -1\n", ":5: 'eval.contexts' is -1; it must be at least 1"},
      {LEAST "checkpoint: {keep: 1}\n", ":2: 'checkpoint.keep' is 1; it must be at least 2"},
      {LEAST "scheduler: {min_lr_ratio: 1.5}\n", ":2: 'scheduler.min_lr_ratio' is 1.5; it must be at most 1"},
      {LEAST "optimizer: {beta2: 1.0}\n", ":2: 'optimizer.beta2' is 1.0; it must be below 1"},
      {LEAST "run: {seed: 1, seed: 2}\n", ":2: duplicate key 'seed', first given in line 2; keep one"},
      {LEAST "data: {val: x}\n", ":2: duplicate key 'data', first given in line 1; keep one"},
      {"data:\n  train: *.gz\n",
       ":2: not valid YAML: while scanning an alias, did not find expected alphabetic or "
       "numeric character; put a text that begins with *, & or ! in quotes"},
      {"data:\n\ttrain: a\n",
       ":2: not valid YAML: while scanning for the next token, found character that cannot "
       "start any token"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) assert_refused(cases[i].text, cases[i].message);
}

#define GPT2 "position: learned, norm: layernorm, activation: gelu, bias: true, tie_word_embeddings: true"

static void test_options_that_do_not_fit_together(void **state) {
  (void)state;
  static const struct {
    const char *text;
    const char *message;
  } cases[] = {
      {"run: {seed: 1}\n", ": data.train is missing; name the shards that 'ringgpt prepare' wrote"},
      {LEAST "model: {hidden_size: 100, num_attention_heads: 3}",
       ": model.hidden_size (100) must be a multiple of model.num_attention_heads (3)"},
      {LEAST "model: {hidden_size: 48, num_attention_heads: 4}",
       ": model.hidden_size / model.num_attention_heads is 12; the size of a head must be a multiple of 8 "
       "and at "
       "most 256"},
      {LEAST "model: {hidden_size: 264, num_attention_heads: 1}",
       ": model.hidden_size / model.num_attention_heads is 264; the size of a head must be a multiple of 8 "
       "and at "
       "most 256"},
      {LEAST "model: {hidden_size: 64, num_attention_heads: 4, num_key_value_heads: 3}",
       ": model.num_attention_heads (4) must be a multiple of model.num_key_value_heads (3)"},
      {LEAST "model: {hidden_size: 64, num_attention_heads: 4, num_key_value_heads: 8}",
       ": model.num_attention_heads (4) must be a multiple of model.num_key_value_heads (8)"},
      {LEAST "model: {norm: layernorm}", ": model.position: rope is the Llama family, which needs "
                                         "model.norm: rmsnorm; other programs could not load "
                                         "another mixture"},
      {LEAST "model: {activation: gelu}", ": model.position: rope is the Llama family, which needs "
                                          "model.activation: swiglu; other programs could not "
                                          "load another mixture"},
      {LEAST "model: {bias: true}", ": model.position: rope is the Llama family, which needs model.bias: "
                                    "false; other programs could not load "
                                    "another mixture"},
      {LEAST "model: {position: learned}", ": model.position: learned is the GPT-2 family, which needs "
                                           "model.norm: layernorm; other programs could not "
                                           "load another mixture"},
      {LEAST "model: {position: learned, norm: layernorm}",
       ": model.position: learned is the GPT-2 family, which needs model.activation: gelu; other programs "
       "could not "
       "load another mixture"},
      {LEAST "model: {position: learned, norm: layernorm, activation: gelu}",
       ": model.position: learned is the GPT-2 family, which needs model.bias: true; other programs could "
       "not load "
       "another mixture"},
      {LEAST "model: {position: learned, norm: layernorm, activation: gelu, bias: true}",
       ": model.position: learned is the GPT-2 family, which needs model.tie_word_embeddings: true; other "
       "programs "
       "could not load another mixture"},
      {LEAST "model: {" GPT2 ", num_key_value_heads: 2}",
       ": model.position: learned is the GPT-2 family, which needs model.num_key_value_heads as many "
       "as attention heads; other programs could not load another mixture"},
      {LEAST "model: {" GPT2 ", sliding_window: 5}",
       ": model.position: learned is the GPT-2 family, which needs model.sliding_window: 0; other programs "
       "could not "
       "load another mixture"},
      {LEAST "model: {" GPT2 ", max_position_embeddings: 1023}",
       ": train.sequence_length (1024) is beyond the learned positions, model.max_position_embeddings "
       "(1023)"},
      {LEAST "model: {" GPT2 "}\neval: {contexts: [1024, 1025]}",
       ": eval.contexts has 1025, beyond the learned positions, model.max_position_embeddings (1024)"},
      {"data: {train: x, end_of_document: 257}",
       ": data.end_of_document (257) must be below model.vocab_size (257)"},
      {LEAST "eval: {contexts: [64, 32], mode: strided, stride: 33}",
       ": eval.stride (33) is more than the context of 32: tokens between two windows would not be scored"},
      {LEAST "eval: {contexts: [64], stride: 32}", ": eval.stride is for eval.mode: strided alone"},
      {LEAST "eval: {contexts: [1], mode: strided}",
       ": eval.contexts has 1, but this eval.mode scores nothing in less than 2 tokens"},
      {LEAST "eval: {contexts: [2], mode: llama.cpp}",
       ": eval.contexts has 2, but this eval.mode scores nothing in less than 3 tokens"},
      {LEAST "eval: {every: 5}", ": eval.every is 5, but data.val names no shards"},
      {"data: {train: x, generate: mqar}",
       ": data.generate is mqar, so that no shards are read: leave out data.train, or data.generate"},
      {"data: {generate: mqar, document_mask: true}",
       ": data.document_mask is for shards; data.generate: mqar has no documents"},
      {"data: {generate: mqar, mqar_pairs: 128}", ": data.mqar_pairs (128) must be at most the keys, half of "
                                                  "model.vocab_size (257) less one for filler"},
      {"data: {generate: mqar}\ntrain: {sequence_length: 1024, sequence_schedule: {0: 4, 9: 1024}}",
       ": data.generate: mqar needs sequences of at least 8 tokens, not 4"},
      {LEAST "train: {micro_batch_size: 2, global_batch_size: 6}\nparallelism: {data: 2}",
       ": train.global_batch_size (6) must be a multiple of train.micro_batch_size (2) x parallelism.data "
       "(2)"},
      {LEAST "train: {sequence_length: 1099511627776, global_batch_size: 1024, steps: 1000000}",
       ": train.steps x train.global_batch_size x train.sequence_length is more than 2^63 tokens"},
      {LEAST "train: {sequence_schedule: {1: 1024}}",
       ": train.sequence_schedule must begin with step 0, not 1"},
      {LEAST "train: {sequence_schedule: {0: 512, 20: 1024, 10: 512}}",
       ": train.sequence_schedule has step 10 after step 20; list the steps in ascending order"},
      {LEAST "train: {sequence_schedule: {0: 512, 20: 1024, 020: 512}}",
       ": train.sequence_schedule has step 20 after step 20; list the steps in ascending order"},
      {LEAST "train: {sequence_schedule: {0: 1000}}",
       ": train.sequence_schedule has length 1000, which does not divide train.sequence_length (1024)"},
      {LEAST "train: {sequence_schedule: {0: 0}}",
       ": train.sequence_schedule has length 0, which does not divide train.sequence_length (1024)"},
      {LEAST "train: {sequence_schedule: {0: 2048}}",
       ": train.sequence_schedule has length 2048, which does not divide train.sequence_length (1024)"},
      {LEAST "train: {steps: 10}\nscheduler: {warmup_steps: 11}",
       ": scheduler.warmup_steps (11) must be at most train.steps (10)"},
      {LEAST "scheduler: {decay_steps: 5}",
       ": scheduler.decay_steps is for scheduler.name: wsd; leave it out"},
      {LEAST "train: {steps: 10}\nscheduler: {name: wsd, warmup_steps: 6, decay_steps: 5}",
       ": scheduler.warmup_steps (6) and scheduler.decay_steps (5) together must be at most train.steps "
       "(10)"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) assert_refused(cases[i].text, cases[i].message);
}

#define SCALED(text) LEAST "model: {rope_scaling: {" text "}}"
#define TRAINED "original_max_position_embeddings: 4096"

/* What Hugging Face fills in, in the file or by overrides, and how long the model then is. */
static void test_rope_scaling(void **state) {
  (void)state;
  Config config = load(LEAST, NULL, 0);
  assert_int_equal(config.model.rope_scaling.rope_type, ROPE_DEFAULT);
  assert_true(config.model.rope_scaling.truncate);
  config = load(SCALED("rope_type: yarn, factor: 2.5, " TRAINED), NULL, 0);
  assert_int_equal(config.model.rope_scaling.rope_type, ROPE_YARN);
  assert_true(config.model.rope_scaling.factor == 2.5);
  assert_true(config.model.rope_scaling.beta_fast == 32 && config.model.rope_scaling.beta_slow == 1);
  assert_true(config.model.rope_scaling.attention_factor == 0);
  assert_int_equal(config.model.max_position_embeddings, 10240);
  assert_round_trip(&config);
  char type[] = "model.rope_scaling.rope_type=llama3", low[] = "model.rope_scaling.low_freq_factor=1",
       high[] = "model.rope_scaling.high_freq_factor=4", factor[] = "model.rope_scaling.factor=8";
  char *const overrides[] = {type, low, high, factor};
  config = load(SCALED(TRAINED), overrides, 4);
  assert_int_equal(config.model.rope_scaling.rope_type, ROPE_LLAMA3);
  assert_true(config.model.rope_scaling.high_freq_factor == 4);
  assert_true(config.model.rope_scaling.beta_fast == 0);
  assert_int_equal(config.model.max_position_embeddings, 32768);
  assert_round_trip(&config);
  char positions[] = "model.max_position_embeddings=512";
  config = load(SCALED("rope_type: dynamic, factor: 2"), (char *[]){positions}, 1);
  assert_int_equal(config.model.max_position_embeddings, 512);
  assert_round_trip(&config);
  config = load(SCALED("rope_type: yarn, factor: 1, beta_fast: 3, beta_slow: 2, attention_factor: 1.25, "
                       "truncate: false, " TRAINED),
                NULL, 0);
  assert_true(config.model.rope_scaling.beta_slow == 2 && !config.model.rope_scaling.truncate);
  assert_round_trip(&config);
}

static void test_rope_scaling_is_checked(void **state) {
  (void)state;
  static const struct {
    const char *text;
    const char *message;
  } cases[] = {
      {LEAST "model: {" GPT2 ", rope_scaling: {rope_type: linear, factor: 2}}",
       ": model.rope_scaling.rope_type: linear scales model.position: rope, not learned"},
      {SCALED("factor: 2"),
       ": model.rope_scaling.factor is for rope_type linear, dynamic, yarn and llama3, not "
       "default; leave it out"},
      {SCALED("rope_type: linear"),
       ": model.rope_scaling.factor is 0; rope_type linear needs one of 1 or more"},
      {SCALED("rope_type: dynamic, factor: 0.99"),
       ": model.rope_scaling.factor is 0.99; rope_type dynamic needs one of 1 or more"},
      {SCALED("rope_type: dynamic, factor: 2"),
       ": model.rope_scaling.rope_type: dynamic scales beyond the length that the model was trained for, "
       "model.max_position_embeddings: set it"},
      {SCALED("rope_type: dynamic, factor: 2, " TRAINED),
       ": model.rope_scaling.original_max_position_embeddings is for rope_type yarn and llama3, not dynamic; "
       "leave it out"},
      {SCALED("rope_type: yarn, factor: 2"), ": model.rope_scaling.original_max_position_embeddings is "
                                             "missing; rope_type yarn needs the length that "
                                             "the model was trained for before"},
      {SCALED("rope_type: llama3, factor: 2, low_freq_factor: 1, high_freq_factor: 4"),
       ": model.rope_scaling.original_max_position_embeddings is missing; rope_type llama3 needs the length "
       "that the model was trained for before"},
      {SCALED("rope_type: llama3, factor: 2, low_freq_factor: 4, high_freq_factor: 4, " TRAINED),
       ": model.rope_scaling.low_freq_factor (4) must be above 0 and below "
       "model.rope_scaling.high_freq_factor (4)"},
      {SCALED("rope_type: llama3, factor: 2, high_freq_factor: 4, " TRAINED),
       ": model.rope_scaling.low_freq_factor (0) must be above 0 and below "
       "model.rope_scaling.high_freq_factor (4)"},
      {SCALED("rope_type: llama3, factor: 2, low_freq_factor: 1, " TRAINED),
       ": model.rope_scaling.low_freq_factor (1) must be above 0 and below "
       "model.rope_scaling.high_freq_factor (0)"},
      {SCALED("rope_type: yarn, factor: 2, beta_fast: 1, " TRAINED),
       ": model.rope_scaling.beta_slow (1) must be above 0 and below model.rope_scaling.beta_fast (1)"},
      {LEAST "model: {rope_theta: 1, rope_scaling: {rope_type: yarn, factor: 2, " TRAINED "}}",
       ": model.rope_theta is 1; rope_type yarn needs one above 1"},
      {SCALED("rope_type: linear, factor: 2, beta_fast: 8"),
       ": model.rope_scaling.beta_fast is for rope_type yarn, not linear; leave it out"},
      {SCALED("rope_type: llama3, factor: 2, beta_slow: 8, " TRAINED),
       ": model.rope_scaling.beta_slow is for rope_type yarn, not llama3; leave it out"},
      {SCALED("rope_type: linear, factor: 2, attention_factor: 1"),
       ": model.rope_scaling.attention_factor is for rope_type yarn, not linear; leave it out"},
      {SCALED("truncate: false"),
       ": model.rope_scaling.truncate is for rope_type yarn, not default; leave it "
       "out"},
      {SCALED("rope_type: yarn, factor: 2, low_freq_factor: 1, " TRAINED),
       ": model.rope_scaling.low_freq_factor is for rope_type llama3, not yarn; leave it out"},
      {SCALED("rope_type: yarn, factor: 2, high_freq_factor: 1, " TRAINED),
       ": model.rope_scaling.high_freq_factor is for rope_type llama3, not yarn; leave it out"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) assert_refused(cases[i].text, cases[i].message);
}

static void test_what_fits_exactly(void **state) {
  (void)state;
  (void)load(LEAST "model: {" GPT2 ", max_position_embeddings: 1024}", NULL, 0);
  (void)load(LEAST "model: {hidden_size: 256, num_attention_heads: 1}", NULL, 0);
  (void)load(LEAST "train: {steps: 10}\nscheduler: {name: wsd, warmup_steps: 5, decay_steps: 5}", NULL, 0);
  (void)load(LEAST "train: {steps: 1}\nscheduler: {name: wsd}", NULL, 0);
  (void)load("data: {train: x, end_of_document: 256}", NULL, 0);
  /* Rotary positions end nowhere. */
  (void)load(LEAST "model: {max_position_embeddings: 5}\neval: {contexts: [100000]}", NULL, 0);
}

static void test_world(void **state) {
  (void)state;
  const Config config = load(LEAST "parallelism: {ring: 4, data: 2}\ntrain: {global_batch_size: 2}", NULL, 0);
  Error error = {0};
  assert_int_equal(config_check_world(&config, 8, &error), STATUS_OK);
  assert_int_equal(config_check_world(&config, 6, &error), STATUS_CONFIG);
  assert_string_equal(error.text,
                      "parallelism.ring (4) x parallelism.data (2) needs 8 ranks, but 6 were started");
}

static void test_dump_is_read_back(void **state) {
  (void)state;
  Config config = load(LEAST, NULL, 0);
  assert_round_trip(&config);
  static const char *const texts[] = {"null",
                                      "~",
                                      "300",
                                      "true",
                                      " a ",
                                      "a: b",
                                      "# c",
                                      "\"q\"",
                                      "it's \\n",
                                      "\xc3\xbc\xe2\x82\xac\xf0\x9f\x98\x80",
                                      "\xc2\x85 \xe2\x80\xa8\xef\xbb\xbf",
                                      "- x",
                                      "[y",
                                      "&a *b !c %d @e `f"};
  for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
    memset(config.run.name, 0, sizeof config.run.name);
    (void)snprintf(config.run.name, sizeof config.run.name, "%s", texts[i]);
    assert_round_trip(&config);
  }
  memset(config.run.name, 'x', sizeof config.run.name - 1);
  config.optimizer.learning_rate = 0.1 + 0.2;
  config.optimizer.eps = 1e-300;
  config.run.seed = (int64_t)1 << 53;
  assert_round_trip(&config);
}

static void test_files_in_configs(void **state) {
  (void)state;
  glob_t files;
  assert_int_equal(glob("configs/*.yaml", 0, NULL, &files), 0);
  assert_true(files.gl_pathc >= 4);
  for (size_t i = 0; i < files.gl_pathc; i++) {
    Config config;
    Error error = {0};
    expect_ok(config_load(files.gl_pathv[i], NULL, 0, &config, &error), &error);
    assert_round_trip(&config);
  }
  globfree(&files);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_defaults),
      cmocka_unit_test(test_every_section),
      cmocka_unit_test(test_generated),
      cmocka_unit_test(test_intermediate_size),
      cmocka_unit_test(test_overrides),
      cmocka_unit_test(test_overrides_are_checked),
      cmocka_unit_test(test_mistakes_in_the_file),
      cmocka_unit_test(test_options_that_do_not_fit_together),
      cmocka_unit_test(test_rope_scaling),
      cmocka_unit_test(test_rope_scaling_is_checked),
      cmocka_unit_test(test_what_fits_exactly),
      cmocka_unit_test(test_world),
      cmocka_unit_test(test_dump_is_read_back),
      cmocka_unit_test(test_files_in_configs),
  };
  return cmocka_run_group_tests_name("config", tests, make_directory, remove_directory);
}
