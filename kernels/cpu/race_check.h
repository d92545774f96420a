/* Inner loops under the thread sanitizer: checking each of their reads would take most of the time of a test.
 * They are left out, and their callers state what is read as a whole. In other builds this is nothing. */
#ifndef RINGGPT_CPU_RACE_CHECK_H
#define RINGGPT_CPU_RACE_CHECK_H

#include <stddef.h>

#if defined(__SANITIZE_THREAD__)

/* Before a function: its reads and writes are not checked. */
#define RACE_UNCHECKED __attribute__((no_sanitize("thread"), noinline))

/* Provided by the sanitizer. */
void __tsan_read_range(const void *start, size_t bytes);

/* States that `bytes` from `start` on are read. */
static inline void race_check_read(const void *start, size_t bytes) {
  __tsan_read_range(start, bytes);
}

#else

#define RACE_UNCHECKED

static inline void race_check_read(const void *start, size_t bytes) {
  (void)start;
  (void)bytes;
}

#endif

#endif
