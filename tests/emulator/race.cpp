/* The check for races in shared memory, and the functions that the compiler calls before each access under
 * -fsanitize=thread. Per byte it keeps the last writer and two readers, of two warps where possible. */
#include "race.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#include "report.h"
#include "shared_memory.h"

namespace emulator {

bool race_checking;

struct Mark {
  uint32_t clock; /* 0: none */
  uint16_t warp, lane;
  const void *code;
};

struct Cell {
  uint64_t block_number; /* what follows is of this block */
  Mark write, reads[2];
  bool in_flight, written;
};

static Cell static_cells[SHARED_DEFAULT_LIMIT];
static Cell dynamic_cells[SHARED_LIMIT];

void race_release(Thread *thread, uint32_t seen[BLOCK_WARPS]) {
  for (int w = 0; w < block.warps; w++)
    if (seen[w] < thread->seen[w]) seen[w] = thread->seen[w];
  if (seen[thread->warp] < thread->clock) seen[thread->warp] = thread->clock;
  thread->clock++;
}

void race_acquire(Thread *thread, const uint32_t seen[BLOCK_WARPS]) {
  for (int w = 0; w < block.warps; w++)
    if (thread->seen[w] < seen[w]) thread->seen[w] = seen[w];
}

/* Neither done before what the current thread does now, nor its own. */
static bool unordered(const Mark *mark) {
  return mark->clock > current->seen[mark->warp] &&
         (mark->warp != current->warp || mark->lane != current->lane);
}

static void name_code(char *out, size_t bytes, const void *code) {
  Dl_info info;
  if (code && dladdr(code, &info))
    snprintf(out, bytes, "addr2line -fie %s 0x%zx", info.dli_fname,
             (size_t)((const char *)code - (const char *)info.dli_fbase) - 1);
  else
    snprintf(out, bytes, "unknown code");
}

[[noreturn]] static void report(const char *what, SharedPlace place, const Mark *before, const Mark *now) {
  char first[512], second[512];
  name_code(first, sizeof first, before->code);
  name_code(second, sizeof second, now->code);
  die("race: %s, at byte %zu of %s shared memory\n  before: thread %d (%s)\n  now:    thread %d (%s)", what,
      place.offset, place.area, before->warp * WARP_LANES + before->lane, first,
      now->warp * WARP_LANES + now->lane, second);
}

static void note_read(Cell *cell, const Mark *now, SharedPlace place) {
  if (cell->in_flight) report("read before the wait for an asynchronous copy", place, &cell->write, now);
  if (!cell->written) report("read of what nothing was written to", place, now, now);
  if (unordered(&cell->write)) report("write, then read", place, &cell->write, now);
  Mark *last = &cell->reads[0];
  if (unordered(last) && (last->warp != now->warp || !unordered(&cell->reads[1]))) cell->reads[1] = *last;
  *last = *now;
}

static void note_write(Cell *cell, const Mark *now, SharedPlace place, Access access) {
  if (cell->in_flight) report("write before the wait for an asynchronous copy", place, &cell->write, now);
  if (unordered(&cell->write)) report("write, then write", place, &cell->write, now);
  for (const Mark &read : cell->reads)
    if (unordered(&read)) report("read, then write", place, &read, now);
  cell->write = *now;
  cell->written = true;
  cell->in_flight = access == ACCESS_COPY_START;
}

void race_access(const void *address, size_t bytes, Access access, const void *code) {
  if (!current) return;
  SharedPlace place = find_shared(address, bytes);
  if (!place.area) return;
  Cell *cells = place.area[0] == 's' ? static_cells : dynamic_cells;
  const Mark now = {current->clock, (uint16_t)current->warp, (uint16_t)current->lane, code};
  for (size_t end = place.offset + bytes; place.offset < end; place.offset++) {
    Cell *cell = &cells[place.offset];
    if (cell->block_number != here.block_number) {
      *cell = Cell{};
      cell->block_number = here.block_number;
    }
    if (access == ACCESS_COPY_LANDED) {
      cell->write = now;
      cell->in_flight = false;
    } else if (access == ACCESS_READ) {
      note_read(cell, &now, place);
    } else {
      note_write(cell, &now, place, access);
    }
  }
}

} // namespace emulator

using namespace emulator;

extern "C" {

/* Each file that was compiled so calls this at the start of the process. */
void __tsan_init(void) {
  race_checking = true;
}

#define HOOKS(bytes)                                                                                         \
  void __tsan_read##bytes(void *at) {                                                                        \
    race_access(at, bytes, ACCESS_READ, __builtin_return_address(0));                                        \
  }                                                                                                          \
  void __tsan_write##bytes(void *at) {                                                                       \
    race_access(at, bytes, ACCESS_WRITE, __builtin_return_address(0));                                       \
  }                                                                                                          \
  void __tsan_unaligned_read##bytes(void *at) {                                                              \
    race_access(at, bytes, ACCESS_READ, __builtin_return_address(0));                                        \
  }                                                                                                          \
  void __tsan_unaligned_write##bytes(void *at) {                                                             \
    race_access(at, bytes, ACCESS_WRITE, __builtin_return_address(0));                                       \
  }
HOOKS(1)
HOOKS(2)
HOOKS(4)
HOOKS(8)
HOOKS(16)
#undef HOOKS

void __tsan_read_range(void *at, size_t bytes) {
  race_access(at, bytes, ACCESS_READ, __builtin_return_address(0));
}
void __tsan_write_range(void *at, size_t bytes) {
  race_access(at, bytes, ACCESS_WRITE, __builtin_return_address(0));
}
void __tsan_func_entry(void *) {
}
void __tsan_func_exit(void) {
}
void __tsan_vptr_read(void **) {
}
void __tsan_vptr_update(void **, void *) {
}
}
