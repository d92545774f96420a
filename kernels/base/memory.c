/* Host memory: aligned, with sizes that cannot wrap. */
#include "kernels/base/memory.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "kernels/base/cgroup.h"

/* Blocks from this size on are held against what the machine has. */
#define LARGE_BLOCK ((size_t)64 << 20)

/* Blocks from this size on begin at a multiple of it and are asked for in pages of it: whoever walks through
 * them waits less for the addresses of pages. */
#define LARGE_PAGE ((size_t)2 << 20)

/* NULL without memory. */
static void *take_block(size_t bytes) {
  if (bytes < LARGE_PAGE || bytes > SIZE_MAX - LARGE_PAGE) return aligned_alloc(MEMORY_ALIGNMENT, bytes);
  const size_t whole = bytes / LARGE_PAGE * LARGE_PAGE;
  void *block = aligned_alloc(LARGE_PAGE, whole == bytes ? bytes : whole + LARGE_PAGE);
#if defined(MADV_HUGEPAGE)
  /* A system without such pages says no, which changes nothing. */
  if (block != NULL) (void)madvise(block, whole, MADV_HUGEPAGE);
#endif
  return block;
}

static size_t machine_available(void) {
  FILE *file = fopen("/proc/meminfo", "re");
  if (file == NULL) return SIZE_MAX;
  static const char name[] = "MemAvailable:";
  char line[128];
  size_t available = SIZE_MAX;
  while (fgets(line, sizeof line, file) != NULL) {
    if (strncmp(line, name, sizeof name - 1) != 0) continue;
    available = strtoull(line + sizeof name - 1, NULL, 10) * 1024;
  }
  (void)fclose(file);
  return available;
}

size_t memory_available(void) {
  const size_t machine = machine_available();
  const size_t groups = cgroup_memory_left("/proc/self/cgroup", "/sys/fs/cgroup");
  return groups < machine ? groups : machine;
}

/* count x size, rounded up to whole lines. */
static Status padded_bytes(size_t count, size_t size, const char *what, size_t *padded, Error *error) {
  size_t bytes = 0;
  if (__builtin_mul_overflow(count, size, &bytes) ||
      __builtin_add_overflow(bytes, MEMORY_ALIGNMENT, padded)) {
    return fail(error, STATUS_SYSTEM, "%s: %zu x %zu bytes do not fit an address", what, count, size);
  }
  *padded -= *padded % MEMORY_ALIGNMENT;
  return STATUS_OK;
}

Status memory_scratch(size_t count, size_t size, const char *what, void **out, Error *error) {
  size_t padded = 0;
  *out = NULL;
  TRY(padded_bytes(count, size, what, &padded, error));
  if (padded < LARGE_BLOCK || padded <= memory_available()) *out = take_block(padded);
  if (*out != NULL) return STATUS_OK;
  return fail(error, STATUS_SYSTEM,
              "%s: the machine has no %zu bytes of memory left: fewer tokens, a smaller model or another "
              "machine fit",
              what, count * size);
}

Status memory_alloc(size_t count, size_t size, const char *what, void **out, Error *error) {
  size_t padded = 0;
  TRY(memory_scratch(count, size, what, out, error));
  TRY(padded_bytes(count, size, what, &padded, error));
  memset(*out, 0, padded);
  return STATUS_OK;
}
