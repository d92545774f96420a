/* The nearest of several names. */
#include "train/names.h"

#include <string.h>

static int64_t least(int64_t a, int64_t b) {
  return a < b ? a : b;
}

int64_t names_distance(const char *a, const char *b) {
  const size_t rows = strnlen(a, NAME_MAX_BYTES);
  const size_t columns = strnlen(b, NAME_MAX_BYTES);
  /* cost[i % 3][j] turns the first i bytes of a into the first j of b; three rows reach an exchange. */
  int64_t cost[3][NAME_MAX_BYTES + 1];
  for (size_t j = 0; j <= columns; j++) cost[0][j] = (int64_t)j;
  for (size_t i = 1; i <= rows; i++) {
    int64_t *row = cost[i % 3];
    const int64_t *above = cost[(i + 2) % 3];
    const int64_t *two_above = cost[(i + 1) % 3];
    row[0] = (int64_t)i;
    for (size_t j = 1; j <= columns; j++) {
      const int64_t substitution = above[j - 1] + (a[i - 1] != b[j - 1]);
      row[j] = least(substitution, least(above[j], row[j - 1]) + 1);
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        row[j] = least(row[j], two_above[j - 2] + 1);
    }
  }
  return cost[rows % 3][columns];
}

bool names_near(const char *given, int64_t distance) {
  const int64_t third = (int64_t)strnlen(given, NAME_MAX_BYTES) / 3;
  return distance <= (third > 2 ? third : 2);
}
