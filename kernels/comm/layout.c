/* Which positions of a sequence live on which rank of a ring: the zigzag layout. */
#include "kernels/comm/layout.h"

Layout layout_zigzag(int64_t sequence_length, int ring_rank, int ring_size) {
  Layout layout = {.sequence_length = sequence_length};
  if (ring_size == 1) {
    layout.run_count = 1;
    layout.runs[0] = (Run){.start = 0, .length = sequence_length};
    layout.local_length = sequence_length;
    return layout;
  }
  const int64_t chunks = 2 * (int64_t)ring_size;
  const int64_t length = (sequence_length + chunks - 1) / chunks;
  layout.run_count = 2;
  layout.runs[0] = (Run){.start = ring_rank * length, .length = length};
  layout.runs[1] = (Run){.start = (chunks - 1 - ring_rank) * length, .length = length};
  layout.local_length = 2 * length;
  return layout;
}
