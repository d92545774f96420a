/* Float multiply-adds of vectors of four in C: a lower bound of what a CPU without AVX2 can do. */
#include "tests/bench/peak_kernel.h"

typedef float Sum __attribute__((vector_size(16)));
typedef Sum Factor;
#define ADD_PRODUCT(sum, factor) ((sum) * (factor) + (factor))
#define SUMS 12
#define FACTOR ((Sum){0.75F, 0.75F, 0.75F, 0.75F})
#if defined(__x86_64__)
#define REGISTER "x"
#elif defined(__aarch64__)
#define REGISTER "w"
#else
#define REGISTER "m"
#endif

#include "tests/bench/peak_loop.h"

const PeakKernel peak_fma_plain = {"multiply and add", 2 * 4, SUMS, run};
