/* The reference's rotary positions: angles and lengths of the turned pairs, plain and scaled for longer
 * contexts. Written from the papers and sharing no source with the program that it judges. */
#ifndef RINGGPT_REFERENCE_ROPE64_H
#define RINGGPT_REFERENCE_ROPE64_H

#include <stdbool.h>
#include <stdint.h>

typedef enum Rope64Scaling {
  ROPE64_PLAIN,
  ROPE64_LINEAR,
  ROPE64_DYNAMIC,
  ROPE64_YARN,
  ROPE64_LLAMA3
} Rope64Scaling;

typedef struct Rope64 {
  Rope64Scaling scaling;
  double factor;
  int64_t trained;   /* positions before the scaling */
  double many_turns; /* over the trained positions: yarn's beta_fast, llama3's high_freq_factor */
  double few_turns;  /* yarn's beta_slow, llama3's low_freq_factor */
  double magnitude;  /* yarn: of the turned pairs; 0: what the paper says */
  bool truncate;     /* yarn: limits are whole pairs */
} Rope64;

/* Radians by which pair j (elements j and j + d/2) of a head turns from one position to the next in a text of
 * `length` tokens. long double, since a million positions multiply what is wrong with it. */
long double rope64_frequency(const Rope64 *rope, double theta, int64_t d, int64_t length, int64_t j);

/* What turned pairs are multiplied by. */
double rope64_magnitude(const Rope64 *rope);

#endif
