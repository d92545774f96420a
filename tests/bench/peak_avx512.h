/* The rate of fused multiply-adds that the CPU reaches at this moment. */
#ifndef RINGGPT_BENCH_PEAK_AVX512_H
#define RINGGPT_BENCH_PEAK_AVX512_H

/* GFLOP/s of `threads` threads together, measured over some 20 ms. Only for a CPU that has AVX-512. */
double peak_avx512(int threads);

#endif
