/* Shared memory: one area for SHARED variables, placed as threads first reach them, and one for the bytes
 * that the launch gives. */
#include "shared_memory.h"

#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#include "emulator.h"
#include "report.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(memory, bytes) ((void)(memory), (void)(bytes))
#define ASAN_UNPOISON_MEMORY_REGION(memory, bytes) ((void)(memory), (void)(bytes))
#endif

namespace emulator {

enum { PAGE = 4096, DYNAMIC_AREA = 256 * 1024, VARIABLE_GAP = 32 };

alignas(1024) static unsigned char variables[SHARED_DEFAULT_LIMIT + PAGE];
static size_t variables_used;
static size_t dynamic_bytes;

/* The end of the area for dynamic shared memory, where a guard page begins. */
static unsigned char *dynamic_end(void) {
  static unsigned char *end;
  if (end) return end;
  void *memory =
      mmap(nullptr, DYNAMIC_AREA + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) die("no memory for shared memory");
  end = (unsigned char *)memory + DYNAMIC_AREA;
  if (mprotect(end, PAGE, PROT_NONE) != 0) die("no guard page behind shared memory");
  ASAN_POISON_MEMORY_REGION(memory, DYNAMIC_AREA);
  return end;
}

void reset_shared(size_t dynamic) {
  if (variables_used) ASAN_POISON_MEMORY_REGION(variables, variables_used);
  variables_used = 0;
  unsigned char *end = dynamic_end();
  const size_t before = (dynamic_bytes + 15) / 16 * 16;
  const size_t now = (dynamic + 15) / 16 * 16;
  ASAN_POISON_MEMORY_REGION(end - before, before);
  ASAN_UNPOISON_MEMORY_REGION(end - now, dynamic);
  memset(end - now, 0xFF, dynamic);
  dynamic_bytes = dynamic;
  here.dynamic_shared = end - now;
}

/* An address that is aligned to `alignment` and to no more below 16, so that a kernel that needs more must
 * ask for it. */
void place_shared_variable(SharedVariable *variable, size_t bytes, size_t alignment) {
  const size_t unit = alignment < 16 ? 16 : alignment;
  const size_t offset =
      (variables_used + VARIABLE_GAP + unit - 1) / unit * unit + (alignment < 16 ? alignment : 0);
  if (offset + bytes > SHARED_DEFAULT_LIMIT) die("SHARED variables of a block exceed 48 KiB");
  variable->memory = variables + offset;
  variable->block_number = here.block_number;
  variables_used = offset + bytes;
  ASAN_UNPOISON_MEMORY_REGION(variable->memory, bytes);
  memset(variable->memory, 0xFF, bytes);
}

SharedPlace find_shared(const void *address, size_t bytes) {
  const uintptr_t at = (uintptr_t)address;
  const uintptr_t fixed = (uintptr_t)variables;
  const uintptr_t dynamic = (uintptr_t)here.dynamic_shared;
  if (at >= dynamic && at + bytes <= dynamic + dynamic_bytes) return {"dynamic", at - dynamic};
  if (at >= fixed && at + bytes <= fixed + variables_used) return {"static", at - fixed};
  return {nullptr, 0};
}

} // namespace emulator
