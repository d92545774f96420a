/* The nearest of several names to one that does not exist: for "did you mean" in error messages. */
#ifndef RINGGPT_TRAIN_NAMES_H
#define RINGGPT_TRAIN_NAMES_H

#include <stdbool.h>
#include <stdint.h>

/* Names are compared over this many bytes at most. */
#define NAME_MAX_BYTES 64

/* Insertions, deletions, substitutions and exchanges of neighbours that turn a into b, each piece edited
 * once: the optimal string alignment distance. */
int64_t names_distance(const char *a, const char *b);

/* Whether two names at this distance are near enough for one to be meant by the other. */
bool names_near(const char *given, int64_t distance);

#endif
