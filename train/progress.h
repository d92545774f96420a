/* What people read on a terminal while something runs: the bar with the time left, counts and durations. */
#ifndef RINGGPT_TRAIN_PROGRESS_H
#define RINGGPT_TRAIN_PROGRESS_H

#include <stddef.h>
#include <stdint.h>

/* Writes "[=====>     ]  42%  1 min 40 s left" for `done` of `total`; without the time where seconds_left is
 * negative. */
void progress_bar(int64_t done, int64_t total, double seconds_left, char *text, size_t bytes);

/* Writes a duration: "12 s", "3 min 20 s", "5 h 02 min", "3 d 04 h". */
void progress_duration(double seconds, char *text, size_t bytes);

/* Writes a count with separators: "1,048,576". */
void progress_count(int64_t count, char *text, size_t bytes);

#endif
