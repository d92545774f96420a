/* The peaks of a CPU: see the header. */
#include "tests/bench/cpu_peaks.h"

#include <math.h>

#include "kernels/base/clock.h"

/* Additions of the chain that measures the clock, some 50 us, and how often: a chain that was interrupted
 * shows too slow a clock. */
#define CHAIN 200000
#define CHAINS 5
#define UNIT_TRIES 25

const PeakKernel *cpu_peak_kernel(bool bf16, bool avx2) {
#if defined(__x86_64__)
  if (!avx2 && bf16 && __builtin_cpu_supports("avx512bf16")) return &peak_dot_avx512bf16;
  if (!avx2 && __builtin_cpu_supports("avx512f")) return &peak_fma_avx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return &peak_fma_avx2;
#endif
  (void)bf16;
  (void)avx2;
  return &peak_fma_plain;
}

/* Cycles a second of this thread's core: additions of two registers take a cycle each where every one needs
 * the sum of the one before. */
static double chain_rate(void) {
  uint64_t sum = 1;
  uint64_t addend = 3;
  __asm__ volatile("" : "+r"(addend));
  const double start = clock_seconds();
  for (int i = 0; i < CHAIN / 20; i++) {
#pragma GCC unroll 20
    for (int j = 0; j < 20; j++) {
      sum += addend;
      __asm__ volatile("" : "+r"(sum));
    }
  }
  return CHAIN / (clock_seconds() - start);
}

static double measure_clock(void) {
  double clock = 0;
  for (int i = 0; i < CHAINS; i++) clock = fmax(clock, chain_rate());
  return clock;
}

static double flops_of(const PeakKernel *kernel, int64_t steps) {
  return kernel->flops * kernel->instructions * (double)steps;
}

static double run_alone(const PeakKernel *kernel, int64_t steps) {
  const double start = clock_seconds();
  kernel->run(steps);
  return flops_of(kernel, steps) / (clock_seconds() - start);
}

/* The least of three: whatever else runs makes it longer. */
static double least_seconds(const PeakKernel *kernel, int64_t steps) {
  double least = INFINITY;
  for (int i = 0; i < 3; i++) {
    const double seconds = flops_of(kernel, steps) / run_alone(kernel, steps);
    if (seconds < least) least = seconds;
  }
  return least;
}

int64_t cpu_peak_steps(const PeakKernel *kernel, double seconds) {
  int64_t steps = 1000;
  while (least_seconds(kernel, steps) < 0.5 * seconds) steps *= 2;
  return steps;
}

double cpu_peak_units(const PeakKernel *kernel, int64_t steps) {
  double rate = 0;
  double clock = 0;
  for (int i = 0; i < UNIT_TRIES; i++) {
    rate = fmax(rate, run_alone(kernel, steps));
    clock = fmax(clock, measure_clock());
  }
  const double units = rate / (kernel->flops * clock);
  return units < 0.75 ? 0.5 : fmax(1, round(units));
}

CpuArithmetic cpu_peak_arithmetic(const PeakKernel *kernel, int64_t steps, int threads) {
  CpuArithmetic result = {.alone = run_alone(kernel, steps)};
  double first = INFINITY;
  double last = 0;
  double clocks = 0;
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    /* All begin together: a thread that slept takes a while to wake. */
#pragma omp barrier
    const double start = clock_seconds();
    kernel->run(steps);
    const double end = clock_seconds();
    const double clock = measure_clock();
#pragma omp critical
    {
      if (start < first) first = start;
      if (end > last) last = end;
      clocks += clock;
    }
  }
  result.rate = flops_of(kernel, steps) * threads / (last - first);
  result.clock = clocks / threads;
  return result;
}

double cpu_peak_update(float *y, const float *x, int64_t count, int threads) {
  const double start = clock_seconds();
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
  for (int64_t i = 0; i < count; i++) y[i] += x[i];
  return clock_seconds() - start;
}
