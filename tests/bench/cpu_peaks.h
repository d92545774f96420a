/* The peaks of a CPU: instructions in registers on several threads, the clock, arrays in memory. */
#ifndef RINGGPT_BENCH_CPU_PEAKS_H
#define RINGGPT_BENCH_CPU_PEAKS_H

#include <stdbool.h>

#include "tests/bench/peak_kernel.h"

/* Rates of arithmetic are FLOP/s. */
typedef struct CpuArithmetic {
  double rate;  /* of all threads together */
  double alone; /* of one */
  double clock; /* cycles a second of a core while all work */
} CpuArithmetic;

/* The loop of this CPU for floats, and for bf16: that for floats where it has no instruction for it. `avx2`:
 * nothing wider than AVX2. */
const PeakKernel *cpu_peak_kernel(bool bf16, bool avx2);

/* How many steps of the loop take one thread about `seconds`. */
int64_t cpu_peak_steps(const PeakKernel *kernel, double seconds);

/* Runs one thread, and then `threads` of them. */
CpuArithmetic cpu_peak_arithmetic(const PeakKernel *kernel, int64_t steps, int threads);

/* Instructions of the loop that one core begins in a cycle, a whole number or a half: by the most that some
 * tries have reached, which whatever else runs can only make less. */
double cpu_peak_units(const PeakKernel *kernel, int64_t steps);

/* Seconds in which `threads` together add x to y (count each). A copy would measure less: it reads from
 * memory what it then overwrites, which nobody counts. */
double cpu_peak_update(float *y, const float *x, int64_t count, int threads);

#endif
