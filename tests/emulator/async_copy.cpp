/* Asynchronous copies to shared memory. The source is read when the copy is started, as early as a GPU may;
 * the bytes land at the wait, as late as it may. */
#include <string.h>

#include "block.h"
#include "emulated_instructions.h"
#include "race.h"
#include "report.h"
#include "shared_memory.h"

void copy_async_16(void *to, const void *from, bool valid) {
  using namespace emulator;
  if ((uintptr_t)to % 16 != 0) die("copy_async_16: the destination is not aligned to 16 bytes");
  if (valid && (uintptr_t)from % 16 != 0) die("copy_async_16: the source is not aligned to 16 bytes");
  if (!find_shared(to, 16).area) die("copy_async_16: the destination is not in shared memory");
  if (valid && find_shared(from, 16).area) die("copy_async_16: the source is in shared memory");
  if (race_checking) race_access(to, 16, ACCESS_COPY_START, __builtin_return_address(0));
  PendingCopy copy = {(unsigned char *)to, {}};
  if (valid) memcpy(copy.bytes, from, 16);
  memset(to, 0xFF, 16);
  current->pending.copies.push_back(copy);
}

void copy_async_commit(void) {
  emulator::PendingCopies *pending = &emulator::current->pending;
  pending->groups.push_back(pending->copies.size() - pending->grouped);
  pending->grouped = pending->copies.size();
}

namespace emulator {

void finish_copies(size_t left) {
  PendingCopies *pending = &current->pending;
  if (pending->groups.size() <= left) return;
  const size_t groups = pending->groups.size() - left;
  size_t landed = 0;
  for (size_t i = 0; i < groups; i++) landed += pending->groups[i];
  for (size_t i = 0; i < landed; i++) {
    const PendingCopy *copy = &pending->copies[i];
    if (race_checking) race_access(copy->to, 16, ACCESS_COPY_LANDED, __builtin_return_address(0));
    memcpy(copy->to, copy->bytes, 16);
  }
  pending->groups.erase(pending->groups.begin(), pending->groups.begin() + (ptrdiff_t)groups);
  pending->copies.erase(pending->copies.begin(), pending->copies.begin() + (ptrdiff_t)landed);
  pending->grouped -= landed;
}

} // namespace emulator
