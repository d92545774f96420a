/* Small helpers for tests: distances between arrays, repeatable pseudo-random data, checks that name what is
 * wrong. */
#ifndef RINGGPT_SUPPORT_COMPARE_H
#define RINGGPT_SUPPORT_COMPARE_H

#include <stdint.h>

/* The norm of (got - expected) over the norm of expected, both over `count` elements and summed in double;
 * the plain norm of the difference where expected is all zeros. NaN or infinity in `got` gives NaN or
 * infinity. */
double relative_error(int64_t count, const float *got, const double *expected);
double relative_error64(int64_t count, const double *got, const double *expected);

/* A stream of pseudo-random numbers: splitmix64 (G. Steele, D. Lea and C. Flood, OOPSLA 2014). Any seed will
 * do.
 */
typedef struct Random {
  uint64_t state;
} Random;

/* The next 64 random bits. */
uint64_t random_bits(Random *random);
/* A number in [0, 1). */
double random_uniform(Random *random);
/* A normal number of mean 0 and variance 1, by Box and Muller's transform. */
double random_normal(Random *random);
/* An integer in [0, limit), limit at least 1 and far below 2^64. */
int64_t random_below(Random *random, int64_t limit);

/* Normal numbers times `scale`, to out (count). Both give the same numbers for the same state, the first
 * rounded to float. */
void random_fill(Random *random, int64_t count, double scale, float *out);
void random_fill64(Random *random, int64_t count, double scale, double *out);

/* Fails the running cmocka test, naming the value, its error and the bound, unless error <= bound; NaN fails.
 */
#define check_within(name, error, bound) check_within_at(name, error, bound, __FILE__, __LINE__)
void check_within_at(const char *name, double error, double bound, const char *file, int line);

#endif
