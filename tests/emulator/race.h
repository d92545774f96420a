/* The check for races in shared memory: vector clocks (C. Fidge, "Timestamps in message-passing systems that
 * preserve the partial ordering", 1988) over the warps of a block. On where a kernel was compiled with
 * -fsanitize=thread; emulator.h says how. */
#ifndef RINGGPT_EMULATOR_RACE_H
#define RINGGPT_EMULATOR_RACE_H

#include <stddef.h>
#include <stdint.h>

#include "block.h"

namespace emulator {

extern bool race_checking;

enum Access { ACCESS_READ, ACCESS_WRITE, ACCESS_COPY_START, ACCESS_COPY_LANDED };

/* Notes an access of the thread that runs and ends the process where it races with another; nothing for
 * memory that is not shared memory. `code` is the address that reports name. */
void race_access(const void *address, size_t bytes, Access access, const void *code);

/* What `thread` did up to now is done for those who acquire `seen` later. */
void race_release(Thread *thread, uint32_t seen[BLOCK_WARPS]);
void race_acquire(Thread *thread, const uint32_t seen[BLOCK_WARPS]);

} // namespace emulator

#endif
