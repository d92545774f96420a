/* The shared memory of the block that runs. */
#ifndef RINGGPT_EMULATOR_SHARED_MEMORY_H
#define RINGGPT_EMULATOR_SHARED_MEMORY_H

#include <stddef.h>

namespace emulator {

enum { SHARED_DEFAULT_LIMIT = 48 * 1024, SHARED_LIMIT = 227 * 1024 };

/* Where an address lies: a byte of the `size` bytes of an area of shared memory. */
struct SharedPlace {
  const char *area; /* "static" or "dynamic"; NULL: not in shared memory */
  size_t offset;
};
SharedPlace find_shared(const void *address, size_t bytes);

/* New shared memory for a block: `dynamic` bytes full of 0xFF behind here.dynamic_shared, and no variables.
 */
void reset_shared(size_t dynamic);

} // namespace emulator

#endif
