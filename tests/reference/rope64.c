/* The reference's rotary positions. */
#include "tests/reference/rope64.h"

#include <math.h>

static const long double TURN = 6.283185307179586476925286766559L;

/* The part of a scaled pair that stays as it is: 1 for fast pairs, 0 for slow ones. Yarn's goes down evenly
 * from pair to pair, as in its published program; its paper has it go with the turns, as llama3's does. */
static long double yarn_kept(const Rope64 *rope, long double theta, int64_t d, int64_t j) {
  const long double trained = (long double)rope->trained;
  /* theta^(-2j/d) trained = 2 pi turns, solved for j. */
  long double first =
      (long double)d / 2 * log2l(trained / TURN / (long double)rope->many_turns) / log2l(theta);
  long double last = (long double)d / 2 * log2l(trained / TURN / (long double)rope->few_turns) / log2l(theta);
  if (rope->truncate) {
    first = floorl(first);
    last = ceill(last);
  }
  if (first < 0) first = 0;
  if (last > (long double)(d - 1)) last = (long double)(d - 1);
  if (first == last) last += 0.001L;
  const long double slowed = ((long double)j - first) / (last - first);
  return slowed < 0 ? 1 : slowed > 1 ? 0 : 1 - slowed;
}

static long double llama3_kept(const Rope64 *rope, long double plain) {
  const long double wavelength = TURN / plain;
  const long double longest = (long double)rope->trained / (long double)rope->few_turns;
  const long double shortest = (long double)rope->trained / (long double)rope->many_turns;
  if (wavelength > longest) return 0;
  if (wavelength < shortest) return 1;
  return ((long double)rope->trained / wavelength - (long double)rope->few_turns) /
         (long double)(rope->many_turns - rope->few_turns);
}

long double rope64_frequency(const Rope64 *rope, double theta, int64_t d, int64_t length, int64_t j) {
  const long double plain = expl(-2.0L * (long double)j / (long double)d * logl((long double)theta));
  const long double factor = (long double)rope->factor;
  long double kept = 1;
  if (rope->scaling == ROPE64_LINEAR) kept = 0;
  if (rope->scaling == ROPE64_YARN) kept = yarn_kept(rope, (long double)theta, d, j);
  if (rope->scaling == ROPE64_LLAMA3) kept = llama3_kept(rope, plain);
  if (rope->scaling == ROPE64_DYNAMIC && length > rope->trained) {
    /* The base's power d / (d - 2), taken to -2j/d: the slowest pair is interpolated by `stretch`. */
    const long double stretch = 1 + factor * ((long double)length / (long double)rope->trained - 1);
    return plain * powl(stretch, -2.0L * (long double)j / (long double)(d - 2));
  }
  return kept == 1 ? plain : plain * kept + plain / factor * (1 - kept);
}

double rope64_magnitude(const Rope64 *rope) {
  if (rope->scaling != ROPE64_YARN) return 1;
  return rope->magnitude > 0 ? rope->magnitude : 1 + log(rope->factor) / 10;
}
