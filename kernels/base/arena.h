/* One block of memory for many buffers: buffers that are never in use at the same time share bytes of it. The
 * places are computed from sizes and times alone, before anything is allocated. */
#ifndef RINGGPT_BASE_ARENA_H
#define RINGGPT_BASE_ARENA_H

#include <stddef.h>
#include <stdint.h>

/* Every buffer begins at a multiple of so many bytes: the widest that a device asks for. */
#define ARENA_ALIGNMENT 256

/* What is larger than any memory. */
#define ARENA_TOO_LARGE SIZE_MAX

typedef struct ArenaBuffer {
  size_t bytes;
  uint32_t times; /* bit t: its content matters at time t; the meaning of a time is the caller's */
  size_t offset;  /* written by arena_place: bytes from the block's beginning */
} ArenaBuffer;

/* Places the buffers: two whose times have a bit in common do not overlap. Returns the bytes of the block, or
 * ARENA_TOO_LARGE where a sum would wrap. The largest buffer is placed first, each as low as it can lie (the
 * greedy placement by size of Y. Pisarchyk and J. Lee, "Efficient memory management for deep neural net
 * inference", 2020); count is at most ARENA_BUFFERS. */
#define ARENA_BUFFERS 64
size_t arena_place(ArenaBuffer *buffers, int count);

/* The least that any placement needs: the most bytes in use at one time. */
size_t arena_least(const ArenaBuffer *buffers, int count);

/* Bytes of a buffer with what makes the next one begin at a multiple of ARENA_ALIGNMENT, or ARENA_TOO_LARGE.
 */
size_t arena_aligned(size_t bytes);

/* a b and a + b, or ARENA_TOO_LARGE where that does not fit, or one of them is that. */
size_t arena_times(size_t a, size_t b);
size_t arena_plus(size_t a, size_t b);

#endif
