/* Bars, durations and counts for people. */
#include "train/progress.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>

#define BAR_CELLS 30

void progress_duration(double seconds, char *text, size_t bytes) {
  /* Beyond any real duration, also for a value that is not finite. */
  const int64_t whole = seconds >= 0 && seconds < 1e12 ? (int64_t)(seconds + 0.5) : 0;
  const int64_t minutes = whole / 60, hours = minutes / 60, days = hours / 24;
  if (days > 0)
    (void)snprintf(text, bytes, "%" PRId64 " d %02" PRId64 " h", days, hours % 24);
  else if (hours > 0)
    (void)snprintf(text, bytes, "%" PRId64 " h %02" PRId64 " min", hours, minutes % 60);
  else if (minutes > 0)
    (void)snprintf(text, bytes, "%" PRId64 " min %02" PRId64 " s", minutes, whole % 60);
  else
    (void)snprintf(text, bytes, "%" PRId64 " s", whole);
}

void progress_count(int64_t count, char *text, size_t bytes) {
  char digits[24];
  const int length = snprintf(digits, sizeof digits, "%" PRId64, count);
  size_t used = 0;
  for (int i = 0; i < length && used + 2 < bytes; i++) {
    const bool group = i > 0 && (length - i) % 3 == 0 && digits[i - 1] != '-';
    if (group) text[used++] = ',';
    text[used++] = digits[i];
  }
  text[used] = '\0';
}

void progress_bar(int64_t done, int64_t total, double seconds_left, char *text, size_t bytes) {
  double share = total > 0 ? (double)done / (double)total : 1;
  if (share > 1) share = 1;
  char cells[BAR_CELLS + 1], left[32];
  const int filled = (int)(share * BAR_CELLS);
  for (int i = 0; i < BAR_CELLS; i++) cells[i] = i < filled ? '=' : i == filled ? '>' : ' ';
  cells[BAR_CELLS] = '\0';
  progress_duration(seconds_left, left, sizeof left);
  const bool known = seconds_left >= 0;
  (void)snprintf(text, bytes, "[%s] %3d%%%s%s%s", cells, (int)(share * 100), known ? "  " : "",
                 known ? left : "", known ? " left" : "");
}
