/* Small helpers for tests: see the header. */
#include "tests/support/compare.h"

#include <math.h>

#include "tests/support/unit.h"

/* The relative error from the two sums of squares. */
static double ratio(double difference, double expected) {
  return expected > 0 ? sqrt(difference / expected) : sqrt(difference);
}

double relative_error(int64_t count, const float *got, const double *expected) {
  double difference = 0;
  double norm = 0;
  for (int64_t i = 0; i < count; i++) {
    const double d = (double)got[i] - expected[i];
    difference += d * d;
    norm += expected[i] * expected[i];
  }
  return ratio(difference, norm);
}

double relative_error64(int64_t count, const double *got, const double *expected) {
  double difference = 0;
  double norm = 0;
  for (int64_t i = 0; i < count; i++) {
    const double d = got[i] - expected[i];
    difference += d * d;
    norm += expected[i] * expected[i];
  }
  return ratio(difference, norm);
}

uint64_t random_bits(Random *random) {
  random->state += 0x9e3779b97f4a7c15u;
  uint64_t z = random->state;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

double random_uniform(Random *random) {
  return (double)(random_bits(random) >> 11) * 0x1p-53;
}

double random_normal(Random *random) {
  const double two_pi = 6.283185307179586477;
  const double radius = sqrt(-2 * log(1 - random_uniform(random)));
  return radius * cos(two_pi * random_uniform(random));
}

int64_t random_below(Random *random, int64_t limit) {
  return (int64_t)(random_bits(random) % (uint64_t)limit);
}

void random_fill(Random *random, int64_t count, double scale, float *out) {
  for (int64_t i = 0; i < count; i++) out[i] = (float)(scale * random_normal(random));
}

void random_fill64(Random *random, int64_t count, double scale, double *out) {
  for (int64_t i = 0; i < count; i++) out[i] = scale * random_normal(random);
}

void check_within_at(const char *name, double error, double bound, const char *file, int line) {
  if (error <= bound) return;
  print_error("%s: error %.3e, bound %.3e\n", name, error, bound);
  _fail(file, line);
}
