/* The sampler against a plain one in float64: which tokens can come, how often they do, and what decides. */
#include "train/sampler.h"

#include <math.h>
#include <stdlib.h>

#include "tests/support/compare.h"
#include "tests/support/expect.h"
#include "tests/support/unit.h"

enum { MOST = 24, LARGE = 50257 };

/* ---------------------------------------------------------------- a plain sampler */

typedef struct Ranked {
  double logit;
  int64_t token;
} Ranked;

static int by_logit(const void *left, const void *right) {
  const Ranked *a = left;
  const Ranked *b = right;
  if (a->logit != b->logit) return a->logit > b->logit ? -1 : 1;
  return (a->token > b->token) - (a->token < b->token);
}

/* The probability of each token (vocab) by the definition: everything is sorted, nothing is clever. */
static void naive_probabilities(int64_t vocab, const float *logits, const SamplerOptions *options,
                                double *out) {
  static Ranked ranked[LARGE];
  const int64_t most = options->top_k > 0 && options->top_k < vocab ? options->top_k : vocab;
  double all = 0.0;
  double sum = 0.0;
  int64_t kept = 0;
  for (int64_t i = 0; i < vocab; i++) ranked[i] = (Ranked){(double)logits[i], i};
  qsort(ranked, (size_t)vocab, sizeof *ranked, by_logit);
  for (int64_t i = 0; i < vocab; i++) {
    out[ranked[i].token] = exp((ranked[i].logit - ranked[0].logit) / options->temperature);
    if (i < most) all += out[ranked[i].token];
  }
  for (; kept < most && (kept == 0 || sum / all < options->top_p); kept++) sum += out[ranked[kept].token];
  for (int64_t i = 0; i < vocab; i++) out[ranked[i].token] *= i < kept ? 1.0 / sum : 0.0;
}

/* ---------------------------------------------------------------- helpers */

static Sampler *make(int64_t vocab, const SamplerOptions *options) {
  Error error = {0};
  Sampler *sampler = NULL;
  expect_ok(sampler_create(vocab, options, &sampler, &error), &error);
  return sampler;
}

static int32_t draw(Sampler *sampler, const float *logits, uint64_t number) {
  Error error = {0};
  int32_t token = -1;
  expect_ok(sampler_draw(sampler, logits, number, &token, &error), &error);
  return token;
}

static int32_t draw_once(int64_t vocab, const float *logits, SamplerOptions options) {
  Sampler *sampler = make(vocab, &options);
  const int32_t token = draw(sampler, logits, 3);
  sampler_destroy(sampler);
  return token;
}

/* Draws often: exactly the tokens with a probability come, and as often as it says. Every token that can come
 * has a probability of at least 1/2000 here, so that one that never comes in 40,000 draws is missing. */
static void check_frequencies(int64_t vocab, const float *logits, const SamplerOptions *options) {
  enum { DRAWS = 40000 };
  double expected[MOST];
  int64_t seen[MOST] = {0};
  double chi_square = 0.0;
  int64_t possible = 0;
  naive_probabilities(vocab, logits, options, expected);
  Sampler *sampler = make(vocab, options);
  for (uint64_t i = 0; i < DRAWS; i++) {
    const int32_t token = draw(sampler, logits, i);
    assert_true(token >= 0 && token < vocab);
    seen[token]++;
  }
  sampler_destroy(sampler);
  for (int64_t i = 0; i < vocab; i++) {
    if ((seen[i] > 0) != (expected[i] > 0.0)) {
      fail_msg("token %d came %d times, its probability is %g (temperature %g, top-k %d, top-p %g)", (int)i,
               (int)seen[i], expected[i], options->temperature, (int)options->top_k, options->top_p);
    }
    if (expected[i] == 0.0) continue;
    assert_true(expected[i] > 1.0 / 2000.0);
    const double difference = (double)seen[i] - expected[i] * DRAWS;
    chi_square += difference * difference / (expected[i] * DRAWS);
    possible++;
  }
  /* Mean n, variance 2 n: six deviations, and more for the long tail of few degrees of freedom. */
  const double freedom = (double)(possible - 1);
  if (chi_square > freedom + 6.0 * sqrt(2.0 * freedom) + 12.0) {
    fail_msg("chi square %g of %g degrees of freedom", chi_square, freedom);
  }
}

/* ---------------------------------------------------------------- what comes, and how often */

static void test_against_plain_sampler(void **state) {
  (void)state;
  static const int64_t cuts[] = {0, 1, 2, 5, 11, 100};
  static const double shares[] = {1.0, 0.999, 0.9, 0.5, 0.1, 0.0};
  Random random = {77};
  for (int i = 0; i < 72; i++) {
    float logits[MOST];
    const int64_t vocab = 1 + random_below(&random, MOST);
    const SamplerOptions options = {.temperature = 0.8 + 0.4 * (double)random_below(&random, 4),
                                    .top_k = cuts[i % 6],
                                    .top_p = shares[(i / 6) % 6],
                                    .seed = (uint64_t)i};
    for (int64_t t = 0; t < vocab; t++) logits[t] = (float)random_below(&random, 40000) / 10000.0F - 60.0F;
    check_frequencies(vocab, logits, &options);
  }
}

/* Of equal logits the lower tokens stay, in every cut. */
static void test_ties(void **state) {
  (void)state;
  const float logits[] = {1, 2, 2, 1, 2, 0, 1, 2, 0};
  for (int64_t top_k = 0; top_k <= 9; top_k++) {
    for (int i = 0; i <= 10; i++) {
      const SamplerOptions options = {
          .temperature = 1.0, .top_k = top_k, .top_p = (double)i * 0.1 + 1e-4 * (i < 10), .seed = 5};
      check_frequencies(9, logits, &options);
    }
  }
}

/* A set whose probability is exactly top_p is large enough. */
static void test_exact_share(void **state) {
  (void)state;
  const float logits[] = {0, 0, 0, 0};
  for (int64_t top_k = 0; top_k <= 4; top_k += 4) {
    for (int quarters = 1; quarters <= 4; quarters++) {
      const SamplerOptions options = {
          .temperature = 1.0, .top_k = top_k, .top_p = 0.25 * quarters, .seed = 3};
      Sampler *sampler = make(4, &options);
      int64_t seen[4] = {0};
      for (uint64_t i = 0; i < 1000; i++) seen[draw(sampler, logits, i)]++;
      for (int t = 0; t < 4; t++) assert_int_equal(seen[t] > 0, t < quarters);
      sampler_destroy(sampler);
    }
  }
}

/* A vocabulary of GPT-2's size: only tokens of the set come, and with the surprise that they should have. */
static void test_large_vocabulary(void **state) {
  (void)state;
  enum { DRAWS = 400 };
  const SamplerOptions all[] = {{.temperature = 1.0, .top_k = 40, .top_p = 1.0, .seed = 1},
                                {.temperature = 0.7, .top_k = 0, .top_p = 0.95, .seed = 2},
                                {.temperature = 1.5, .top_k = 1000, .top_p = 0.8, .seed = 3},
                                {.temperature = 1.0, .top_k = 0, .top_p = 1.0, .seed = 4}};
  static float logits[LARGE];
  static double expected[LARGE];
  Random random = {6};
  for (int i = 0; i < LARGE; i++) logits[i] = (float)random_below(&random, 1000000) / 60000.0F;
  for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
    Sampler *sampler = make(LARGE, &all[i]);
    double entropy = 0.0;
    double surprise = 0.0;
    naive_probabilities(LARGE, logits, &all[i], expected);
    for (uint64_t n = 0; n < DRAWS; n++) {
      const int32_t token = draw(sampler, logits, n);
      assert_true(token >= 0 && token < LARGE && expected[token] > 0.0);
      surprise -= log(expected[token]) / DRAWS;
    }
    for (int t = 0; t < LARGE; t++) entropy -= expected[t] > 0.0 ? expected[t] * log(expected[t]) : 0.0;
    check_within("surprise", fabs(surprise - entropy), 0.25);
    sampler_destroy(sampler);
  }
}

/* ---------------------------------------------------------------- limits */

static void test_greedy(void **state) {
  (void)state;
  const float logits[] = {-3, 7, 7, -INFINITY, 6.9999995F, 7};
  const float low[] = {-INFINITY, -3e38F, -INFINITY};
  for (uint64_t seed = 0; seed < 20; seed++) {
    const SamplerOptions greedy = {.temperature = 0.0, .top_p = 1.0, .seed = seed};
    assert_int_equal(draw_once(6, logits, greedy), 1);
    assert_int_equal(draw_once(3, low, greedy), 1);
    /* What amounts to the same. */
    assert_int_equal(draw_once(6, logits, (SamplerOptions){1.0, 1, 1.0, seed}), 1);
    assert_int_equal(draw_once(6, logits, (SamplerOptions){1.0, 0, 0.0, seed}), 1);
    assert_int_equal(draw_once(3, low, (SamplerOptions){1.0, 0, 1.0, seed}), 1);
    assert_int_equal(draw_once(2, logits, (SamplerOptions){5e-324, 0, 1.0, seed}), 1);
  }
}

static void test_extreme_logits(void **state) {
  (void)state;
  /* Differences that overflow float, and a share that only the likely half has. */
  const float logits[] = {3e38F, -3e38F, 3e38F, -INFINITY, 3e38F};
  const SamplerOptions options = {.temperature = 1.0, .top_k = 0, .top_p = 1.0, .seed = 9};
  Sampler *sampler = make(5, &options);
  int64_t seen[5] = {0};
  for (uint64_t i = 0; i < 3000; i++) seen[draw(sampler, logits, i)]++;
  assert_true(seen[0] > 900 && seen[2] > 900 && seen[4] > 900);
  sampler_destroy(sampler);
}

static void test_broken_logits(void **state) {
  (void)state;
  const float broken[][3] = {{0, NAN, 1}, {NAN, 5, 1}, {0, 1, NAN}, {0, INFINITY, 1}};
  const float none[] = {-INFINITY, -INFINITY, -INFINITY};
  const double temperatures[] = {0.0, 1.0};
  for (int t = 0; t < 2; t++) {
    Error error = {0};
    int32_t token = 0;
    const SamplerOptions options = {.temperature = temperatures[t], .top_p = 1.0};
    Sampler *sampler = make(3, &options);
    for (size_t i = 0; i < sizeof broken / sizeof broken[0]; i++) {
      expect_error(sampler_draw(sampler, broken[i], 0, &token, &error), &error, STATUS_DATA,
                   i < 3 ? "not a number" : "token 1 is infinite");
    }
    expect_error(sampler_draw(sampler, none, 0, &token, &error), &error, STATUS_DATA, "-infinity");
    sampler_destroy(sampler);
  }
  sampler_destroy(NULL);
}

/* ---------------------------------------------------------------- seeds */

/* The number of a token and the seed decide, and nothing else: neither the sampler nor what it drew before.
 */
static void test_seeds(void **state) {
  (void)state;
  enum { COUNT = 200 };
  float logits[MOST];
  int32_t first[COUNT];
  int same = 0;
  for (int i = 0; i < MOST; i++) logits[i] = 0.01F * (float)i;
  SamplerOptions options = {.temperature = 1.0, .top_k = 20, .top_p = 0.97, .seed = 123};
  Sampler *sampler = make(MOST, &options);
  Sampler *again = make(MOST, &options);
  options.seed += (uint64_t)1 << 32; /* all bits count */
  Sampler *other = make(MOST, &options);
  for (uint64_t i = 0; i < COUNT; i++) first[i] = draw(sampler, logits, i);
  for (uint64_t i = COUNT; i-- > 0;) {
    assert_int_equal(draw(again, logits, i), first[i]);
    same += draw(other, logits, i) == first[i];
  }
  assert_true(same < COUNT / 4);
  sampler_destroy(other);
  sampler_destroy(again);
  sampler_destroy(sampler);
}

/* A cut that cuts nothing changes nothing: neither a top_k of all tokens that can come, nor a share that only
 * all of them together have. */
static void test_cuts_of_nothing(void **state) {
  (void)state;
  float logits[MOST];
  Random random = {12};
  for (int i = 0; i < MOST; i++) logits[i] = (float)random_below(&random, 40000) / 10000.0F;
  logits[5] = -INFINITY;
  const SamplerOptions plain = {.temperature = 1.0, .top_k = 0, .top_p = 1.0, .seed = 4};
  const SamplerOptions same[] = {{.temperature = 1.0, .top_k = MOST - 1, .top_p = 1.0, .seed = 4},
                                 {.temperature = 1.0, .top_k = MOST, .top_p = 1.0, .seed = 4},
                                 {.temperature = 1.0, .top_k = 1000, .top_p = 1.0, .seed = 4},
                                 {.temperature = 1.0, .top_k = 0, .top_p = 0.99999999, .seed = 4}};
  for (size_t i = 0; i < sizeof same / sizeof same[0]; i++) {
    Sampler *uncut = make(MOST, &plain);
    Sampler *cut = make(MOST, &same[i]);
    for (uint64_t n = 0; n < 300; n++) assert_int_equal(draw(cut, logits, n), draw(uncut, logits, n));
    sampler_destroy(cut);
    sampler_destroy(uncut);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_against_plain_sampler),
      cmocka_unit_test(test_ties),
      cmocka_unit_test(test_exact_share),
      cmocka_unit_test(test_large_vocabulary),
      cmocka_unit_test(test_greedy),
      cmocka_unit_test(test_extreme_logits),
      cmocka_unit_test(test_broken_logits),
      cmocka_unit_test(test_seeds),
      cmocka_unit_test(test_cuts_of_nothing),
  };
  return cmocka_run_group_tests_name("sampler", tests, NULL, NULL);
}
