/* Calling the device's poll hook from loops: after about the same amount of work everywhere, often enough for
 * messages to move and seldom enough to cost nothing. */
#ifndef RINGGPT_CPU_POLL_H
#define RINGGPT_CPU_POLL_H

#include <stdint.h>

#include "kernels/device.h"

/* Elements read or written between two calls: some tens of microseconds. */
#define POLL_ELEMENTS 32768

/* For a loop whose iteration i handles `elements` elements: calls the hook once every POLL_ELEMENTS. */
static inline void poll_within(const Device *device, int64_t i, int64_t elements) {
  if (i * elements / POLL_ELEMENTS != (i + 1) * elements / POLL_ELEMENTS) device_poll(device);
}

/* For a loop over the elements themselves, cut into pieces of POLL_ELEMENTS: calls the hook and returns the
 * end of the piece that begins at `first`. */
static inline int64_t poll_piece(const Device *device, int64_t first, int64_t count) {
  device_poll(device);
  return count - first < POLL_ELEMENTS ? count : first + POLL_ELEMENTS;
}

#endif
