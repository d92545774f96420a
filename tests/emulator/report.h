/* The emulator's way to end: a message on what went wrong, and where. */
#ifndef RINGGPT_EMULATOR_REPORT_H
#define RINGGPT_EMULATOR_REPORT_H

namespace emulator {

/* Prints the message, the thread that runs and what the others of its block wait for, and aborts. */
[[noreturn]] void die(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Between the two calls, an access that the memory does not allow is reported with the thread that made it,
 * before it goes on to whoever else handles it. Not under the address sanitizer, which reports more. */
void watch_faults(void);
void unwatch_faults(void);

} // namespace emulator

#endif
