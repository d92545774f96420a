/* The twins of the wrappers in kernels/cuda/instructions.h, which says what each does. */
#ifndef RINGGPT_EMULATED_INSTRUCTIONS_H
#define RINGGPT_EMULATED_INSTRUCTIONS_H

#include <cuda_bf16.h>

#include "emulator.h"

namespace emulator {
/* Lets the asynchronous copies of this thread land, but for the `left` youngest groups. */
void finish_copies(size_t left);
} // namespace emulator

void copy_async_16(void *to, const void *from, bool valid);
void copy_async_commit(void);

template <int LEFT> inline void copy_async_wait(void) {
  emulator::finish_copies(LEFT);
}

void mma_bf16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]);
void load_matrices(unsigned (&r)[4], const void *row);
void load_matrices_transposed(unsigned (&r)[4], const void *row);

inline unsigned pack_bf16(float low, float high) {
  return emulated_bits<unsigned>(__floats2bfloat162_rn(low, high));
}

#endif
