/* The words of CUDA C that mean nothing to a host compiler. There is none for shared memory on purpose:
 * kernels declare it by SHARED and EXTERN_SHARED (emulator.h). */
#ifndef RINGGPT_EMULATED_KEYWORDS_H
#define RINGGPT_EMULATED_KEYWORDS_H

#define __global__
#define __device__
#define __host__
#define __constant__
#define __grid_constant__
#define __launch_bounds__(...)
#define __forceinline__ inline __attribute__((always_inline))
#define __align__(bytes) __attribute__((aligned(bytes)))

#endif
