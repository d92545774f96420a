/* The few words of CUDA C that the host compiler has no grammar for. Kernels are written with them and are
 * plain CUDA C otherwise, so that the very same files compile for a GPU, by nvcc, and for the emulator of
 * tests/emulator, by the host's C++ compiler.
 *
 * Rules for kernel sources, which the emulator relies on:
 *  - LAUNCH starts a kernel, SHARED and EXTERN_SHARED declare shared memory;
 *  - PTX stands in kernels/cuda/instructions.h alone;
 *  - no thread spins on memory, and nothing synchronises a whole grid;
 *  - no thread leaves before a barrier or an operation of its whole warp that others of it still reach. */
#ifndef RINGGPT_CUDA_LANGUAGE_H
#define RINGGPT_CUDA_LANGUAGE_H

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#ifdef RINGGPT_EMULATED
#include "emulator.h"
#else

/* kernel<<<grid, block, shared bytes, stream>>>(...). */
#define LAUNCH(kernel, grid, block, shared, stream, ...) kernel<<<grid, block, shared, stream>>>(__VA_ARGS__)

/* A variable in shared memory: SHARED(float, sums, [4][32]); SHARED(float, total, [1]). */
#define SHARED(type, name, extent) __shared__ type name extent

/* The shared memory whose size the launch gives, as unsigned char *name, aligned to 16 bytes at least. Once
 * in a kernel. */
#define EXTERN_SHARED(name) extern __shared__ __align__(1024) unsigned char name[]

#endif

#endif
