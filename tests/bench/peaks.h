/* What the machine can do at this moment: the peaks that cases are held against.
 *
 * On the CPU: the instructions that products are made of, in registers, and y += x in memory, on all threads
 * of the device. In the same breath one thread alone and the clock are measured, which tells whether anything
 * else used the cores. On a CUDA device: a large product in fp32 and in bf16, and a large copy. Bytes count
 * once for each array that is read or written. */
#ifndef RINGGPT_BENCH_PEAKS_H
#define RINGGPT_BENCH_PEAKS_H

#include "tests/bench/measure.h"

typedef struct PeakSample {
  double rate;     /* work a second, of all threads together */
  double alone;    /* of one thread while the others rest */
  double pair;     /* arithmetic of all threads as a multiple of that of one */
  double most;     /* what the clock allows: threads x units x operations of an instruction x clock */
  double of_clock; /* the lesser of rate and threads x alone, as a share of that */
} PeakSample;

/* Prepares the peaks of the bench's devices; `units`: instructions that a core of the CPU begins in a cycle,
 * 0: to be found out. Says on stdout what was found. On failure nothing is left. */
Status peaks_open(Bench *bench, int units, Error *error);
void peaks_close(Bench *bench);

/* Measures one. Where nothing can tell whether the machine is the benchmark's own, as on a CUDA device and
 * beside other processes, nothing is disturbed. */
PeakSample peaks_measure(Bench *bench, Limit limit);

/* measure.c: the same, measured again while something else uses the cores, as long as there are retries. */
PeakSample bench_wait(Bench *bench, Limit limit, Results *results);

/* What a case is held against. */
double peaks_rate(const PeakSample *sample, bool alone);

/* The part: the peaks themselves; arithmetic of the CPU against its clock. */
void bench_peaks(Bench *bench);

#endif
