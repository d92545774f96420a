/* __syncthreads and its kin: the barrier of all threads of a block. */
#include <string.h>

#include "block.h"
#include "race.h"
#include "report.h"

namespace emulator {

static void open_barrier(Barrier *barrier) {
  for (int w = 0; w < block.warps; w++) {
    if (race_checking)
      for (unsigned lanes = barrier->waiting[w]; lanes; lanes &= lanes - 1)
        race_acquire(&threads[w * WARP_LANES + __builtin_ctz(lanes)], barrier->seen);
    make_ready(w, barrier->waiting[w]);
    barrier->waiting[w] = 0;
  }
  barrier->result = barrier->agreeing;
  barrier->arrived = barrier->agreeing = 0;
  if (race_checking) memset(barrier->seen, 0, sizeof barrier->seen);
}

int barrier(const char *name, bool predicate) {
  Barrier *barrier = &block.barrier;
  if (barrier->arrived == 0)
    barrier->name = name;
  else if (strcmp(barrier->name, name) != 0)
    die("threads of one block meet at %s and at %s", barrier->name, name);
  if (race_checking) race_release(current, barrier->seen);
  barrier->waiting[current->warp] |= 1u << current->lane;
  barrier->arrived++;
  barrier->agreeing += predicate;
  if (barrier->arrived == block.threads) open_barrier(barrier);
  wait_for(name, __builtin_return_address(0));
  return barrier->result;
}

} // namespace emulator
