/* Two runs of the benchmark side by side. */
#ifndef RINGGPT_BENCH_COMPARE_H
#define RINGGPT_BENCH_COMPARE_H

#include "kernels/base/status.h"

/* Prints for each case that both files of JSON lines (bench -j) hold how many times as fast B is, by the
 * medians, and marks it where the ranges of the times do not overlap and where a line is invalid. STATUS_DATA
 * for a file that holds something else, STATUS_NO_INPUT for one that cannot be read, and where no case is in
 * both. */
Status bench_compare(const char *a, const char *b, Error *error);

#endif
