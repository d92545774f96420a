/* The loop of a PeakKernel, for files that define, for their instruction set:
 *
 *   Sum, Factor          vectors of sums and of factors
 *   FACTOR               0.75 in all its places: zeros would draw less power
 *   SUMS                 independent sums, enough to cover the latency of the units
 *   REGISTER             the constraint of a vector register in inline assembly
 *   ADD_PRODUCT(sum, f)  the instruction
 */
static void run(int64_t steps) {
  Sum sums[SUMS];
  Factor factor = FACTOR;
#pragma GCC unroll 24
  for (int i = 0; i < SUMS; i++) {
    sums[i] = (Sum){0};
    __asm__ volatile("" : "+" REGISTER(sums[i])); /* keeps equal sums from being computed once */
  }
  for (int64_t step = 0; step < steps; step++) {
    __asm__ volatile("" : "+" REGISTER(factor)); /* keeps the loop from being computed in advance */
#pragma GCC unroll 24
    for (int i = 0; i < SUMS; i++) sums[i] = ADD_PRODUCT(sums[i], factor);
  }
#pragma GCC unroll 24
  for (int i = 0; i < SUMS; i++) __asm__ volatile("" : : REGISTER(sums[i]));
}
