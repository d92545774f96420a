/* Wrappers of the PTX instructions that kernels use (PTX ISA 9.0), each with a twin of the same meaning in
 * the emulator of tests/emulator. The only file with PTX.
 *
 * Fragments of mma m16n8k16, with g = lane / 4 and t = 2 (lane % 4), h = 0 or 1 for the two halves of a
 * register (ISA, "Matrix Fragments for mma.m16n8k16"):
 *   A (16 x 16): register r, half h holds A[g + 8 (r % 2)][t + 8 (r / 2) + h]
 *   B (16 x 8):  register r, half h holds B[t + 8 r + h][g]
 *   C (16 x 8):  element 2 r + h holds C[g + 8 r][t + h]
 */
#ifndef RINGGPT_CUDA_INSTRUCTIONS_H
#define RINGGPT_CUDA_INSTRUCTIONS_H

#include "kernels/cuda/language.h"

#ifdef RINGGPT_EMULATED
#include "emulated_instructions.h"
#else

__device__ __forceinline__ unsigned shared_address(const void *pointer) {
  return (unsigned)__cvta_generic_to_shared(pointer);
}

/* Starts to copy 16 bytes from global memory to shared memory, both aligned to 16; zeros where not `valid`,
 * and `from` is not read then. */
__device__ __forceinline__ void copy_async_16(void *to, const void *from, bool valid) {
  const int bytes = valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(shared_address(to)), "l"(from),
               "r"(bytes)
               : "memory");
}

/* Closes the group of the copies that this thread has started since the last call. */
__device__ __forceinline__ void copy_async_commit(void) {
  asm volatile("cp.async.commit_group;\n" ::: "memory");
}

/* Waits until at most the LEFT youngest groups of this thread are under way. Other threads see the copies
 * behind a barrier. */
template <int LEFT> __device__ __forceinline__ void copy_async_wait(void) {
  asm volatile("cp.async.wait_group %0;\n" ::"n"(LEFT) : "memory");
}

/* d += a b: bf16 with float accumulation. All lanes of the warp together. */
__device__ __forceinline__ void mma_bf16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
               "{%0,%1,%2,%3};\n"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/* Loads four 8 x 8 matrices of 16-bit elements from shared memory: lanes 8m ... 8m + 7 give the addresses of
 * the rows of matrix m, aligned to 16. Register m of a lane gets elements [g][t] and [g][t + 1]; transposed,
 * [t][g] and [t + 1][g]. All lanes of the warp together. */
__device__ __forceinline__ void load_matrices(unsigned (&r)[4], const void *row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}

__device__ __forceinline__ void load_matrices_transposed(unsigned (&r)[4], const void *row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];\n"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}

/* Two floats rounded to nearest even bf16 in one register, `low` in the lower half: an operand of mma_bf16.
 */
__device__ __forceinline__ unsigned pack_bf16(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *(const unsigned *)&pair;
}

#endif

#endif
