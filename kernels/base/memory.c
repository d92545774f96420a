/* Host memory: aligned, zeroed, with sizes that cannot wrap. */
#include "kernels/base/memory.h"

#include <stdlib.h>
#include <string.h>

Status memory_alloc(size_t count, size_t size, const char *what, void **out, Error *error) {
  *out = NULL;
  size_t bytes = 0;
  size_t padded = 0;
  if (__builtin_mul_overflow(count, size, &bytes) ||
      __builtin_add_overflow(bytes, MEMORY_ALIGNMENT, &padded)) {
    return fail(error, STATUS_SYSTEM, "%s: %zu x %zu bytes do not fit an address", what, count, size);
  }
  padded -= padded % MEMORY_ALIGNMENT;
  void *block = aligned_alloc(MEMORY_ALIGNMENT, padded);
  if (block == NULL) {
    return fail(error, STATUS_SYSTEM, "%s: the machine has no %zu bytes of memory left", what, bytes);
  }
  memset(block, 0, padded);
  *out = block;
  return STATUS_OK;
}
