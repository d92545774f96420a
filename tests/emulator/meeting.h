/* Operations of a warp: every lane hands in its arguments, and the last one to come computes for all. */
#ifndef RINGGPT_EMULATOR_MEETING_H
#define RINGGPT_EMULATOR_MEETING_H

#include "block.h"

namespace emulator {

/* Hands in `argument`. True for the last lane of the mask that came: it must compute for the lanes of
 * meeting->mask from meeting->arguments; in any case end_meeting follows. */
bool join_meeting(const char *name, unsigned mask, void *argument, Meeting **meeting);

/* Waits for the others; the last lane lets them go on. */
void end_meeting(Meeting *meeting, bool last, const void *caller);

} // namespace emulator

#endif
