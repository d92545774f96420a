/* Runs a test's function on several ranks, each a thread with its groups and device, as the program does. */
#ifndef RINGGPT_SUPPORT_RANKS_H
#define RINGGPT_SUPPORT_RANKS_H

#include "kernels/base/status.h"
#include "kernels/comm/comm.h"
#include "kernels/device.h"
#include "tests/support/test_device.h"

typedef struct TestRank {
  Comm *world;
  Comm *ring;
  int data_rank;
  Device *device;
} TestRank;

typedef Status (*TestRankMain)(TestRank *rank, void *context, Error *error);

/* Runs `main` on ring x data ranks with `threads` compute threads each and returns the first failure. A rank
 * that fails takes the others with it. */
Status run_ranks(int ring, int data, int threads, TestRankMain main, void *context, Error *error);

/* The same on devices of another kind. */
Status run_ranks_on(TestDevice device, int ring, int data, int threads, TestRankMain main, void *context,
                    Error *error);

#endif
