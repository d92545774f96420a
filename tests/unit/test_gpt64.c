/* Tests of the float64 reference model: its gradients against finite differences of its own loss, what each
 * token may depend on, identities between configurations, and values that another program computed. */
#include "tests/reference/gpt64.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/compare.h"
#include "tests/support/unit.h"

enum { MAX_LENGTH = 32, END_OF_DOCUMENT = 0 };

/* One sequence and how it is scored. */
typedef struct Sample {
  int64_t length;
  int32_t tokens[MAX_LENGTH];
  int32_t targets[MAX_LENGTH];
  int64_t first_key[MAX_LENGTH];
  double divisor;
} Sample;

typedef struct Case {
  const char *name;
  Gpt64Config config;
  bool documents;
  bool ignored; /* some targets have no weight */
} Case;

#define YARN                                                                                                 \
  { ROPE64_YARN, 4, 12, 1.5, 0.02, 0, false }
#define LLAMA3                                                                                               \
  { ROPE64_LLAMA3, 4, 12, 1.5, 0.1, 0, false }
#define DYNAMIC                                                                                              \
  { ROPE64_DYNAMIC, 3, 5, 0, 0, 0, false }
#define LINEAR                                                                                               \
  { ROPE64_LINEAR, 3, 0, 0, 0, 0, false }

/* V, C, L, H, KV, F, positions, theta, eps, gpt2, tied, window, rope */
static const Case CASES[] = {
    {"gpt2", {11, 12, 2, 3, 3, 20, 16, 0, 1e-5, true, true, 0, {0}}, false, false},
    {"gpt2 documents, untied", {11, 12, 2, 2, 2, 20, 16, 0, 1e-5, true, false, 0, {0}}, true, true},
    {"gpt2 window", {11, 8, 3, 1, 1, 12, 20, 0, 1e-5, true, true, 4, {0}}, false, true},
    {"llama grouped", {11, 16, 2, 4, 2, 20, 0, 10000, 1e-6, false, false, 0, {0}}, false, false},
    {"llama one key head, tied", {11, 24, 1, 4, 1, 20, 0, 100, 1e-5, false, true, 0, {0}}, false, true},
    {"llama documents, window", {11, 16, 2, 4, 2, 12, 0, 500, 1e-5, false, true, 3, {0}}, true, true},
    {"llama yarn", {11, 16, 2, 2, 1, 12, 0, 500, 1e-5, false, true, 0, YARN}, false, false},
    {"llama llama3", {11, 16, 1, 2, 2, 12, 0, 500, 1e-5, false, true, 0, LLAMA3}, false, false},
    {"llama dynamic", {11, 16, 1, 2, 2, 12, 0, 500, 1e-5, false, false, 0, DYNAMIC}, false, true},
    {"llama linear", {11, 16, 1, 2, 1, 12, 0, 500, 1e-5, false, false, 0, LINEAR}, false, false},
};
enum { CASE_COUNT = sizeof CASES / sizeof CASES[0] };

static bool is_norm_scale(const char *name) {
  return strstr(name, "ln_") != NULL ? strstr(name, ".weight") != NULL : strstr(name, "norm") != NULL;
}

/* Random values for every tensor, the scales of norms near 1, in an order that other programs can follow. */
static Gpt64 *random_model(const Gpt64Config *config, uint64_t seed) {
  Random random = {seed};
  Gpt64 *model = gpt64_create(config);
  assert_non_null(model);
  for (int64_t i = 0; i < model->count; i++) {
    const Gpt64Tensor *tensor = &model->tensors[i];
    random_fill64(&random, tensor->rows * tensor->cols, 0.3, tensor->value);
    for (int64_t j = 0; j < tensor->rows && is_norm_scale(tensor->name); j++) tensor->value[j] += 1;
  }
  return model;
}

static Sample random_sample(int64_t vocab, int64_t length, bool documents, bool ignored) {
  Random random = {99};
  Sample sample = {.length = length, .divisor = 7};
  for (int64_t t = 0; t < length; t++) {
    sample.tokens[t] = (int32_t)(1 + random_below(&random, vocab - 1));
    sample.targets[t] = (int32_t)random_below(&random, vocab);
    if (ignored && t % 4 == 2) sample.targets[t] = -1;
    if (documents && (t == 3 || t == 4 || t == 9)) sample.tokens[t] = END_OF_DOCUMENT;
  }
  gpt64_document_starts(length, sample.tokens, END_OF_DOCUMENT, sample.first_key);
  return sample;
}

static double loss_of(Gpt64 *model, const Sample *sample, double *nll, bool gradients) {
  return gpt64_loss(model, sample->tokens, sample->targets, sample->first_key, sample->length,
                    sample->divisor, nll, gradients);
}

/* ---------------------------------------------------------------- gradients */

/* The loss with the tensor's values moved by s along `direction`. */
static double moved_loss(Gpt64 *model, const Sample *sample, const Gpt64Tensor *tensor,
                         const double *direction, double s) {
  const int64_t n = tensor->rows * tensor->cols;
  double *kept = malloc((size_t)n * sizeof *kept);
  assert_non_null(kept);
  memcpy(kept, tensor->value, (size_t)n * sizeof *kept);
  for (int64_t j = 0; j < n; j++) tensor->value[j] += s * direction[j];
  const double loss = loss_of(model, sample, NULL, false);
  memcpy(tensor->value, kept, (size_t)n * sizeof *kept);
  free(kept);
  return loss;
}

/* The derivative of the loss along `direction`, by central differences of fourth order. */
static double measured_slope(Gpt64 *model, const Sample *sample, const Gpt64Tensor *tensor,
                             const double *direction) {
  const double h = 2e-4;
  const double near =
      moved_loss(model, sample, tensor, direction, h) - moved_loss(model, sample, tensor, direction, -h);
  const double far = moved_loss(model, sample, tensor, direction, 2 * h) -
                     moved_loss(model, sample, tensor, direction, -2 * h);
  return (8 * near - far) / (12 * h);
}

/* Compares single elements, and one random direction, in which every element of the tensor has its part. */
static void check_tensor_gradient(Gpt64 *model, const Sample *sample, const Gpt64Tensor *tensor,
                                  const char *label) {
  enum { SAMPLED = 12 };
  const int64_t n = tensor->rows * tensor->cols;
  Random random = {(uint64_t)n};
  double *direction = calloc((size_t)n, sizeof *direction);
  assert_non_null(direction);
  double squares = 0;
  for (int64_t j = 0; j < n; j++) squares += tensor->grad[j] * tensor->grad[j];
  const double rms = sqrt(squares / (double)n);
  if (!(rms > 1e-6)) fail_msg("%s: gradient is %g everywhere", label, rms);
  for (int i = 0; i < SAMPLED; i++) {
    const int64_t j = random_below(&random, n);
    direction[j] = 1;
    const double measured = measured_slope(model, sample, tensor, direction);
    direction[j] = 0;
    const double error = fabs(measured - tensor->grad[j]) / fmax(rms, fabs(tensor->grad[j]));
    check_within(label, error, 1e-8);
  }
  double exact = 0;
  random_fill64(&random, n, 1 / sqrt((double)n), direction);
  for (int64_t j = 0; j < n; j++) exact += tensor->grad[j] * direction[j];
  const double measured = measured_slope(model, sample, tensor, direction);
  check_within(label, fabs(measured - exact) / rms, 1e-8);
  free(direction);
}

static void check_gradients(const RefDropout *dropout) {
  for (int i = 0; i < CASE_COUNT; i++) {
    Gpt64 *model = random_model(&CASES[i].config, 1);
    model->dropout = dropout;
    const Sample sample = random_sample(CASES[i].config.vocab, 13, CASES[i].documents, CASES[i].ignored);
    assert_true(isfinite(loss_of(model, &sample, NULL, true)));
    for (int64_t j = 0; j < model->count; j++) {
      char label[160];
      (void)snprintf(label, sizeof label, "%s: %s", CASES[i].name, model->tensors[j].name);
      check_tensor_gradient(model, &sample, &model->tensors[j], label);
    }
    gpt64_free(model);
  }
}

static void test_gradients_match_finite_differences(void **state) {
  (void)state;
  check_gradients(NULL);
}

static void test_gradients_with_dropout(void **state) {
  (void)state;
  const RefDropout dropout = {.p = 0.2, .seed = 17, .first_token = 39};
  check_gradients(&dropout);
}

static void test_gradients_accumulate(void **state) {
  (void)state;
  Gpt64 *model = random_model(&CASES[0].config, 2);
  const Sample sample = random_sample(CASES[0].config.vocab, 13, false, false);
  const Gpt64Tensor *tensor = gpt64_find(model, "transformer.h.1.mlp.c_fc.weight");
  assert_non_null(tensor);
  loss_of(model, &sample, NULL, true);
  const double once = tensor->grad[5];
  loss_of(model, &sample, NULL, true);
  check_within("twice the gradient", fabs(tensor->grad[5] - 2 * once), 1e-15);
  loss_of(model, &sample, NULL, false);
  check_within("no gradient asked", fabs(tensor->grad[5] - 2 * once), 1e-15);
  gpt64_zero_gradients(model);
  assert_true(tensor->grad[5] == 0);
  gpt64_free(model);
}

/* The loss and the norm of all gradients of each of CASES as transformers 5.23 computes them
 * (GPT2LMHeadModel, and LlamaForCausalLM with its RMSNorm and its rotary angles taken to float64) from the
 * same values and tokens. */
static const double TRANSFORMERS[CASE_COUNT][2] = {
    {2.9675422023829037, 3.1767076992425314}, {2.8767945255134131, 3.5439461584390575},
    {2.0054269193868963, 3.0485117969561895}, {2.2445869213892502, 3.3788835430682287},
    {3.1407289334361055, 7.6343286079005868}, {3.0664035358514345, 7.4099923737469329},
    {2.7271470502341106, 4.838130939202276},  {3.2558968801244395, 4.466874324809351},
    {3.61905209628958, 4.670092016904104},    {3.1862247676512134, 4.391728521626505},
};

static void test_transformers_computes_the_same(void **state) {
  (void)state;
  for (int i = 0; i < CASE_COUNT; i++) {
    Gpt64 *model = random_model(&CASES[i].config, 1);
    Sample sample = random_sample(CASES[i].config.vocab, 13, CASES[i].documents, CASES[i].ignored);
    double squares = 0;
    sample.divisor = 0;
    for (int64_t t = 0; t < sample.length; t++) sample.divisor += sample.targets[t] >= 0 ? 1 : 0;
    const double loss = loss_of(model, &sample, NULL, true);
    for (int64_t j = 0; j < model->count; j++) {
      const Gpt64Tensor *tensor = &model->tensors[j];
      for (int64_t k = 0; k < tensor->rows * tensor->cols; k++) squares += tensor->grad[k] * tensor->grad[k];
    }
    check_within(CASES[i].name, fabs(loss / TRANSFORMERS[i][0] - 1), 1e-13);
    check_within(CASES[i].name, fabs(sqrt(squares) / TRANSFORMERS[i][1] - 1), 1e-13);
    gpt64_free(model);
  }
}

/* ---------------------------------------------------------------- what a token depends on */

/* Changes the token at `changed` (not into or from an end of document) and reports in `moved` (T) which
 * tokens' NLL is another number than before, bit for bit. */
static void find_dependents(Gpt64 *model, const Sample *sample, int64_t changed, bool *moved) {
  double before[MAX_LENGTH];
  double after[MAX_LENGTH];
  Sample other = *sample;
  other.tokens[changed] = (int32_t)(1 + other.tokens[changed] % (model->config.vocab - 1));
  assert_int_not_equal(other.tokens[changed], sample->tokens[changed]);
  loss_of(model, sample, before, false);
  loss_of(model, &other, after, false);
  for (int64_t t = 0; t < sample->length; t++) moved[t] = before[t] != after[t];
}

static void test_no_token_depends_on_a_later_one(void **state) {
  (void)state;
  for (int i = 0; i < CASE_COUNT; i++) {
    if (CASES[i].documents || CASES[i].config.window > 0) continue;
    Gpt64 *model = random_model(&CASES[i].config, 3);
    const Sample sample = random_sample(CASES[i].config.vocab, 13, false, false);
    bool moved[MAX_LENGTH];
    find_dependents(model, &sample, 6, moved);
    for (int64_t t = 0; t < 13; t++) assert_int_equal(moved[t], t >= 6);
    gpt64_free(model);
  }
}

static void test_no_token_depends_on_another_document(void **state) {
  (void)state;
  for (int i = 0; i < CASE_COUNT; i++) {
    if (!CASES[i].documents || CASES[i].config.window > 0) continue;
    Gpt64 *model = random_model(&CASES[i].config, 4);
    const Sample sample = random_sample(CASES[i].config.vocab, 13, true, false);
    bool moved[MAX_LENGTH];
    /* The documents are 0 ... 3, 4, 5 ... 9, 10 ... 12. */
    find_dependents(model, &sample, 1, moved);
    for (int64_t t = 0; t < 13; t++) assert_int_equal(moved[t], t >= 1 && t <= 3);
    find_dependents(model, &sample, 6, moved);
    for (int64_t t = 0; t < 13; t++) assert_int_equal(moved[t], t >= 6 && t <= 9);
    gpt64_free(model);
  }
}

static void test_window_reaches_as_far_as_it_says(void **state) {
  (void)state;
  Gpt64Config config = CASES[3].config;
  config.layers = 1;
  config.window = 4;
  Gpt64 *model = random_model(&config, 5);
  const Sample sample = random_sample(config.vocab, 13, false, false);
  bool moved[MAX_LENGTH];
  find_dependents(model, &sample, 5, moved);
  for (int64_t t = 0; t < 13; t++) assert_int_equal(moved[t], t >= 5 && t < 9);
  gpt64_free(model);
}

static void test_window_may_be_folded_into_first_key(void **state) {
  (void)state;
  Gpt64Config config = CASES[5].config;
  Sample sample = random_sample(config.vocab, 13, true, false);
  Gpt64 *model = random_model(&config, 6);
  const double by_config = loss_of(model, &sample, NULL, false);
  model->config.window = 0;
  const double without = loss_of(model, &sample, NULL, false);
  for (int64_t t = 0; t < sample.length; t++) {
    if (sample.first_key[t] < t - 2) sample.first_key[t] = t - 2;
  }
  assert_true(loss_of(model, &sample, NULL, false) == by_config);
  assert_true(without != by_config);
  gpt64_free(model);
}

/* ---------------------------------------------------------------- identities */

static void test_ignored_targets_weigh_nothing(void **state) {
  (void)state;
  Gpt64 *model = random_model(&CASES[3].config, 7);
  Sample sample = random_sample(CASES[3].config.vocab, 13, false, true);
  double nll[MAX_LENGTH];
  double sum = 0;
  const double loss = loss_of(model, &sample, nll, false);
  for (int64_t t = 0; t < sample.length; t++) {
    assert_int_equal(nll[t] > 0, sample.targets[t] >= 0);
    sum += nll[t];
  }
  check_within("loss from its parts", fabs(loss - sum / sample.divisor), 1e-14);
  for (int64_t t = 0; t < sample.length; t++) sample.targets[t] = -1;
  gpt64_zero_gradients(model);
  assert_true(loss_of(model, &sample, NULL, true) == 0);
  for (int64_t i = 0; i < model->count; i++) {
    for (int64_t j = 0; j < model->tensors[i].rows * model->tensors[i].cols; j++) {
      assert_true(model->tensors[i].grad[j] == 0);
    }
  }
  gpt64_free(model);
}

static Gpt64Tensor *must_find(const Gpt64 *model, const char *name) {
  Gpt64Tensor *tensor = gpt64_find(model, name);
  if (tensor == NULL) fail_msg("no tensor %s", name);
  return tensor;
}

static void copy_values(const Gpt64Tensor *from, const Gpt64Tensor *to) {
  assert_int_equal(from->rows, to->rows);
  assert_int_equal(from->cols, to->cols);
  memcpy(to->value, from->value, (size_t)(from->rows * from->cols) * sizeof(double));
}

/* A tied head is an untied one with the embedding's values; its gradient is the sum of both uses. */
static void test_tied_head_is_the_embedding(void **state) {
  (void)state;
  Gpt64Config config = CASES[3].config;
  const Sample sample = random_sample(config.vocab, 13, false, false);
  Gpt64 *untied = random_model(&config, 8);
  config.tied = true;
  Gpt64 *tied = random_model(&config, 8);
  assert_null(gpt64_find(tied, "lm_head.weight"));
  const Gpt64Tensor *embedding = must_find(untied, "model.embed_tokens.weight");
  const Gpt64Tensor *head = must_find(untied, "lm_head.weight");
  const Gpt64Tensor *both = must_find(tied, "model.embed_tokens.weight");
  for (int64_t i = 0; i < tied->count; i++) {
    copy_values(must_find(untied, tied->tensors[i].name), &tied->tensors[i]);
  }
  copy_values(embedding, head);
  assert_true(loss_of(tied, &sample, NULL, true) == loss_of(untied, &sample, NULL, true));
  for (int64_t j = 0; j < both->rows * both->cols; j++) {
    check_within("tied gradient", fabs(both->grad[j] - embedding->grad[j] - head->grad[j]), 1e-13);
  }
  gpt64_free(untied);
  gpt64_free(tied);
}

/* Copies each of the kv_heads blocks of rows of a key or value projection to the heads of its group. */
static void repeat_heads(const Gpt64 *grouped, const Gpt64Tensor *from, const Gpt64Tensor *to) {
  const int64_t block = from->rows / grouped->config.kv_heads * from->cols;
  const int64_t group = grouped->config.heads / grouped->config.kv_heads;
  for (int64_t h = 0; h < grouped->config.heads; h++) {
    memcpy(to->value + h * block, from->value + h / group * block, (size_t)block * sizeof(double));
  }
}

/* Grouped heads are ordinary heads in which the members of a group have equal keys and values. */
static void test_grouped_heads_are_repeated_heads(void **state) {
  (void)state;
  Gpt64Config config = CASES[3].config;
  const Sample sample = random_sample(config.vocab, 13, false, false);
  Gpt64 *grouped = random_model(&config, 9);
  config.kv_heads = config.heads;
  Gpt64 *full = random_model(&config, 10);
  for (int64_t i = 0; i < full->count; i++) {
    const Gpt64Tensor *from = must_find(grouped, full->tensors[i].name);
    if (strstr(from->name, "k_proj") != NULL || strstr(from->name, "v_proj") != NULL) {
      repeat_heads(grouped, from, &full->tensors[i]);
    } else {
      copy_values(from, &full->tensors[i]);
    }
  }
  assert_true(loss_of(full, &sample, NULL, false) == loss_of(grouped, &sample, NULL, false));
  gpt64_free(grouped);
  gpt64_free(full);
}

/* RoPE knows distances alone: a document scored in its place and scored by itself at position 0 agree. */
static void test_rope_is_relative(void **state) {
  (void)state;
  const Gpt64Config *config = &CASES[3].config;
  Gpt64 *model = random_model(config, 11);
  const Sample whole = random_sample(config->vocab, 13, true, false);
  Sample part = {.length = 5, .divisor = 1};
  double nll[MAX_LENGTH];
  double alone[MAX_LENGTH];
  memcpy(part.tokens, whole.tokens + 5, 5 * sizeof part.tokens[0]);
  memcpy(part.targets, whole.targets + 5, 5 * sizeof part.targets[0]);
  loss_of(model, &whole, nll, false);
  loss_of(model, &part, alone, false);
  check_within("document by itself", relative_error64(5, nll + 5, alone), 1e-13);
  gpt64_free(model);
}

static void test_document_starts(void **state) {
  (void)state;
  const int32_t tokens[8] = {3, 0, 0, 5, 6, 0, 7, 7};
  const int64_t expected[8] = {0, 0, 2, 3, 3, 3, 6, 6};
  int64_t first_key[8];
  gpt64_document_starts(8, tokens, 0, first_key);
  for (int t = 0; t < 8; t++) assert_int_equal(first_key[t], expected[t]);
}

static void test_orientation(void **state) {
  (void)state;
  Gpt64 *model = random_model(&CASES[0].config, 12);
  Gpt64Tensor *tensor = must_find(model, "transformer.h.0.attn.c_attn.weight");
  enum { INPUTS = 12, OUTPUTS = 36 };
  static float from[INPUTS * OUTPUTS];
  static double to[INPUTS * OUTPUTS];
  assert_int_equal(tensor->rows, INPUTS);
  assert_int_equal(tensor->cols, OUTPUTS);
  for (int i = 0; i < INPUTS * OUTPUTS; i++) from[i] = (float)i;
  gpt64_set_value(tensor, from, true);
  assert_true(tensor->value[2 * OUTPUTS + 7] == 7 * INPUTS + 2);
  memcpy(tensor->grad, tensor->value, sizeof to);
  gpt64_get_gradient(tensor, to, true);
  for (int i = 0; i < INPUTS * OUTPUTS; i++) assert_true(to[i] == i);
  gpt64_set_value(tensor, from, false);
  assert_true(tensor->value[2 * OUTPUTS + 7] == 2 * OUTPUTS + 7);
  gpt64_free(model);
}

static void test_what_is_out_of_range_is_refused(void **state) {
  (void)state;
  Gpt64Config config = CASES[0].config;
  Gpt64 *model = random_model(&config, 13);
  const Sample sample = random_sample(config.vocab, 13, false, false);
  Sample bad = sample;
  bad.tokens[4] = (int32_t)config.vocab;
  assert_true(isnan(loss_of(model, &bad, NULL, true)));
  bad = sample;
  bad.targets[4] = (int32_t)config.vocab;
  assert_true(isnan(loss_of(model, &bad, NULL, true)));
  bad = sample;
  bad.length = config.max_positions + 1;
  assert_true(isnan(loss_of(model, &bad, NULL, true)));
  gpt64_free(model);
  config.heads = 5;
  assert_null(gpt64_create(&config));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_gradients_match_finite_differences),
      cmocka_unit_test(test_gradients_with_dropout),
      cmocka_unit_test(test_gradients_accumulate),
      cmocka_unit_test(test_transformers_computes_the_same),
      cmocka_unit_test(test_no_token_depends_on_a_later_one),
      cmocka_unit_test(test_no_token_depends_on_another_document),
      cmocka_unit_test(test_window_reaches_as_far_as_it_says),
      cmocka_unit_test(test_window_may_be_folded_into_first_key),
      cmocka_unit_test(test_ignored_targets_weigh_nothing),
      cmocka_unit_test(test_tied_head_is_the_embedding),
      cmocka_unit_test(test_grouped_heads_are_repeated_heads),
      cmocka_unit_test(test_rope_is_relative),
      cmocka_unit_test(test_document_starts),
      cmocka_unit_test(test_orientation),
      cmocka_unit_test(test_what_is_out_of_range_is_refused),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
