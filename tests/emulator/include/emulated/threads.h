/* The built-in variables and functions of CUDA C by which a thread knows its place and meets others:
 * barriers, warp operations, atomic operations. */
#ifndef RINGGPT_EMULATED_THREADS_H
#define RINGGPT_EMULATED_THREADS_H

#include <stdint.h>
#include <string.h>

#include "emulated/vectors.h"

namespace emulator {

/* What kernels read of the thread that runs. */
struct Here {
  const uint3 *thread; /* its index in the block */
  uint3 block;
  dim3 block_extent, grid_extent;
  unsigned char *dynamic_shared;
  uint64_t block_number; /* counts the blocks that have run: shared variables belong to one */
};
extern Here here;

/* Waits for all threads of the block; returns how many of them came with `predicate`. */
int barrier(const char *name, bool predicate);
/* Waits for the lanes of `mask`. */
void meet_warp(unsigned mask);
/* The bits of `value` of the lane `source`; 0xFF bytes where it is not in `mask`. */
uint64_t shuffle(const char *name, unsigned mask, uint64_t value, int source);
/* Which lanes of `mask` came with `predicate`. */
unsigned vote(const char *name, unsigned mask, bool predicate);
int lane(void);

/* The lane that a shuffle reads from within its segment of `width` lanes; the own one where `source` is
 * outside of it. */
inline int lane_or_self(int source, int width) {
  const int first = lane() & ~(width - 1);
  return source >= first && source < first + width ? source : lane();
}

template <typename T> inline T shuffle_value(const char *name, unsigned mask, T value, int source) {
  static_assert(sizeof(T) <= sizeof(uint64_t), "shuffles move 4 or 8 bytes");
  uint64_t bits = 0;
  memcpy(&bits, &value, sizeof value);
  bits = shuffle(name, mask, bits, source);
  memcpy(&value, &bits, sizeof value);
  return value;
}

} // namespace emulator

#define threadIdx (*emulator::here.thread)
#define blockIdx (emulator::here.block)
#define blockDim (emulator::here.block_extent)
#define gridDim (emulator::here.grid_extent)
constexpr int warpSize = 32;

inline void __syncthreads(void) {
  emulator::barrier("__syncthreads", false);
}
inline int __syncthreads_count(int predicate) {
  return emulator::barrier("__syncthreads_count", predicate != 0);
}
inline int __syncthreads_or(int predicate) {
  return emulator::barrier("__syncthreads_or", predicate != 0) != 0;
}
inline int __syncthreads_and(int predicate) {
  return emulator::barrier("__syncthreads_and", predicate == 0) == 0;
}
inline void __syncwarp(unsigned mask = 0xffffffffu) {
  emulator::meet_warp(mask);
}

template <typename T> inline T __shfl_sync(unsigned mask, T value, int source, int width = warpSize) {
  const int first = emulator::lane() & ~(width - 1);
  return emulator::shuffle_value("__shfl_sync", mask, value, first | (source & (width - 1)));
}
/* A lane of an earlier segment may be read, one of a later segment not. */
template <typename T> inline T __shfl_xor_sync(unsigned mask, T value, int bits, int width = warpSize) {
  const int source = emulator::lane() ^ bits;
  const int end = (emulator::lane() & ~(width - 1)) + width;
  return emulator::shuffle_value("__shfl_xor_sync", mask, value, source < end ? source : emulator::lane());
}
template <typename T> inline T __shfl_up_sync(unsigned mask, T value, unsigned by, int width = warpSize) {
  const int source = emulator::lane() - (int)by;
  return emulator::shuffle_value("__shfl_up_sync", mask, value, emulator::lane_or_self(source, width));
}
template <typename T> inline T __shfl_down_sync(unsigned mask, T value, unsigned by, int width = warpSize) {
  const int source = emulator::lane() + (int)by;
  return emulator::shuffle_value("__shfl_down_sync", mask, value, emulator::lane_or_self(source, width));
}

inline unsigned __ballot_sync(unsigned mask, int predicate) {
  return emulator::vote("__ballot_sync", mask, predicate != 0);
}
inline int __any_sync(unsigned mask, int predicate) {
  return emulator::vote("__any_sync", mask, predicate != 0) != 0;
}
inline int __all_sync(unsigned mask, int predicate) {
  return emulator::vote("__all_sync", mask, predicate == 0) == 0;
}

/* Threads give way to each other only where they wait, so memory is always in order and plain reading and
 * writing is atomic. */
inline void __threadfence(void) {
}
inline void __threadfence_block(void) {
}
inline void __threadfence_system(void) {
}

template <typename T> inline T __ldg(const T *from) {
  return *from;
}

/* Outside of the race check, which knows plain accesses only. */
#define EMULATED_ATOMIC(type, name, next)                                                                    \
  __attribute__((noinline, no_sanitize("thread"))) inline type name(type *at, type value) {                  \
    const type old = *at;                                                                                    \
    *at = (next);                                                                                            \
    return old;                                                                                              \
  }
#define EMULATED_ATOMICS(type)                                                                               \
  EMULATED_ATOMIC(type, atomicAdd, old + value)                                                              \
  EMULATED_ATOMIC(type, atomicExch, value)                                                                   \
  EMULATED_ATOMIC(type, atomicMax, old > value ? old : value)                                                \
  EMULATED_ATOMIC(type, atomicMin, old < value ? old : value)                                                \
  EMULATED_ATOMIC(type, atomicOr, old | value)                                                               \
  EMULATED_ATOMIC(type, atomicAnd, old &value)                                                               \
  __attribute__((noinline, no_sanitize("thread"))) inline type atomicCAS(type *at, type expected,            \
                                                                         type value) {                       \
    const type old = *at;                                                                                    \
    if (old == expected) *at = value;                                                                        \
    return old;                                                                                              \
  }
EMULATED_ATOMICS(int)
EMULATED_ATOMICS(unsigned)
EMULATED_ATOMICS(unsigned long long)
#undef EMULATED_ATOMICS
#undef EMULATED_ATOMIC

#endif
