/* Places buffers in one block of memory: see the header. */
#include "kernels/base/arena.h"

#include <stdbool.h>

size_t arena_times(size_t a, size_t b) {
  size_t product = 0;
  return __builtin_mul_overflow(a, b, &product) ? ARENA_TOO_LARGE : product;
}

size_t arena_plus(size_t a, size_t b) {
  size_t sum = 0;
  return __builtin_add_overflow(a, b, &sum) ? ARENA_TOO_LARGE : sum;
}

size_t arena_aligned(size_t bytes) {
  const size_t with_rest = arena_plus(bytes, ARENA_ALIGNMENT - 1);
  return with_rest == ARENA_TOO_LARGE ? ARENA_TOO_LARGE : with_rest / ARENA_ALIGNMENT * ARENA_ALIGNMENT;
}

/* The order of placement: by falling size, those of one size as they are given. */
static void sort_by_size(const ArenaBuffer *buffers, int count, int order[ARENA_BUFFERS]) {
  for (int i = 0; i < count; i++) {
    int at = i;
    for (; at > 0 && buffers[order[at - 1]].bytes < buffers[i].bytes; at--) order[at] = order[at - 1];
    order[at] = i;
  }
}

/* Whether a buffer at `offset` would share bytes with `other` while both are in use. */
static bool in_the_way(const ArenaBuffer *other, const ArenaBuffer *buffer, size_t offset) {
  return (other->times & buffer->times) != 0 &&
         offset < arena_plus(other->offset, arena_aligned(other->bytes)) &&
         other->offset < arena_plus(offset, arena_aligned(buffer->bytes));
}

/* The lowest offset for a buffer among those that are placed, order[0 .. placed): 0, or the end of one. */
static size_t lowest_offset(const ArenaBuffer *buffers, const int *order, int placed,
                            const ArenaBuffer *buffer) {
  size_t offset = 0;
  for (bool moved = true; moved && offset != ARENA_TOO_LARGE;) {
    moved = false;
    for (int i = 0; i < placed; i++) {
      const ArenaBuffer *other = &buffers[order[i]];
      if (!in_the_way(other, buffer, offset)) continue;
      offset = arena_plus(other->offset, arena_aligned(other->bytes));
      moved = true;
    }
  }
  return offset;
}

size_t arena_place(ArenaBuffer *buffers, int count) {
  int order[ARENA_BUFFERS];
  size_t bytes = 0;
  sort_by_size(buffers, count, order);
  for (int i = 0; i < count; i++) {
    ArenaBuffer *buffer = &buffers[order[i]];
    buffer->offset = lowest_offset(buffers, order, i, buffer);
    const size_t end = arena_plus(buffer->offset, arena_aligned(buffer->bytes));
    if (end > bytes) bytes = end;
  }
  return bytes;
}

size_t arena_least(const ArenaBuffer *buffers, int count) {
  size_t most = 0;
  for (int t = 0; t < 32; t++) {
    size_t sum = 0;
    for (int i = 0; i < count; i++) {
      if ((buffers[i].times >> t & 1) != 0) sum = arena_plus(sum, arena_aligned(buffers[i].bytes));
    }
    if (sum > most) most = sum;
  }
  return most;
}
