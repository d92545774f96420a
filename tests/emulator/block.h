/* One block of CUDA threads: who runs, who waits for what, who goes on next. Blocks run one at a time, under
 * the lock of streams.h. */
#ifndef RINGGPT_EMULATOR_BLOCK_H
#define RINGGPT_EMULATOR_BLOCK_H

#include <stdint.h>

#include <functional>
#include <vector>

#include "emulator.h"
#include "fiber.h"

namespace emulator {

enum { WARP_LANES = 32, BLOCK_WARPS = 32, BLOCK_THREADS = WARP_LANES * BLOCK_WARPS };

/* What a thread waits for, for reports. */
struct Wait {
  const char *name;   /* NULL: it could go on */
  const void *caller; /* in the kernel */
};

struct PendingCopy {
  unsigned char *to;
  unsigned char bytes[16];
};

/* The asynchronous copies of a thread, oldest first, and how many of them each closed group has. */
struct PendingCopies {
  std::vector<PendingCopy> copies;
  std::vector<size_t> groups;
  size_t grouped; /* copies in groups */
};

struct Thread {
  uint3 index;
  int warp, lane;
  Fiber *fiber; /* NULL before it has started and after it has ended */
  bool ended;
  Wait wait;
  PendingCopies pending;
  /* Of the race check: the own time, and up to which time what each warp did is known to be done. */
  uint32_t clock;
  uint32_t seen[BLOCK_WARPS];
};

/* A warp operation that some lanes have reached. */
struct Meeting {
  const char *name;
  unsigned mask, arrived;
  void *arguments[WARP_LANES];
};

struct Warp {
  unsigned exist, live;      /* lanes: of the block, not ended */
  uint8_t ready[WARP_LANES]; /* the lanes that are able to go on, in any order */
  uint32_t ready_count;
  Meeting meetings[WARP_LANES]; /* by the lowest lane of their mask */
};

struct Barrier {
  const char *name;
  int arrived, agreeing;
  int result; /* of the last time it opened */
  unsigned waiting[BLOCK_WARPS];
  uint32_t seen[BLOCK_WARPS]; /* of the race check */
};

struct Block {
  int threads, warps;
  int live;             /* threads that have not ended */
  unsigned ready_warps; /* with a lane that is ready */
  Barrier barrier;
  const std::function<void()> *body;
};

extern Block block;
extern Warp warps[BLOCK_WARPS];
extern Thread *const threads; /* BLOCK_THREADS */
extern Thread *current;       /* NULL outside of kernels */

/* Runs all blocks of the launch in random order; `body` is run once by each thread. */
void run_grid(const Launch &launch, const std::function<void()> &body);

/* Lets the lanes of a warp go on. */
void make_ready(int warp, unsigned lanes);

/* Lets others run until something makes this thread ready. */
void wait_for(const char *name, const void *caller);

} // namespace emulator

#endif
