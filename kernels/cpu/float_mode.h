/* The treatment of subnormal numbers, those too small for full precision. Every operation of a device takes
 * them as zero: probabilities that small change nothing, slow a CPU down a hundredfold, and would be rounded
 * differently by implementations of which only some flush them. */
#ifndef RINGGPT_CPU_FLOAT_MODE_H
#define RINGGPT_CPU_FLOAT_MODE_H

#include <stdint.h>

/* Sets flush-to-zero and denormals-are-zero in this thread and in the further threads of its OpenMP teams of
 * `threads`. changed (threads) receives what float_mode_restore needs. A processor without such a mode is
 * left as it is. */
void float_mode_flush(int threads, uint64_t *changed);

/* Undoes float_mode_flush in the same threads, called by the same one. What was set before stays set. */
void float_mode_restore(int threads, const uint64_t *changed);

#endif
