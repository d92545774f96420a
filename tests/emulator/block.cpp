/* The scheduler of one block's threads. A thread that begins gets the fiber of the one that ended before it,
 * so that threads which never wait run one after the other without a switch. */
#include "block.h"

#include "emulated_instructions.h"
#include "race.h"
#include "random.h"
#include "report.h"
#include "shared_memory.h"

namespace emulator {

Here here;
Block block;
Warp warps[BLOCK_WARPS];
Thread *const threads = new Thread[BLOCK_THREADS](); /* never released, as fibers are not */
Thread *current;

static Fiber *host; /* the stack that blocks are started from */
static std::vector<Fiber *> *const idle_fibers = new std::vector<Fiber *>;

static void run_threads(void);

static Fiber *take_fiber(void) {
  if (idle_fibers->empty()) return fiber_create(run_threads);
  Fiber *fiber = idle_fibers->back();
  idle_fibers->pop_back();
  return fiber;
}

void make_ready(int warp, unsigned lanes) {
  if (!lanes) return;
  for (Warp *w = &warps[warp]; lanes; lanes &= lanes - 1)
    w->ready[w->ready_count++] = (uint8_t)__builtin_ctz(lanes);
  block.ready_warps |= 1u << warp;
}

/* The next thread: mostly of the warp at hand, so that warps run far ahead of one another. */
static Thread *pick(int warp) {
  if (!block.ready_warps) die("deadlock: no thread of the block can go on");
  const uint32_t word = random_word();
  if (!(block.ready_warps >> warp & 1) || word >> 26 == 0)
    warp = random_bit(block.ready_warps, random_word());
  Warp *of = &warps[warp];
  const uint32_t place = (word & 0xFFFF) * of->ready_count >> 16;
  const int lane = of->ready[place];
  of->ready[place] = of->ready[--of->ready_count];
  if (of->ready_count == 0) block.ready_warps &= ~(1u << warp);
  return &threads[warp * WARP_LANES + lane];
}

static void set_current(Thread *thread) {
  current = thread;
  here.thread = &thread->index;
}

/* Makes a thread that has not run yet the current one, on `fiber`. */
static void start(Thread *thread, Fiber *fiber) {
  const unsigned number = (unsigned)(thread - threads);
  const dim3 extent = here.block_extent;
  if (extent.x >= (unsigned)block.threads)
    thread->index = {number, 0, 0};
  else
    thread->index = {number % extent.x, number / extent.x % extent.y, number / extent.x / extent.y};
  thread->warp = (int)number / WARP_LANES;
  thread->lane = (int)number % WARP_LANES;
  thread->fiber = fiber;
  if (race_checking) {
    thread->clock = 1;
    for (uint32_t &seen : thread->seen) seen = 0;
  }
  set_current(thread);
}

void wait_for(const char *name, const void *caller) {
  Thread *self = current;
  self->wait = {name, caller};
  Thread *next = pick(self->warp);
  if (next->fiber)
    set_current(next);
  else
    start(next, take_fiber());
  if (next != self) fiber_switch(self->fiber, next->fiber);
  self->wait.name = nullptr;
}

static void end(Thread *thread) {
  if (!thread->pending.copies.empty() || !thread->pending.groups.empty()) {
    copy_async_commit();
    finish_copies(0);
  }
  thread->fiber = nullptr;
  thread->ended = true;
  warps[thread->warp].live &= ~(1u << thread->lane);
  block.live--;
}

/* What a fiber does: runs the current thread and then those that begin after it, until one that waits
 * elsewhere or the host's stack is to go on; it then lies idle until a thread begins on it. */
static void run_threads(void) {
  for (;;) {
    (*block.body)();
    Fiber *self = current->fiber;
    end(current);
    Thread *next = block.live ? pick(current->warp) : nullptr;
    if (next && !next->fiber) {
      start(next, self);
      continue;
    }
    idle_fibers->push_back(self);
    if (next) set_current(next);
    fiber_switch(self, next ? next->fiber : host);
  }
}

static void reset_threads(int count) {
  block.threads = block.live = count;
  block.warps = (count + WARP_LANES - 1) / WARP_LANES;
  block.ready_warps = 0;
  for (int i = 0; i < count; i++) {
    threads[i].fiber = nullptr;
    threads[i].ended = false;
    threads[i].wait.name = nullptr;
  }
  for (int w = 0; w < block.warps; w++) {
    const int lanes = count - w * WARP_LANES;
    const unsigned mask = lanes >= WARP_LANES ? ~0u : (1u << lanes) - 1;
    warps[w].exist = warps[w].live = mask;
    warps[w].ready_count = 0;
    make_ready(w, mask);
  }
}

static void run_block(const Launch &launch) {
  Fiber own;
  host = &own;
  here.block_number++;
  reset_shared(launch.shared);
  reset_threads((int)(launch.block.x * launch.block.y * launch.block.z));
  start(pick(random_bit(block.ready_warps, random_word())), take_fiber());
  fiber_switch(&own, current->fiber);
  current = nullptr;
}

void run_grid(const Launch &launch, const std::function<void()> &body) {
  const unsigned blocks = launch.grid.x * launch.grid.y * launch.grid.z;
  std::vector<unsigned> order(blocks);
  for (unsigned i = 0; i < blocks; i++) {
    const unsigned j = random_below(i + 1);
    order[i] = order[j];
    order[j] = i;
  }
  here.block_extent = launch.block;
  here.grid_extent = launch.grid;
  block.body = &body;
  watch_faults();
  for (unsigned number : order) {
    here.block = {number % launch.grid.x, number / launch.grid.x % launch.grid.y,
                  number / launch.grid.x / launch.grid.y};
    run_block(launch);
  }
  unwatch_faults();
}

} // namespace emulator
