/* The frequencies of rotary positions: each type of scaling against what Hugging Face transformers gives,
 * against the reference's equations over many models, and the angles at a million positions. */
#include "model/rope.h"

#include <math.h>

#include "kernels/cpu/cpu_device.h"
#include "kernels/device.h"
#include "tests/reference/rope64.h"
#include "tests/support/compare.h"
#include "tests/support/expect.h"
#include "tests/support/gpt_case.h"
#include "tests/support/unit.h"

enum { PAIRS = 8, MOST_PAIRS = 128 };

#define FREQUENCY_BOUND 4e-16 /* radians; the fastest pair turns by 1 */

static ModelConfig scaled(double theta, int64_t positions, RopeScaling scaling) {
  ModelConfig config = llama_config(1, 2, 1, 2 * (int64_t)PAIRS, true);
  config.rope_theta = theta;
  config.max_position_embeddings = positions;
  config.rope_scaling = scaling;
  return config;
}

/* ---------------------------------------------------------------- transformers */

typedef struct Known {
  const char *name;
  double theta;
  int64_t positions;
  int64_t length;
  RopeScaling scaling;
  double attention_factor;
  double frequency[PAIRS];
} Known;

/* By the functions of ROPE_INIT_FUNCTIONS of transformers 5.23.0, for a LlamaConfig with heads of 16, with
 * torch.float and torch.float32 set to torch.float64. */
static const Known KNOWN[] = {
    {"linear",
     1e4,
     4096,
     100,
     {.rope_type = ROPE_LINEAR, .factor = 4},
     1,
     {0.25, 0.0790569415042095, 0.025, 0.00790569415042095, 0.0025, 0.000790569415042095, 0.00025,
      7.90569415042095e-05}},
    {"dynamic at its positions",
     1e4,
     2048,
     2048,
     {.rope_type = ROPE_DYNAMIC, .factor = 2},
     1,
     {1, 0.316227766016838, 0.1, 0.0316227766016838, 0.01, 0.00316227766016838, 0.001, 0.000316227766016838}},
    {"dynamic beyond",
     1e4,
     2048,
     8192,
     {.rope_type = ROPE_DYNAMIC, .factor = 2},
     1,
     {1, 0.239481356005984, 0.0573513198744648, 0.0137345718522698, 0.00328917389134318, 0.000787695823638343,
      0.000188638463965161, 4.51753951452626e-05}},
    {"yarn",
     1e6,
     131072,
     100,
     {.rope_type = ROPE_YARN,
      .factor = 4,
      .original_max_position_embeddings = 32768,
      .beta_fast = ROPE_BETA_FAST,
      .beta_slow = ROPE_BETA_SLOW,
      .truncate = true},
     1.138629436111989,
     {1, 0.177827941003892, 0.0316227766016838, 0.00421755993892762, 0.0005, 4.44569852509731e-05,
      7.90569415042095e-06, 1.40585331297587e-06}},
    {"yarn with limits and a factor of its own",
     5e5,
     65536,
     100,
     {.rope_type = ROPE_YARN,
      .factor = 16,
      .original_max_position_embeddings = 4096,
      .beta_fast = 20,
      .beta_slow = 2,
      .attention_factor = 1.5},
     1.5,
     {1, 0.193922744748686, 0.0376060309308639, 0.00302670426540743, 8.83883476483184e-05,
      1.7140510979763e-05, 3.32393493559062e-06, 6.44586586075779e-07}},
    {"yarn whose limits meet",
     1e4,
     512,
     100,
     {.rope_type = ROPE_YARN,
      .factor = 8,
      .original_max_position_embeddings = 64,
      .beta_fast = 64,
      .beta_slow = 32,
      .truncate = true},
     1.2079441541679836,
     {1, 0.0395284707521047, 0.0125, 0.00395284707521047, 0.00125, 0.000395284707521047, 0.000125,
      3.95284707521047e-05}},
    {"llama3",
     5e5,
     131072,
     100,
     {.rope_type = ROPE_LLAMA3,
      .factor = 8,
      .original_max_position_embeddings = 8192,
      .low_freq_factor = 1,
      .high_freq_factor = 4},
     1,
     {1, 0.193922744748686, 0.0376060309308639, 0.00729266473721711, 0.000524846160992955,
      3.42810219595259e-05, 6.64786987118124e-06, 1.28917317215156e-06}},
};

static void test_transformers_gives_the_same(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof KNOWN / sizeof KNOWN[0]; i++) {
    const Known *known = &KNOWN[i];
    const ModelConfig config = scaled(known->theta, known->positions, known->scaling);
    double frequency[PAIRS];
    rope_inverse_frequencies(&config, known->length, frequency);
    for (int j = 0; j < PAIRS; j++) {
      check_within(known->name, fabs(frequency[j] / known->frequency[j] - 1), 1e-14);
    }
    check_within(known->name, fabs(rope_attention_factor(&known->scaling) - known->attention_factor), 1e-15);
  }
}

/* ---------------------------------------------------------------- the reference's equations */

/* One of each type; yarn in both forms. */
static const RopeScaling SCALINGS[] = {
    {.rope_type = ROPE_DEFAULT, .truncate = true},
    {.rope_type = ROPE_LINEAR, .factor = 3},
    {.rope_type = ROPE_DYNAMIC, .factor = 2.5},
    {.rope_type = ROPE_YARN,
     .factor = 7,
     .original_max_position_embeddings = 2000,
     .beta_fast = 32,
     .beta_slow = 1,
     .truncate = true},
    {.rope_type = ROPE_YARN,
     .factor = 128,
     .original_max_position_embeddings = 8192,
     .beta_fast = 16,
     .beta_slow = 0.5,
     .attention_factor = 0.75},
    {.rope_type = ROPE_LLAMA3,
     .factor = 32,
     .original_max_position_embeddings = 8192,
     .low_freq_factor = 1,
     .high_freq_factor = 4},
};
enum { SCALING_COUNT = sizeof SCALINGS / sizeof SCALINGS[0] };

static void check_angles(Device *device, const ModelConfig *config, const Rope64 *rope, int64_t length) {
  const int64_t d = config->hidden_size / config->num_attention_heads;
  const int64_t positions[] = {0, 1, 4095, length / 2, length - 1};
  enum { N = sizeof positions / sizeof positions[0] };
  double frequency[MOST_PAIRS];
  float table[N * 2 * MOST_PAIRS];
  rope_inverse_frequencies(config, length, frequency);
  device->ops.rope_table(device, N, d, positions, frequency, table);
  for (int64_t j = 0; j < d / 2; j++) {
    const long double exact = rope64_frequency(rope, config->rope_theta, d, length, j);
    check_within("a frequency", (double)fabsl((long double)frequency[j] - exact), FREQUENCY_BOUND);
    for (int i = 0; i < N; i++) {
      /* Half a step of float below 1, what the frequency lacks, and the rounding of its product in double. */
      const long double angle = (long double)positions[i] * exact;
      const double bound = 0x1p-25 + (double)positions[i] * FREQUENCY_BOUND + 0x1p-53 * (double)angle;
      check_within("a cosine", (double)fabsl((long double)table[i * d + j] - cosl(angle)), bound);
      check_within("a sine", (double)fabsl((long double)table[i * d + d / 2 + j] - sinl(angle)), bound);
    }
  }
}

/* All types, sizes of heads and bases, at a million positions. */
static void test_angles_at_a_million(void **state) {
  (void)state;
  static const int64_t head_dims[] = {8, 16, 40, 64, 128, 256};
  static const double thetas[] = {100, 10000, 500000, 5e7};
  Device *device = NULL;
  Error error = {0};
  expect_ok(cpu_device_create(1, ELEMENT_F32, &device, &error), &error);
  for (int s = 0; s < SCALING_COUNT; s++) {
    for (size_t h = 0; h < sizeof head_dims / sizeof head_dims[0]; h++) {
      for (size_t t = 0; t < sizeof thetas / sizeof thetas[0]; t++) {
        ModelConfig config = scaled(thetas[t], 4096, SCALINGS[s]);
        config.hidden_size = config.num_attention_heads * head_dims[h];
        const Rope64 rope = gpt_case_rope(&config);
        check_angles(device, &config, &rope, (int64_t)1 << 20);
      }
    }
  }
  device_destroy(device);
}

/* What every type promises: no pair turns faster than without, or slower than by the whole factor, and the
 * fastest pair stays as it is but under linear. */
static void test_between_both_frequencies(void **state) {
  (void)state;
  for (int s = 0; s < SCALING_COUNT; s++) {
    const RopeScaling *scaling = &SCALINGS[s];
    if (scaling->rope_type == ROPE_DEFAULT || scaling->rope_type == ROPE_DYNAMIC) continue;
    const ModelConfig config = scaled(10000, 4096, *scaling);
    double frequency[PAIRS];
    rope_inverse_frequencies(&config, 1000, frequency);
    for (int j = 0; j < PAIRS; j++) {
      const double plain = pow(10000, -j / (double)PAIRS);
      assert_true(frequency[j] <= plain * (1 + 1e-15));
      assert_true(frequency[j] >= plain / scaling->factor * (1 - 1e-15));
    }
    assert_true(frequency[0] == (scaling->rope_type == ROPE_LINEAR ? 1 / scaling->factor : 1));
    assert_true(fabs(frequency[PAIRS - 1] * scaling->factor / pow(10000, -7 / 8.0) - 1) < 1e-14);
  }
}

/* Dynamic scaling interpolates the slowest pair by exactly what the length asks for, and changes nothing up
 * to the model's positions. */
static void test_dynamic_by_length(void **state) {
  (void)state;
  const ModelConfig plain = scaled(10000, 1000, (RopeScaling){.truncate = true});
  const ModelConfig dynamic = scaled(10000, 1000, (RopeScaling){.rope_type = ROPE_DYNAMIC, .factor = 3});
  double expected[PAIRS];
  double got[PAIRS];
  rope_inverse_frequencies(&plain, 7, expected);
  for (int64_t length = 1; length <= 1000; length += 333) {
    rope_inverse_frequencies(&dynamic, length, got);
    assert_memory_equal(got, expected, sizeof got);
  }
  rope_inverse_frequencies(&dynamic, 4000, got);
  assert_true(fabs(expected[PAIRS - 1] / got[PAIRS - 1] / (3 * 4.0 - 2) - 1) < 1e-14);
  assert_true(got[0] == 1);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_transformers_gives_the_same),
      cmocka_unit_test(test_angles_at_a_million),
      cmocka_unit_test(test_between_both_frequencies),
      cmocka_unit_test(test_dynamic_by_length),
  };
  return cmocka_run_group_tests_name("rope", tests, NULL, NULL);
}
