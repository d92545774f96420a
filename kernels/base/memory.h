/* Host memory: aligned, with sizes that cannot wrap. */
#ifndef RINGGPT_BASE_MEMORY_H
#define RINGGPT_BASE_MEMORY_H

#include <stddef.h>

#include "kernels/base/status.h"

/* Alignment of every block in bytes: one cache line, one AVX-512 register. */
#define MEMORY_ALIGNMENT 64

/* Stores in *out a zeroed block of count x size bytes, aligned to MEMORY_ALIGNMENT; a count of 0 gives a
 * valid block. The caller releases it with free(). `what` names the block in the error.
 * Fails with STATUS_SYSTEM when the product wraps, or there is not that much memory left (a large block is
 * held against memory_available, since the kernel promises more than it has and would end the process at the
 * first touch); *out is then NULL. */
Status memory_alloc(size_t count, size_t size, const char *what, void **out, Error *error);

/* The same with any content, for what is written before it is read: a thread's part may be first touched by
 * that thread. */
Status memory_scratch(size_t count, size_t size, const char *what, void **out, Error *error);

/* The bytes that are left for this process: MemAvailable of /proc/meminfo, or what its control groups leave
 * it where that is less (kernels/base/cgroup.h); SIZE_MAX where nothing says. */
size_t memory_available(void);

#endif
