/* Time for measurements. */
#ifndef RINGGPT_BASE_CLOCK_H
#define RINGGPT_BASE_CLOCK_H

/* Seconds of a clock that never goes back; only differences mean something. */
double clock_seconds(void);

#endif
