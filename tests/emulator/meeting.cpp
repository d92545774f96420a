/* Operations of a warp: how its lanes meet. */
#include "meeting.h"

#include <string.h>

#include "report.h"

namespace emulator {

static void check_meeting(const Meeting *meeting, const char *name, unsigned mask) {
  if (meeting->name != name && strcmp(meeting->name, name) != 0)
    die("lanes of one warp meet at %s and at %s", meeting->name, name);
  if (meeting->mask != mask) die("%s: lanes disagree on the mask, %08x and %08x", name, meeting->mask, mask);
}

bool join_meeting(const char *name, unsigned mask, void *argument, Meeting **out) {
  Warp *warp = &warps[current->warp];
  const unsigned self = 1u << current->lane;
  mask &= warp->exist;
  if (!(mask & self)) die("%s: the lane is not in its own mask", name);
  if (mask & ~warp->live) die("%s: the mask has lanes that have ended", name);
  Meeting *meeting = &warp->meetings[__builtin_ctz(mask)];
  if (meeting->arrived) {
    check_meeting(meeting, name, mask);
  } else {
    meeting->name = name;
    meeting->mask = mask;
  }
  meeting->arguments[current->lane] = argument;
  meeting->arrived |= self;
  *out = meeting;
  return meeting->arrived == mask;
}

void end_meeting(Meeting *meeting, bool last, const void *caller) {
  const char *name = meeting->name;
  if (last) {
    meeting->arrived = 0;
    make_ready(current->warp, meeting->mask);
  }
  wait_for(name, caller);
}

} // namespace emulator
