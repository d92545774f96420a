/* __syncwarp, shuffles and votes. */
#include <string.h>

#include "meeting.h"
#include "race.h"

namespace emulator {

int lane(void) {
  return current->lane;
}

/* Orders what the lanes did before against what they do after. */
static void order_lanes(unsigned mask) {
  Thread *first = &threads[current->warp * WARP_LANES];
  uint32_t seen[BLOCK_WARPS] = {};
  for (unsigned lanes = mask; lanes; lanes &= lanes - 1) race_release(first + __builtin_ctz(lanes), seen);
  for (unsigned lanes = mask; lanes; lanes &= lanes - 1) race_acquire(first + __builtin_ctz(lanes), seen);
}

void meet_warp(unsigned mask) {
  Meeting *meeting;
  const bool last = join_meeting("__syncwarp", mask, nullptr, &meeting);
  if (last && race_checking) order_lanes(meeting->mask);
  end_meeting(meeting, last, __builtin_return_address(0));
}

struct ShuffleArgument {
  uint64_t value, result;
  int source;
};

uint64_t shuffle(const char *name, unsigned mask, uint64_t value, int source) {
  ShuffleArgument own = {value, ~0ull, source};
  Meeting *meeting;
  const bool last = join_meeting(name, mask, &own, &meeting);
  if (last) {
    ShuffleArgument *const *lanes = (ShuffleArgument *const *)meeting->arguments;
    for (unsigned left = meeting->mask; left; left &= left - 1) {
      ShuffleArgument *to = lanes[__builtin_ctz(left)];
      if (meeting->mask >> to->source & 1) to->result = lanes[to->source]->value;
    }
  }
  end_meeting(meeting, last, __builtin_return_address(0));
  return own.result;
}

struct VoteArgument {
  bool predicate;
  unsigned result;
};

unsigned vote(const char *name, unsigned mask, bool predicate) {
  VoteArgument own = {predicate, 0};
  Meeting *meeting;
  const bool last = join_meeting(name, mask, &own, &meeting);
  if (last) {
    VoteArgument *const *lanes = (VoteArgument *const *)meeting->arguments;
    unsigned result = 0;
    for (unsigned left = meeting->mask; left; left &= left - 1)
      result |= (unsigned)lanes[__builtin_ctz(left)]->predicate << __builtin_ctz(left);
    for (unsigned left = meeting->mask; left; left &= left - 1) lanes[__builtin_ctz(left)]->result = result;
  }
  end_meeting(meeting, last, __builtin_return_address(0));
  return own.result;
}

} // namespace emulator
