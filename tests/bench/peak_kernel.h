/* Instructions repeated in registers: what no computation on the same units can pass. */
#ifndef RINGGPT_BENCH_PEAK_KERNEL_H
#define RINGGPT_BENCH_PEAK_KERNEL_H

#include <stdint.h>

/* A loop whose every step has `instructions` of them, independent of each other and of `flops` floating-point
 * operations each. */
typedef struct PeakKernel {
  const char *name;
  double flops;
  int instructions;
  void (*run)(int64_t steps);
} PeakKernel;

/* Each for a CPU that has the instructions. */
extern const PeakKernel peak_fma_avx512; /* float multiply-adds */
extern const PeakKernel peak_fma_avx2;
extern const PeakKernel peak_fma_plain;      /* what the compiler makes of C for any CPU of its kind */
extern const PeakKernel peak_dot_avx512bf16; /* products of pairs of bf16 numbers, added to floats */

#endif
